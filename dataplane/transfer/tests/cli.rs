//! The program from outside: exit codes, first lines, ports, stopping.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The program in a directory of its own, which holds all that it writes.
fn transfer(place: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_transfer"));
    command.args(words).current_dir(place).env_clear().stdin(Stdio::null());
    command.env("STATE_DIRECTORY", place.join("state")).env("RUNTIME_DIRECTORY", place.join("run"));
    command
}

/// Exit code, standard output, standard error.
fn ended(place: &Path, words: &[&str]) -> (Option<i32>, String, String) {
    let output = transfer(place, words).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A first port with `count` free ones from there. Tests run at the same time: each looks in a range of its own.
fn free_ports(range: std::ops::Range<u16>, count: u16) -> u16 {
    range
        .step_by(usize::from(count) + 1)
        .find(|&first| (first..first + count).all(|port| UdpSocket::bind(("::", port)).is_ok()))
        .expect("some ports are free")
}

/// A running transfer; killed if the test fails.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    fn start(place: &Path, words: &[&str]) -> Self {
        let mut child = transfer(place, words).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// Reads lines up to one that contains `text`.
    fn until(&mut self, text: &str) -> String {
        let mut read = String::new();
        while !read.contains(text) {
            assert_ne!(self.out.read_line(&mut read).unwrap(), 0, "{text:?} did not come, but: {read}");
        }
        read
    }

    /// Sends a signal; the rest of what it says, and its exit code.
    fn stop(mut self, signal: Signal) -> (Option<i32>, String) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a process holds SIGTERM back: from then on it answers for it itself.
fn hears(child: &Child) {
    let path = format!("/proc/{}/status", child.id());
    let held = || -> Option<bool> {
        let status = std::fs::read_to_string(&path).ok()?;
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"))?;
        Some(u64::from_str_radix(mask.trim(), 16).ok()? & (1 << (Signal::SIGTERM as i32 - 1)) != 0)
    };
    while !held().expect("the process lives") {
        std::thread::yield_now();
    }
}

fn status(place: &Path) -> serde_json::Value {
    let (code, out, err) = ended(place, &["status", "--json"]);
    assert_eq!(code, Some(0), "{err}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn help_is_no_failure() {
    let place = tempfile::tempdir().unwrap();
    for word in ["-h", "-help", "--help"] {
        let (code, out, err) = ended(place.path(), &[word]);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        assert!(
            out.starts_with("Usage of transfer:\n  -bind int\n        transfer server bind port (default 8000)\n"),
            "{out}"
        );
    }
}

#[test]
fn a_wrong_command_line_is_one_line_and_exit_code_2() {
    let place = tempfile::tempdir().unwrap();
    for (words, expect) in [
        (&["-tokn", "x"][..], "transfer: unknown flag -tokn: did you mean -token?\n"),
        (&["-bind", "0"], "transfer: -bind is not a number in 1..65535: give one, as in -bind 1\n"),
        (&["-engine", "x"], "transfer: -engine x does not exist: give auto, uring, mmsg or portable\n"),
    ] {
        assert_eq!(ended(place.path(), words), (Some(2), String::new(), expect.into()));
    }
}

#[test]
fn what_the_system_refuses_is_one_line_and_exit_code_1() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("file"), "").unwrap();
    for words in [&["-log", "file/log"][..], &["-config", "missing.toml"], &["-state", "file/state"], &["status"]] {
        let (code, _, err) = ended(place.path(), words);
        assert_eq!(code, Some(1), "{words:?}: {err}");
        assert_eq!(err.lines().count(), 1, "{words:?}: {err}");
    }
}

#[test]
fn it_runs_says_so_and_stops_with_its_ports_free() {
    for engine in ["uring", "mmsg", "portable"] {
        let place = tempfile::tempdir().unwrap();
        let first = free_ports(20_000..23_000, 20);
        let bind = first.to_string();
        let mut running = Running::start(place.path(), &["-bind", &bind, "-nums", "20", "-engine", engine]);
        let said = running.until("join with: ");
        assert!(said.contains(&format!("engine {engine} (as asked)")), "{said}");
        let token =
            said.lines().find_map(|line| line.split_once("shown only here: ")).expect("a token was made").1.to_owned();

        let status = status(place.path());
        assert_eq!(status["ports_bound"], 20);
        assert_eq!((&status["engine"], &status["bind"]), (&engine.into(), &first.into()));
        assert_eq!(status["offloads"], serde_json::json!(["udp-gso", "udp-gro"]));
        assert!(UdpSocket::bind(("0.0.0.0", first)).is_err(), "the port is bound, and by it alone");

        let (code, rest) = running.stop(Signal::SIGTERM);
        assert_eq!((code, rest.lines().last()), (Some(0), Some("stopped")));
        for port in first..first + 20 {
            UdpSocket::bind(("::", port)).expect("the ports are free");
        }
        assert_eq!(std::fs::read_dir(place.path().join("run")).unwrap().count(), 0, "its status socket is gone");
        for entry in std::fs::read_dir(place.path()).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                let log = std::fs::read_to_string(entry.path()).unwrap();
                assert!(
                    log.contains("stopped") && !log.contains(&token),
                    "the log ends well and shows no token: {log}"
                );
            }
        }
    }
}

#[test]
fn a_busy_port_is_named_and_taken_when_it_is_free() {
    let place = tempfile::tempdir().unwrap();
    let first = free_ports(23_000..26_000, 3);
    let holder = UdpSocket::bind(("0.0.0.0", first + 1)).unwrap();
    let bind = first.to_string();
    let mut running =
        Running::start(place.path(), &["-bind", &bind, "-nums", "3", "-token", "0f8a7c61d2b94e35a1c0f7e6d5b49382"]);
    let said = running.until("warning: UDP ports in use");
    assert!(said.ends_with(&format!("each second: {}\n", first + 1)), "{said}");
    let before = status(place.path());
    assert_eq!(
        (&before["ports_bound"], &before["ports_busy"]),
        (&2.into(), &serde_json::json!([format!("{}", first + 1)]))
    );
    drop(holder);
    // Each question is a turn of the program; it tries each second.
    while status(place.path())["ports_bound"] != 3 {}
    assert_eq!(running.stop(Signal::SIGINT).0, Some(0));
}

#[test]
fn without_a_port_the_start_fails() {
    let place = tempfile::tempdir().unwrap();
    let first = free_ports(26_000..29_000, 1);
    let _holder = UdpSocket::bind(("::", first)).unwrap();
    let (code, out, err) = ended(place.path(), &["-bind", &first.to_string(), "-nums", "1"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.starts_with(&format!("transfer: no port is left: all of {first} are in use: ")), "{err}");
}

#[test]
fn the_line_to_join_by_names_a_port_that_is_bound() {
    let place = tempfile::tempdir().unwrap();
    let first = free_ports(32_000..32_700, 3);
    let _holder = UdpSocket::bind(("::", first)).unwrap();
    let mut running =
        Running::start(place.path(), &["-bind", &first.to_string(), "-nums", "3", "-public", "192.0.2.1"]);
    let said = running.until("join with: ");
    assert!(said.contains(&format!("-trans 192.0.2.1:{} -token", first + 1)), "{said}");
    assert_eq!(running.stop(Signal::SIGTERM).0, Some(0));
}

/// `timeout` signals its child and at once the child's group. Sent by different signals, none of them is merged.
#[test]
fn a_signal_that_comes_twice_at_once_is_one_wish() {
    let place = tempfile::tempdir().unwrap();
    let bind = free_ports(32_000..32_700, 20).to_string();
    let mut running = Running::start(place.path(), &["-bind", &bind, "-nums", "20"]);
    running.until("join with: ");
    let process = Pid::from_raw(running.child.id().try_into().unwrap());
    kill(process, Signal::SIGHUP).unwrap();
    kill(process, Signal::SIGINT).unwrap();
    let (code, rest) = running.stop(Signal::SIGTERM);
    assert_eq!((code, rest.lines().last()), (Some(0), Some("stopped")));
    assert_eq!(std::fs::read_dir(place.path().join("run")).unwrap().count(), 0, "its status socket is gone");
}

#[test]
fn a_file_in_the_place_of_a_directory_is_named_as_one() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("file"), "").unwrap();
    let bind = free_ports(32_700..33_000, 1).to_string();
    for (flag, expect) in [
        (
            "-log",
            "transfer: cannot write logs in file: it is no directory: give another directory with -log, or -debug\n",
        ),
        ("-state", "transfer: cannot keep keys in file: it is no directory: give another directory with -state\n"),
    ] {
        let (code, _, err) = ended(place.path(), &["-bind", &bind, "-nums", "1", flag, "file"]);
        assert_eq!((code, err.as_str()), (Some(1), expect));
    }
}

#[test]
fn a_killed_transfer_is_followed_at_once_with_the_same_key() {
    let place = tempfile::tempdir().unwrap();
    let bind = free_ports(29_000..32_000, 50).to_string();
    let words = ["-bind", &bind, "-nums", "50"];
    let mut first = Running::start(place.path(), &words);
    first.until("join with: ");
    let key = status(place.path())["public_key"].clone();
    drop(first);
    let mut second = Running::start(place.path(), &words);
    second.until("join with: ");
    let mut now = status(place.path());
    while now["ports_bound"] != 50 {
        now = status(place.path());
    }
    assert_eq!(now["public_key"], key);
    assert_eq!(second.stop(Signal::SIGTERM).0, Some(0));
}

#[test]
fn no_line_and_no_log_shows_a_token() {
    for debug in ["-debug", "-debug=false"] {
        let place = tempfile::tempdir().unwrap();
        for words in [&["-token=secretvalue", "-bogus"][..], &["-token", "a", "secretvalue"], &["-tokensecretvalue"]] {
            let (code, out, err) = ended(place.path(), words);
            assert!(code == Some(2) && !format!("{out}{err}").contains("secretvalue"), "{words:?}: {out}{err}");
        }
        let bind = free_ports(17_000..20_000, 2).to_string();
        let mut running =
            Running::start(place.path(), &["-bind", &bind, "-nums", "2", debug, "-token", "secretvalue-4c1d07e5"]);
        let said = running.until("join with: ");
        let shown = status(place.path()).to_string();
        let (code, rest) = running.stop(Signal::SIGTERM);
        assert_eq!(code, Some(0));
        let files = std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().path());
        let logs: String = files.filter_map(|path| std::fs::read_to_string(path).ok()).collect();
        assert!([&said, &shown, &rest, &logs].iter().all(|text| !text.contains("secretvalue")));
        assert_eq!(logs.is_empty(), debug == "-debug");
    }
}

/// The start is held up: another program has the lock of the keys. Without a signal it would end with exit code 1.
#[test]
fn a_signal_during_the_start_ends_it_well() {
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("state")).unwrap();
    let bind = free_ports(14_000..17_000, 1).to_string();
    let lock = File::create(place.path().join(format!("state/transfer-{bind}.lock"))).unwrap();
    lock.lock().unwrap();
    let mut command = transfer(place.path(), &["-bind", &bind, "-nums", "1"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    hears(&child);
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"stopped before it ran\n"[..]));
}

/// Root gives up what it does not need; only where it writes to another's folder does it keep the right to.
#[test]
fn root_keeps_only_what_a_transfer_needs() {
    // net_bind_service 10, net_admin 12, ipc_lock 14, sys_resource 24.
    const NEEDED: u64 = 1 << 10 | 1 << 12 | 1 << 14 | 1 << 24;
    const DAC_OVERRIDE: u64 = 1 << 1;
    for (owner, wanted) in [(None, NEEDED), (Some(65_534), NEEDED | DAC_OVERRIDE)] {
        let place = tempfile::tempdir().unwrap();
        let own = capabilities(std::process::id(), "CapEff");
        if own & DAC_OVERRIDE != 0 {
            std::os::unix::fs::chown(place.path(), owner, None).unwrap();
        }
        let bind = free_ports(20_000..23_000, 1).to_string();
        let mut running = Running::start(place.path(), &["-bind", &bind, "-nums", "1"]);
        running.until("join with: ");
        for kind in ["CapEff", "CapPrm"] {
            assert_eq!(capabilities(running.child.id(), kind), wanted & own, "{kind}");
        }
        assert_eq!(capabilities(running.child.id(), "CapInh"), 0);
        assert_eq!(running.stop(Signal::SIGTERM).0, Some(0));
    }
}

/// A set of capabilities of a process, the same in all its threads.
fn capabilities(process: u32, kind: &str) -> u64 {
    let mut sets = std::fs::read_dir(format!("/proc/{process}/task")).unwrap().map(|thread| {
        let status = std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(':')).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    });
    let first = sets.next().unwrap();
    assert!(sets.all(|set| set == first));
    first
}
