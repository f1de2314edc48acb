use std::os::unix::fs::symlink;
use std::time::Instant;

use super::*;

/// A "rival" that is the shell: its version is what the script prints.
fn shell(script: &'static [&'static str]) -> Known {
    Known {
        name: "a-thing",
        program: "thing",
        source: Source::Debian { set: "things", folder: "usr/bin" },
        version: script,
    }
}

const GOOD: &[&str] = &["-c", "echo thing v1.2.3, of old"];

/// An empty folder of peers and an empty `PATH`.
fn nowhere(folder: &tempfile::TempDir) -> Places {
    Places { variable: None, peers: folder.path().join("peers"), path: folder.path().join("path").into() }
}

/// Puts the shell there under the name of the rival.
fn put(program: &Path) {
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    symlink("/bin/sh", program).unwrap();
}

#[test]
fn what_is_nowhere_is_absent_and_says_how_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    let absent = shell(GOOD).find(&nowhere(&folder)).unwrap().unwrap_err();
    assert_eq!(absent.name, "a-thing");
    assert_eq!(absent.how, "cargo xtask bench peers things, or XTASK_PEER_A_THING=/path");
}

#[test]
fn the_variable_comes_before_the_folder_and_the_folder_before_the_path() {
    let folder = tempfile::tempdir().unwrap();
    let mut places = nowhere(&folder);
    let program = |places: &Places| shell(GOOD).find(places).unwrap().unwrap().program;

    let on_path = folder.path().join("path/thing");
    put(&on_path);
    assert_eq!(program(&places), on_path);

    let unpacked = folder.path().join("peers/debian/things/usr/bin/thing");
    put(&unpacked);
    assert_eq!(program(&places), unpacked);

    places.variable = Some("/bin/sh".into());
    assert_eq!(program(&places), Path::new("/bin/sh"));
}

#[test]
fn a_variable_that_names_nothing_runnable_is_an_error_even_if_the_program_is_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let mut places = nowhere(&folder);
    put(&folder.path().join("path/thing"));
    let not_runnable = folder.path().join("text");
    fs::write(&not_runnable, "text").unwrap();
    for named in [OsString::new(), "/no/such/program".into(), folder.path().into(), not_runnable.into()] {
        places.variable = Some(named);
        let error = shell(GOOD).find(&places).unwrap_err();
        assert!(error.to_string().starts_with("XTASK_PEER_A_THING="), "{error}");
    }
}

#[test]
fn a_program_that_is_there_and_tells_no_version_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let places = Places { variable: Some("/bin/sh".into()), ..nowhere(&folder) };
    let error = shell(&["-c", "echo thing: cannot open libthing.so.7 >&2; exit 127"]).find(&places).unwrap_err();
    assert!(error.to_string().ends_with("it said: thing: cannot open libthing.so.7"), "{error}");
}

#[test]
fn an_unpacked_program_gets_its_own_libraries_and_files_and_one_on_the_path_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let places = nowhere(&folder);
    let root = places.peers.join("debian/things");
    put(&root.join("usr/bin/thing"));
    let libraries = [root.join("usr/lib/x86_64-linux-gnu"), root.join("lib/x86_64-linux-gnu")];
    for libraries in &libraries {
        fs::create_dir_all(libraries).unwrap();
    }
    fs::write(root.join("usr/lib/module.so"), "").unwrap();

    // The program itself says what it was given.
    let script = &["-c", "echo 1.0 $LD_LIBRARY_PATH"];
    let peer = shell(script).find(&places).unwrap().unwrap();
    let given = said(peer.command().args(*script)).unwrap();
    let given: Vec<_> = env::split_paths(given.trim().strip_prefix("1.0 ").unwrap()).take(2).collect();
    assert_eq!(given, libraries);
    assert_eq!(peer.file("usr/lib/module.so"), Some(root.join("usr/lib/module.so")));
    assert_eq!(peer.file("usr/lib/other.so"), None);

    let places = Places { variable: Some("/bin/sh".into()), ..places };
    assert_eq!(shell(script).find(&places).unwrap().unwrap().environment, []);
}

#[test]
fn a_program_that_hangs_is_ended_with_what_it_started() {
    let start = Instant::now();
    let mut hanging = Command::new("sh");
    // The child of the shell holds the pipe open when only the shell is ended.
    hanging.args(["-c", "sleep 600 & sleep 600"]);
    let error = said_within(&mut hanging, Duration::from_millis(200)).unwrap_err();
    assert!(error.to_string().starts_with("no answer within"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_program_that_prints_without_end_is_read_up_to_a_limit() {
    let mut endless = Command::new("sh");
    endless.args(["-c", "while :; do echo thing 1.2.3; done"]);
    let text = said(&mut endless).unwrap();
    assert!(text.len() as u64 <= VERSION_BYTES_MAX);
    assert_eq!(version_in(&text), Some("1.2.3"));
}

#[test]
fn versions_are_found_in_what_the_programs_print() {
    for (said, version) in [
        ("4.6.1\n", "4.6.1"),
        ("nginx version: nginx/1.22.1\n", "1.22.1"),
        (
            "socat by Gerhard Rieger and contributors - see www.dest-unreach.org\nsocat version 1.7.4.4 on 06 Nov",
            "1.7.4.4",
        ),
        ("wireguard-go v0.0.20220316\n", "0.0.20220316"),
        ("wireguard-tools v1.0.20210914 - https://git.zx2c4.com/wireguard-tools/\n", "1.0.20210914"),
        ("Version: 1.6.1\n", "1.6.1"),
        ("Welcome to n2n v.1.3.2 for unknown\n", "1.3.2"),
        ("OpenVPN 2.6.14 x86_64-pc-linux-gnu [SSL (OpenSSL)]", "2.6.14"),
        ("nftables v1.0.6 (Lester Gooch #5)\n", "1.0.6"),
        ("thing 1.2.3, of old", "1.2.3"),
    ] {
        assert_eq!(version_in(said), Some(version), "{said}");
    }
    assert_eq!(version_in("error while loading shared libraries: libevent_core-2.1.so.7: cannot open"), None);
    assert_eq!(version_in(""), None);
}

#[test]
fn the_names_differ_and_so_do_their_variables() {
    let mut variables: Vec<_> = KNOWN.iter().map(Known::variable).collect();
    variables.sort();
    variables.dedup();
    assert_eq!(variables.len(), KNOWN.len());
    assert!(variables.contains(&"XTASK_PEER_WIREGUARD_GO".to_owned()));
    assert_eq!(find("no-such-rival").unwrap_err().to_string(), "no rival is called no-such-rival");
}
