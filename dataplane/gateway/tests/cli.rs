//! The program from outside, as far as it goes without a network of its own: exit codes and their lines.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The program in a directory of its own, which holds all that it writes.
fn gateway(place: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.args(words).current_dir(place).env_clear().stdin(Stdio::null());
    command.env("STATE_DIRECTORY", place.join("state")).env("RUNTIME_DIRECTORY", place.join("run"));
    command
}

/// Exit code, standard output, standard error.
fn ended(place: &Path, words: &[&str]) -> (Option<i32>, String, String) {
    parts(gateway(place, words).output().unwrap())
}

fn parts(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
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

#[test]
fn help_is_no_failure() {
    let place = tempfile::tempdir().unwrap();
    for word in ["-h", "-help", "--help"] {
        let (code, out, err) = ended(place.path(), &[word]);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        assert!(out.starts_with("Usage of gateway:\n  -debug\n        debug mode\n"), "{out}");
    }
}

#[test]
fn a_wrong_command_line_is_one_line_and_exit_code_2() {
    let place = tempfile::tempdir().unwrap();
    for (words, expect) in [
        (&[][..], "gateway: no token: give the transfer's with -token, -token-file or EASYMESH_TOKEN\n"),
        (
            &["-token", "x", "-ip", "172.168.3"],
            "gateway: -ip 172.168.3 is not an IPv4 address: give a host's address such as 172.168.3.1\n",
        ),
        (
            &["-token", "x", "-trans", "host"],
            "gateway: -trans: host has no port: give HOST:PORT, as in example.com:8000 or [2001:db8::1]:8000\n",
        ),
        (
            &["-token", "x", "-trans", "255.255.255.255:8000"],
            "gateway: -trans: 255.255.255.255:8000 is no address of one host: give the transfer's own, as in 203.0.113.10:8000\n",
        ),
        (&["-iface"], "gateway: flag -iface needs a value: write it as -iface=VALUE\n"),
    ] {
        assert_eq!(ended(place.path(), words), (Some(2), String::new(), expect.into()));
    }
}

#[test]
fn what_the_system_refuses_is_one_line_and_exit_code_1() {
    let place = tempfile::tempdir().unwrap();
    for (words, expect) in [
        (&["-token", "x", "-iface", "nothing7"][..], "-iface nothing7: no such interface"),
        (
            &["-token", "x", "-ip", "126.0.0.1/8", "-iface", "192.0.2.77"],
            "-iface 192.0.2.77: no interface has this address",
        ),
        (&["-token", "x", "-secret-file", "/nowhere"], "give the path of a file that this user can read"),
        (&["status"], "no running gateway answers: start it"),
    ] {
        let (code, out, err) = ended(place.path(), words);
        assert!(err.contains(expect), "{words:?}: {err}");
        assert_eq!((code, err.lines().count(), out.as_str()), (Some(1), 1, ""));
    }
}

#[test]
fn a_refusal_shows_no_token() {
    let place = tempfile::tempdir().unwrap();
    for words in [
        &["-token=secretvalue", "-bogus"][..],
        &["-token", "secretvalue", "-ip", "x"],
        &["-tokensecretvalue"],
        &["-token", "a", "secretvalue"],
        &["-token", "secretvalue", "-secret", "secretvalue", "-iface", "nothing7"],
        &["-debug", "-token", "secretvalue", "-secret", "secretvalue", "-iface", "nothing7"],
    ] {
        let (code, out, err) = ended(place.path(), words);
        assert!(code != Some(0) && !format!("{out}{err}").contains("secretvalue"), "{words:?}: {out}{err}");
    }
    let logs = std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().path());
    let logs: Vec<String> = logs.filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    assert!(logs.iter().any(|log| log.contains("no such interface")), "the failure is logged: {logs:?}");
    assert!(!logs.concat().contains("secretvalue"), "{logs:?}");
}

/// The start is held up: another program has the lock of the keys. Without a signal it would end with exit code 1.
#[test]
fn a_signal_during_the_start_ends_it_well() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir(place.path().join("state")).unwrap();
        let lock = File::create(place.path().join("state/gateway-8000-10.77.0.9.lock")).unwrap();
        lock.lock().unwrap();
        let words =
            ["-ip", "10.77.0.9", "-trans", "nowhere.invalid:8000", "-token", "0f8a7c61d2b94e35a1c0f7e6d5b49382"];
        let mut command = gateway(place.path(), &words);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        hears(&child);
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        let (code, out, err) = parts(child.wait_with_output().unwrap());
        assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "stopped before it ran\n", ""), "{signal}");
        let log = std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().path());
        let log = log.filter_map(|path| std::fs::read_to_string(path).ok()).collect::<String>();
        assert!(log.ends_with("stopped before it ran\n"), "what waited is in the log: {log}");
    }
}
