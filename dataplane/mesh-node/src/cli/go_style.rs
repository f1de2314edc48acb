//! Go's way of writing flags, brought into the form clap reads.
//!
//! `-name value`, `-name=value`, `--name value` and `--name=value` all mean the same; a switch takes a value only after `=`.
//! Each becomes one word `--name=value`, so that a value that looks like a flag (a token `-debug`, or one with `=` in it)
//! stays a value.

use super::flags::{Flag, Kind};

/// Rewrites the words after the program's name (and the verb). Words of unknown flags are kept, for clap to refuse them.
pub fn rewrite(words: &[String], flags: &[Flag]) -> Vec<String> {
    let mut rewritten = Vec::with_capacity(words.len());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(name) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|name| !name.is_empty())
        else {
            rewritten.push(word.clone());
            continue;
        };
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (name, None),
        };
        let name = if name == "h" { "help" } else { name };
        let takes_value = flags.iter().any(|flag| flag.name == name && flag.kind != Kind::Bool);
        let value = match value {
            None if takes_value => words.next().map(String::as_str),
            given => given,
        };
        rewritten.push(match value {
            Some(value) => format!("--{name}={value}"),
            None => format!("--{name}"),
        });
    }
    rewritten
}

#[cfg(test)]
mod tests {
    use super::super::flags::Program;
    use super::*;

    fn check(words: &[&str], expect: &[&str]) {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        assert_eq!(rewrite(&words, &Program::Gateway.run_flags()), expect, "{words:?}");
    }

    #[test]
    fn every_form_becomes_one_word() {
        check(&["-ip", "172.168.3.1"], &["--ip=172.168.3.1"]);
        check(&["--ip", "172.168.3.1"], &["--ip=172.168.3.1"]);
        check(&["-ip=172.168.3.1"], &["--ip=172.168.3.1"]);
        check(&["--ip=172.168.3.1"], &["--ip=172.168.3.1"]);
        check(&["-debug", "-ip", "1.2.3.4"], &["--debug", "--ip=1.2.3.4"]);
        check(&["-debug=false"], &["--debug=false"]);
        check(&["-h"], &["--help"]);
        check(&["--h"], &["--help"]);
    }

    #[test]
    fn values_that_look_like_flags_stay_values() {
        check(&["-token=-debug"], &["--token=-debug"]);
        check(&["-token", "-debug"], &["--token=-debug"]);
        check(&["-token", "a=b"], &["--token=a=b"]);
        check(&["-token=a=b"], &["--token=a=b"]);
        check(&["-token="], &["--token="]);
        check(&["-token", ""], &["--token="]);
        check(&["-token", "s^I^ghGjkB7Zm$q14NWhxfQdS5E&FG7R"], &["--token=s^I^ghGjkB7Zm$q14NWhxfQdS5E&FG7R"]);
        check(&["-iface", "vEthernet (wlan)"], &["--iface=vEthernet (wlan)"]);
    }

    #[test]
    fn what_is_no_known_flag_is_left_for_the_parser() {
        check(&["-tokn", "x"], &["--tokn", "x"]);
        check(&["-token"], &["--token"]);
        check(&["word", "-", "--"], &["word", "-", "--"]);
    }
}
