use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Write as _;

use super::*;
use crate::cli::flags::Program;
use crate::cli::{Command, Words};

fn words(words: &[&str], variables: &[(&str, &str)]) -> Words {
    let variables: HashMap<String, OsString> =
        variables.iter().map(|(name, value)| (name.to_string(), OsString::from(value))).collect();
    Words {
        called_as: "program".into(),
        words: words.iter().map(ToString::to_string).collect(),
        variable: Box::new(move |name| variables.get(name).cloned()),
    }
}

fn gateway(line: &[&str], variables: &[(&str, &str)]) -> Result<GatewayOptions, Failure> {
    match words(line, variables).read(Program::Gateway, GatewayOptions::from_settings)? {
        Command::Run(options) => Ok(*options),
        Command::Status(_) | Command::Help(_) => panic!("{line:?} is no run"),
    }
}

fn transfer(line: &[&str], variables: &[(&str, &str)]) -> Result<TransferOptions, Failure> {
    match words(line, variables).read(Program::Transfer, TransferOptions::from_settings)? {
        Command::Run(options) => Ok(*options),
        Command::Status(_) | Command::Help(_) => panic!("{line:?} is no run"),
    }
}

/// The line of a usage error; anything else fails the test.
fn refused<O: std::fmt::Debug>(result: Result<O, Failure>) -> String {
    match result {
        Err(Failure::Usage(line)) => {
            assert!(!line.contains('\n') && line.contains(": "), "not one line `cause: remedy`: {line}");
            line
        }
        other => panic!("{other:?}"),
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn defaults_are_those_of_the_first_edition() {
    let options = transfer(&[], &[]).unwrap();
    assert_eq!((options.bind, options.nums, options.public.as_str()), (8000, 1000, "www.domain.com"));
    assert!(!options.public_given && !options.common.debug && options.common.token.is_empty());
    assert_eq!(options.common.log, Path::new("./"));
    let options = gateway(&["-token", "x"], &[]).unwrap();
    assert_eq!((options.ip, options.prefix), (Ipv4Addr::new(172, 168, 0, 1), 16));
    assert_eq!((options.iface.as_str(), options.trans.to_string().as_str()), ("eth0", "www.domain.com:8000"));
    assert!(!options.iface_given);
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    let config = file("bind = 1\nnums = 2\npublic = \"file\"\ndebug = true\n");
    let path = config.path().to_str().unwrap();
    let options =
        transfer(&["-config", path, "-bind", "3"], &[("EASYMESH_BIND", "4"), ("EASYMESH_NUMS", "5")]).unwrap();
    assert_eq!((options.bind, options.nums, options.public.as_str()), (3, 5, "file"));
    assert!(options.common.debug && options.public_given);
    let options = transfer(&["-debug=false"], &[("EASYMESH_CONFIG", path), ("EASYMESH_PUBLIC", "")]).unwrap();
    assert_eq!((options.bind, options.public.as_str(), options.common.debug), (1, "file", false));
}

#[test]
fn a_token_comes_from_a_flag_a_file_or_a_variable() {
    let token = file("from file\r\n");
    let path = token.path().to_str().unwrap();
    let token_of = |line: &[&str], variables: &[(&str, &str)]| {
        gateway(line, variables).map(|o| o.common.token.expose().to_owned())
    };
    assert_eq!(token_of(&["-token=-debug"], &[]).unwrap(), "-debug");
    assert_eq!(token_of(&["-token", "a=b"], &[]).unwrap(), "a=b");
    assert_eq!(token_of(&["-token-file", path], &[]).unwrap(), "from file");
    assert_eq!(token_of(&[], &[("EASYMESH_TOKEN", "v")]).unwrap(), "v");
    assert_eq!(token_of(&["-token-file", path], &[("EASYMESH_TOKEN", "v")]).unwrap(), "from file");
    assert_eq!(token_of(&["-token", "f"], &[("EASYMESH_TOKEN_FILE", "/nowhere")]).unwrap(), "f");
    assert!(refused(token_of(&["-token", "f", "-token-file", path], &[])).contains("both given"));
    assert!(refused(token_of(&["-token-file", file("\n").path().to_str().unwrap()], &[])).contains("is empty"));
    assert!(matches!(token_of(&["-token-file", "/nowhere"], &[]), Err(Failure::Other(_))));
}

#[test]
fn a_gateway_without_a_token_says_so() {
    assert!(refused(gateway(&[], &[])).starts_with("no token: give the transfer's"));
}

#[test]
fn what_is_wrong_is_named() {
    for (line, expect) in [
        (&["-bind", "0"][..], "-bind is not a number in 1..65535"),
        (&["-bind", "70000"], "-bind is not a number"),
        (&["-nums=-5"], "-nums is not a number"),
        (&["-nums", "many"], "-nums is not a number"),
        (&["-bind", "65000", "-nums", "600"], "give at most -nums 536"),
        (&["-engine", "fast"], "-engine"),
        (&["-debug=maybe"], "-debug is a switch"),
        (&["-tokn", "x"], "unknown flag -tokn: did you mean -token?"),
        (&["---debug"], "unknown flag ---debug: did you mean -debug?"),
        (&["---zzzzzz=x"], "unknown flag ---zzzzzz: -help lists"),
        (&["-zzzzzz"], "unknown flag -zzzzzz: -help lists"),
        (&["-token"], "flag -token needs a value"),
        (&["word"], "belongs to no flag"),
        (&["-debug", "status"], "the verb status comes first"),
    ] {
        let why = refused(transfer(line, &[]));
        assert!(why.contains(expect), "{line:?}: {why}");
    }
    for (line, expect) in [
        (&["-ip", "172.168.3"][..], "-ip 172.168.3 is not an IPv4 address"),
        (&["-ip", "172.168.0.0"], "is the network's own"),
        (&["-ip", "172.168.255.255"], "is the network's own or its broadcast"),
        (&["-ip", "127.0.0.1"], "no address for a host"),
        (&["-ip", "224.0.0.1"], "no address for a host"),
        (&["-ip", "10.0.0.1/31"], "outside /8../30"),
        (&["-trans", "host"], "-trans: host has no port"),
        (
            &["-path", "wlan"],
            "-path: \"wlan\" is no path: give auto, relay, direct or lan, and for some peers as in -path auto,172.168.3.2=relay",
        ),
        (
            &["-path", "auto,relay"],
            "-path: \"relay\" names no peer: the path of all comes first, as in -path auto,172.168.3.2=relay",
        ),
        (
            &["-path", "auto,nas=relay"],
            "-path: \"nas\" is no virtual address: give one as in -path auto,172.168.3.2=relay",
        ),
        (&["-cipher", "des"], "-cipher des does not exist: give auto, aes or chacha"),
        (&["-mapping", "upnp"], "-mapping upnp does not exist: give auto or off"),
        (&["-offload", "tso"], "-offload tso does not exist: give auto or off"),
        (&["-mtu", "576"], "-mtu is not a number in 1280..65535: give one, as in -mtu 1400"),
        (&["-mtu", "abc"], "-mtu is not a number in 1280..65535: give one, as in -mtu 1400"),
        (&["-mtu", "65536"], "-mtu is not a number in 1280..65535: give one, as in -mtu 1400"),
        (
            &["-trans", "255.255.255.255:8000"],
            "-trans: 255.255.255.255:8000 is no address of one host: give the transfer's own",
        ),
        (&["-trans", "0.0.0.0:8000"], "is no address of one host"),
        (&["-trans", "239.1.2.3:8000"], "is no address of one host"),
        (&["-trans", "[ff02::1]:8000"], "is no address of one host"),
        (&["-trans", "[::]:8000"], "is no address of one host"),
        (&["-trans", "[::ffff:224.0.0.1]:8000"], "is no address of one host"),
        (&["-trans-key", "abc"], "-trans-key is not a key"),
    ] {
        let line = [&["-token", "x"], line].concat();
        let why = refused(gateway(&line, &[]));
        assert!(why.contains(expect), "{line:?}: {why}");
    }
}

#[test]
fn a_refusal_never_repeats_a_token() {
    for line in [
        &["word", "-token", "s3cr3t"][..],
        &["-token", "s3cr3t", "-tokn", "s3cr3t"],
        &["-tokn=s3cr3t"],
        &["---tokens3cr3t"],
        &["---token=s3cr3t"],
        &["---token", "s3cr3t"],
        &["s3cr3t"],
        &["-token=s3cr3t", "-bogus"],
        &["-tokens3cr3t"],
        &["-token:s3cr3t"],
        &["-token", "s3cr3t", "-bind", "0"],
        &["-token", "s3cr3t", "-token-file", "x"],
        &["-token=s3cr3t", "-debug=s3cr3t"],
        &["-token", "two", "s3cr3t"],
    ] {
        let why = refused(transfer(line, &[]));
        assert!(!why.contains("s3cr3t"), "{why}");
    }
    for variables in [&[("EASYMESH_TOKEN", "s3cr3t"), ("EASYMESH_BIND", "x")][..], &[("EASYMESH_DEBUG", "s3cr3t")]] {
        let why = refused(transfer(&[], variables));
        assert!(!why.contains("s3cr3t"), "{why}");
    }
    let why = refused(gateway(&["-token", "x", "-secrets3cr3t"], &[]));
    assert!(why.starts_with("unknown flag -secret…") && !why.contains("s3cr3t"), "{why}");
}

#[test]
fn options_show_no_secret() {
    let options = gateway(&["-token", "s3cr3t", "-secret", "s3cr3t2"], &[]).unwrap();
    assert!(!format!("{options:?}{options:#?}").contains("s3cr3t"));
    let options = transfer(&["-token", "s3cr3t"], &[]).unwrap();
    assert!(!format!("{options:?}{options:#?}").contains("s3cr3t"));
}

#[test]
fn the_seeds_own_command_lines_parse() {
    let token = "s^I^ghGjkB7Zm$q14NWhxfQdS5E&FG7R";
    let options =
        transfer(&["-public", "you.domain.com", "-bind", "8000", "-nums", "1000", "-token", token], &[]).unwrap();
    assert_eq!((options.public.as_str(), options.common.token.expose()), ("you.domain.com", token));
    let options = gateway(
        &["-ip", "172.168.3.1", "-trans", "you.domain.com:8000", "-iface", "192.168.1.110", "-token", token],
        &[],
    )
    .unwrap();
    assert_eq!((options.ip.to_string().as_str(), options.iface.as_str()), ("172.168.3.1", "192.168.1.110"));
    assert!(options.iface_given);
}

#[test]
fn another_mask_can_be_chosen() {
    let options = gateway(&["-token", "x", "-ip", "10.9.3.1/24"], &[]).unwrap();
    assert_eq!((options.ip, options.prefix), (Ipv4Addr::new(10, 9, 3, 1), 24));
}

#[test]
fn a_bad_file_is_explained_without_showing_its_lines() {
    for (text, expect) in [
        ("bind = \"8000\"\n", "bind: wants a number: write it without quotes"),
        ("bind = 1.5\n", "bind: wants a whole number: write digits alone"),
        ("debug = \"on\"\n", "debug: wants true or false: write it without quotes"),
        ("token = 5\n", "token: wants text"),
        ("debug = 1\n", "debug: wants true or false"),
        ("tokn = \"s3cr3t\"\n", "tokn: unknown key"),
        ("bind = 1\ntoken = s3cr3t'\n", "line 2"),
        ("[gateway]\nip = \"1.2.3.4\"\n", "gateway: unknown key"),
    ] {
        let config = file(text);
        let why = refused(transfer(&["-config", config.path().to_str().unwrap()], &[]));
        assert!(why.contains(expect) && !why.contains("s3cr3t"), "{why}");
    }
}

#[test]
fn a_file_that_is_not_there_has_a_remedy() {
    for flag in ["-config", "-token-file"] {
        let Err(Failure::Other(error)) = transfer(&[flag, "/nowhere"], &[]) else { panic!("{flag} is not read") };
        let why = format!("{error:#}");
        assert!(why.starts_with(&format!("cannot read {flag} /nowhere: ")), "{why}");
        assert!(why.ends_with(": give the path of a file that this user can read"), "{why}");
    }
}
