//! Runs a test in a user and network namespace of its own: as a child process, because a program with threads cannot enter one.
#![expect(unsafe_code, reason = "code between fork and exec is unsafe")]

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::{env, fs, io};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid};

/// Set in the child.
const INSIDE: &str = "MESH_CONFORMANCE_NAMESPACE";

/// Runs `body` in a child of this test program, for the test `engine::test`, as root of its own namespaces.
pub(crate) fn enter(engine: &str, test: &str, body: fn()) {
    if env::var_os(INSIDE).is_some() {
        return body();
    }
    let name = format!("{engine}::{test}");
    let program = env::current_exe().expect("a running program has a path");
    let mut child = Command::new(program);
    child.args(["--exact", &name, "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    let (user, group) = (Uid::current(), Gid::current());
    // SAFETY: the closure makes system calls and a few small allocations; the C library's allocator survives a fork.
    unsafe { child.pre_exec(move || enter_namespaces(user, group)) };
    let output = child.output().unwrap_or_else(|error| {
        panic!(
            "cannot enter a user and network namespace: {error}. Allow them: `sysctl user.max_user_namespaces=10000`, and where \
             they exist `kernel.unprivileged_userns_clone=1`, `kernel.apparmor_restrict_unprivileged_userns=0`; or run as root"
        )
    });
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} in its namespace: {}\n{out}\n{err}", output.status);
    assert!(out.contains("1 passed"), "{name} did not run in its namespace:\n{out}\n{err}");
}

fn enter_namespaces(user: Uid, group: Gid) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}
