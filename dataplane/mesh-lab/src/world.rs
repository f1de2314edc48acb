//! The private world: the namespaces everything else of a laboratory lives in.
//!
//! A process with several threads cannot enter a user namespace, and a test never runs alone in its process. So the
//! program is started once more, and its copy enters the namespaces between `fork` and `exec`:
//! 1. [`enter`] (for programs) or [`isolated`] (for tests) starts the copy and waits for its status;
//! 2. in the copy the same call finds itself inside and goes on.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use anyhow::{Context as _, Result, bail};
use nix::fcntl::OFlag;
use nix::unistd::{getegid, geteuid, pipe2};

use crate::sys::{Isolation, Step, WORLD_MARK};

/// Tells the copy of a test binary which test it is to run.
const TEST_VARIABLE: &str = "MESH_LAB_TEST";

/// When set to `1`, root also gets a user namespace, as everybody else does.
const USER_NAMESPACE_VARIABLE: &str = "MESH_LAB_USER_NS";

/// With this status the copy of a test says that the body ran to its end; no test harness uses it.
const BODY_PASSED: i32 = 87;

/// Whether this process is in a private world.
#[must_use]
pub fn inside() -> bool {
    let Ok(mounts) = std::fs::read_link("/proc/self/ns/mnt") else { return false };
    let Ok(mark) = std::fs::read_to_string(WORLD_MARK) else { return false };
    mark.lines().nth(1).map(Path::new) == Some(mounts.as_path())
}

/// The number of this process in the process-id namespace outside the world, for people who step in.
pub(crate) fn outer_pid() -> Result<u32> {
    let mark = std::fs::read_to_string(WORLD_MARK).with_context(|| format!("read {WORLD_MARK}"))?;
    let first = mark.lines().next().unwrap_or_default();
    first.parse().with_context(|| format!("{WORLD_MARK} begins with {first:?}, not a process id"))
}

/// Whether the world has a user namespace of its own.
pub(crate) fn has_user_namespace() -> bool {
    // The first user namespace maps all 2^32 - 1 users; one of ours maps a single one.
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !map.trim_end().ends_with("4294967295"))
}

/// Moves the program into a private world. Call it before anything that is to happen once, best first in `main`.
///
/// Outside, it starts the running program again with the same arguments, in namespaces of its own, waits for it and
/// ends the process with its status: it returns only with an error. Inside, it returns at once. What needs the
/// machine's own network (a build that fetches packages) comes before the call; [`inside`] tells which side runs.
///
/// In the world the process is root over new network, mount and process-id namespaces, `/run` is empty and private,
/// no mount made there is seen outside, and all of it, with every process in it, is gone when the program ends or is
/// killed.
///
/// # Errors
/// The kernel refuses the namespaces: the message names the knob to turn.
pub fn enter() -> Result<()> {
    if inside() {
        return Ok(());
    }
    let status = start(|command| {
        command.args(std::env::args_os().skip(1));
    })?
    .wait()
    .context("wait for the program in its private world")?;
    std::process::exit(shell_status(status));
}

/// Runs the body of a `#[test]` in a private world of its own.
///
/// ```no_run
/// # use mesh_lab::Lab;
/// #[test]
/// fn hosts_answer() {
///     mesh_lab::isolated(|| {
///         let lab = Lab::new("hosts_answer")?;
///         // hosts, links, programs
///         Ok(())
///     });
/// }
/// ```
///
/// The test binary is started again for exactly this test, inside; what it prints is passed on, and the test passes
/// if and only if the body ran and returned `Ok`. Works alike under `cargo test` and `cargo nextest`. Call it with
/// the closure written in the test function: the name of the test is that of the function around the closure.
///
/// # Panics
/// The body failed, did not run, or the world was refused.
pub fn isolated<F: FnOnce() -> Result<()>>(body: F) {
    let name = test_name(std::any::type_name::<F>());
    if std::env::var(TEST_VARIABLE).as_deref() == Ok(name) {
        assert!(inside(), "{TEST_VARIABLE} is set outside a laboratory");
        match body() {
            Ok(()) => std::process::exit(BODY_PASSED),
            Err(error) => panic!("{error:?}"),
        }
    }
    let mut child = start(|command| {
        command.args([name, "--exact", "--nocapture", "--include-ignored"]).env(TEST_VARIABLE, name);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    })
    .unwrap_or_else(|error| panic!("{error:?}"));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        scope.spawn(|| pass_on(stdout));
        scope.spawn(|| pass_on(stderr));
    });
    let status = child.wait().expect("a child that was started can be waited for");
    match status.code() {
        Some(BODY_PASSED) => {}
        Some(0) => panic!("the test binary found no test named {name:?}"),
        Some(_) | None => panic!("the test failed inside its private world ({status})"),
    }
}

/// Cuts `crate::module::test::{{closure}}` to `module::test`.
fn test_name(closure: &str) -> &str {
    let function = closure.split("::{{closure}}").next().unwrap_or(closure);
    function.split_once("::").map_or(function, |(_crate, path)| path)
}

/// Prints a child's output line by line through this process's standard error, where a test harness collects it.
fn pass_on(stream: Option<impl Read>) {
    let Some(stream) = stream else { return };
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while matches!(reader.read_until(b'\n', &mut line), Ok(length) if length > 0) {
        eprint!("{}", String::from_utf8_lossy(&line));
        line.clear();
    }
}

fn shell_status(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(125)
}

/// One way to make a world, from the best to the least.
#[derive(Clone, Copy)]
struct Way {
    user_namespace: bool,
    pid_namespace: bool,
}

/// Starts the running program again in a private world; `prepare` adds its arguments.
fn start(prepare: impl Fn(&mut Command)) -> Result<std::process::Child> {
    let forced = std::env::var_os(USER_NAMESPACE_VARIABLE).is_some_and(|value| value == "1");
    let keep_user = geteuid().is_root() && !forced;
    let ways = [(false, true), (false, false), (true, true), (true, false)]
        .map(|(user_namespace, pid_namespace)| Way { user_namespace, pid_namespace });
    let mut refusals = String::new();
    for way in ways.into_iter().filter(|way| way.user_namespace || keep_user) {
        match start_one(way, &prepare)? {
            Ok(child) => return Ok(child),
            Err(refusal) => {
                if !refusals.contains(&refusal) {
                    let _ = write!(refusals, "\n  {refusal}");
                }
            }
        }
    }
    bail!("the kernel refuses a private world of namespaces:{refusals}")
}

fn start_one(way: Way, prepare: &impl Fn(&mut Command)) -> Result<std::result::Result<std::process::Child, String>> {
    let program: OsString = std::env::args_os().next().unwrap_or_else(|| "mesh-lab".into());
    // The link, not the path: it works for a user who may not search the directory the program lies in.
    let mut command = Command::new("/proc/self/exe");
    command.arg0(program);
    prepare(&mut command);
    let (reader, progress) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
    let maps = || (format!("0 {} 1\n", geteuid()), format!("0 {} 1\n", getegid()));
    let isolation = Isolation {
        user_maps: way.user_namespace.then(maps),
        pid_namespace: way.pid_namespace,
        parent: std::process::id(),
        progress,
    };
    isolation.apply(&mut command);
    let started = command.spawn();
    drop(command); // and with it the last writing end in this process
    match started {
        Ok(child) => Ok(Ok(child)),
        Err(error) => {
            let mut steps = Vec::new();
            File::from(reader).read_to_end(&mut steps).context("read the steps of a child")?;
            let step = steps.last().copied().and_then(Step::from_byte);
            Ok(Err(refusal(way, step, &error)))
        }
    }
}

/// Says what was refused and which knob allows it.
fn refusal(way: Way, step: Option<Step>, error: &io::Error) -> String {
    let what = match step {
        None => "start the child process",
        Some(Step::Unshare) if way.user_namespace => "create user, mount and network namespaces",
        Some(Step::Unshare) => "create mount and network namespaces as root without a user namespace",
        Some(Step::MapUser) => "map the user into its namespace",
        Some(Step::Fork) => "start the init of the process-id namespace",
        Some(Step::PrivateMounts) => "make the mounts private",
        Some(Step::RunTmpfs) => "mount a private /run",
        Some(Step::Proc) => "mount a /proc for the new process ids (a container that hides parts of /proc forbids it)",
        Some(Step::Exec) => "execute the program again",
    };
    format!("{what}: {error}; {}", remedy(way, |knob| std::fs::read_to_string(knob).ok()))
}

/// The knob that most likely forbids `way`; `read` gives the text of a file under /proc/sys.
fn remedy(way: Way, read: impl Fn(&str) -> Option<String>) -> String {
    let is = |knob: &str, value: &str| {
        let path = format!("/proc/sys/{}", knob.replace('.', "/"));
        read(&path).is_some_and(|text| text.trim() == value)
    };
    for limit in ["user.max_net_namespaces", "user.max_mnt_namespaces", "user.max_pid_namespaces"] {
        if is(limit, "0") {
            return format!("{limit} is 0: run `sysctl -w {limit}=10000` as root");
        }
    }
    if !way.user_namespace {
        return "root needs CAP_SYS_ADMIN: in a container, add it or start the container privileged".to_owned();
    }
    let knobs = [
        ("user.max_user_namespaces", "0", "10000"),
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ];
    for (knob, forbids, allows) in knobs {
        if is(knob, forbids) {
            return format!("{knob} is {forbids}: run `sysctl -w {knob}={allows}` as root, or run as root");
        }
    }
    "user.max_user_namespaces, kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns allow \
     it, so a seccomp filter or security module forbids it: in a container, start it privileged; else run as root"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_name_is_that_of_the_function_around_the_closure() {
        assert_eq!(test_name("network::two_hosts::{{closure}}"), "two_hosts");
        assert_eq!(test_name("mesh_lab::world::tests::x::{{closure}}::{{closure}}"), "world::tests::x");
    }

    #[test]
    fn remedy_names_the_knob_that_forbids() {
        let way = Way { user_namespace: true, pid_namespace: true };
        let check = |path: &'static str, value: &'static str, expect: &str| {
            let text = remedy(way, |asked| (asked == path).then(|| format!("{value}\n")));
            assert!(text.starts_with(expect), "{text}");
        };
        check("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces is 0");
        check("/proc/sys/user/max_net_namespaces", "0", "user.max_net_namespaces is 0");
        check("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone is 0");
        check(
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns is 1",
        );
    }
}
