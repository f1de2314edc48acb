//! The usage text, in the form Go's `flag` package prints.

use std::fmt::Write as _;

use super::View;
use super::flags::{Flag, Kind, Program};

/// The whole text for `-help`: first the lines of the first EasyMesh word for word, then what was added.
pub fn usage(program: Program, called_as: &str) -> String {
    let mut text = format!("Usage of {called_as}:\n");
    list(&mut text, program.seed_flags());
    text.push_str("\nFurther flags:\n");
    list(&mut text, program.added_flags());
    let name = program.name();
    let which = match program {
        Program::Transfer => "-bind PORT",
        Program::Gateway => "-ip ADDRESS",
    };
    let netcheck = match program {
        Program::Transfer => String::new(),
        Program::Gateway => format!(
            "  {name} netcheck [-json] [-watch] [{which}]\n        what the running {name} knows of the network around it\n"
        ),
    };
    let _ = write!(
        text,
        "\nVerbs:\n  {name} status [-json] [-watch] [{which}]\n        what the running {name} is doing\n{netcheck}\n\
         A flag may be written -name value, -name=value or --name value, given as EASYMESH_NAME in the environment\n\
         (EASYMESH_TOKEN keeps the token out of process listings) or as a key of the -config file, in this order.\n\
         Put tokens in single quotes: in double quotes the shell replaces $ and what follows it.\n"
    );
    text
}

/// The text for `status -help` and `netcheck -help`.
pub fn status_usage(program: Program, view: View, called_as: &str) -> String {
    let verb = match view {
        View::Status => "status",
        View::Netcheck => "netcheck",
    };
    let mut text = format!("Usage of {called_as} {verb}:\n");
    list(&mut text, program.status_flags());
    text
}

fn list(text: &mut String, flags: &[Flag]) {
    for flag in flags {
        let (kind, default) = match (flag.kind, flag.default) {
            (Kind::Bool, _) => ("", String::new()),
            (Kind::Int, "0") => (" int", String::new()),
            (Kind::Int, default) => (" int", format!(" (default {default})")),
            (Kind::Text, "") => (" string", String::new()),
            (Kind::Text, default) => (" string", format!(" (default \"{default}\")")),
        };
        let _ = writeln!(text, "  -{}{kind}\n        {}{default}", flag.name, flag.help);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRANSFER: &str = r#"Usage of transfer.exe:
  -bind int
        transfer server bind port (default 8000)
  -debug
        debug mode
  -help
        usage
  -log string
        log dir (default "./")
  -nums int
        transfer server instance nums (default 1000)
  -public string
        public IP (default "www.domain.com")
  -token string
        access auth
"#;

    const GATEWAY: &str = r#"Usage of gateway.exe:
  -debug
        debug mode
  -help
        usage
  -iface string
        interface or ip (default "eth0")
  -ip string
        virtual ip (default "172.168.0.1")
  -log string
        log dir (default "./")
  -token string
        access auth
  -trans string
        transfer public address (default "www.domain.com:8000")
"#;

    #[test]
    fn usage_opens_with_the_first_editions_text_word_for_word() {
        for (program, called_as, expect) in
            [(Program::Transfer, "transfer.exe", TRANSFER), (Program::Gateway, "gateway.exe", GATEWAY)]
        {
            let text = usage(program, called_as);
            assert_eq!(&text[..expect.len()], expect);
            assert!(text[expect.len()..].starts_with("\nFurther flags:\n  -c"), "{text}");
        }
    }

    #[test]
    fn every_flag_is_listed_once() {
        for program in [Program::Transfer, Program::Gateway] {
            let text = usage(program, "x");
            for flag in program.run_flags() {
                let lines = text.lines().filter(|line| line.split(' ').nth(2) == Some(&format!("-{}", flag.name)));
                assert_eq!(lines.count(), 1, "-{}", flag.name);
            }
        }
    }

    #[test]
    fn status_has_its_own_usage() {
        let text = status_usage(Program::Gateway, View::Status, "gateway");
        assert!(text.starts_with("Usage of gateway status:\n  -help\n        usage\n  -ip string\n"), "{text}");
    }
}
