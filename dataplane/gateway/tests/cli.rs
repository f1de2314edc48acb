//! The program from outside, as far as it goes without a network of its own: exit codes and their lines.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;
use std::process::{Command, Stdio};

/// Exit code, standard output, standard error.
fn ended(place: &Path, words: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.args(words).current_dir(place).env_clear().stdin(Stdio::null());
    command.env("STATE_DIRECTORY", place.join("state")).env("RUNTIME_DIRECTORY", place.join("run"));
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
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
        (&["status"], "no running gateway answers: start it"),
    ] {
        let (code, out, err) = ended(place.path(), words);
        assert!(err.contains(expect), "{words:?}: {err}");
        assert_eq!((code, err.lines().count(), out.as_str()), (Some(1), 1, ""));
    }
}
