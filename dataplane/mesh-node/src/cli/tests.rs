use super::*;

fn read(program: Program, line: &[&str]) -> Result<Command<()>, Failure> {
    let words = Words {
        called_as: "gateway.exe".into(),
        words: line.iter().map(ToString::to_string).collect(),
        variable: Box::new(|_| None),
    };
    words.read(program, |_| Ok(()))
}

#[test]
fn help_wins_over_everything_else_on_the_line() {
    for line in [&["-h"][..], &["-help"], &["--help"], &["-bind", "x", "-help"], &["-config", "/nowhere", "-h"]] {
        let Ok(Command::Help(text)) = read(Program::Transfer, line) else { panic!("{line:?}") };
        assert!(text.starts_with("Usage of gateway.exe:\n  -bind int\n"), "{text}");
    }
    assert!(matches!(read(Program::Transfer, &["-help=false"]), Ok(Command::Run(_))));
}

#[test]
fn status_has_its_own_flags() {
    let query = |program, line: &[&str]| match read(program, line) {
        Ok(Command::Status(query)) => query,
        other => panic!("{other:?}"),
    };
    let (json, watch) = (true, true);
    assert_eq!(
        query(Program::Gateway, &["status", "--json", "-watch", "-ip", "172.168.3.1"]),
        StatusQuery { program: Program::Gateway, view: View::Status, json, watch, only: Some("172.168.3.1".into()) }
    );
    assert_eq!(
        query(Program::Transfer, &["status"]),
        StatusQuery { program: Program::Transfer, view: View::Status, json: false, watch: false, only: None }
    );
    assert_eq!(query(Program::Transfer, &["status", "-bind=9000"]).only.as_deref(), Some("9000"));
    assert!(matches!(read(Program::Gateway, &["status", "-h"]), Ok(Command::Help(_))));
    assert!(matches!(read(Program::Gateway, &["status", "-token", "x"]), Err(Failure::Usage(_))));
}

#[test]
fn exit_codes_tell_usage_from_the_rest() {
    assert_eq!(exit(Program::Transfer, || Ok(())), ExitCode::SUCCESS);
    assert_eq!(exit(Program::Transfer, || Err(Failure::Usage("a: b".into()))), ExitCode::from(2));
    assert_eq!(exit(Program::Transfer, || Err(anyhow::anyhow!("a: b").into())), ExitCode::from(1));
}

const README: &str = include_str!("../../../../README.md");

/// The rows of the table under a heading of the README: the flags in the first cell, and the last cell.
fn readme_rows(heading: &str) -> Vec<(Vec<&'static str>, &'static str)> {
    let (_, rest) = README.split_once(&format!("\n### {heading}\n")).unwrap_or_else(|| panic!("no section {heading}"));
    let section = rest.split("\n#").next().unwrap_or(rest);
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `-"));
    rows.map(|row| {
        let (flags, rest) = row.split_once(" | ").expect("a row has cells");
        let flags = flags.split(['`', ',', ' ']).filter(|word| !word.is_empty());
        (flags.map(|flag| flag.trim_start_matches('-')).collect(), rest.split('|').nth_back(1).unwrap_or("").trim())
    })
    .collect()
}

fn sorted(mut names: Vec<&'static str>) -> Vec<&'static str> {
    names.sort_unstable();
    names
}

#[test]
fn the_readme_lists_each_flag_once_with_its_default() {
    for program in [Program::Transfer, Program::Gateway] {
        let rows = readme_rows(&format!("`{}`", program.name()));
        let listed = rows.iter().flat_map(|(flags, _)| flags.clone()).collect();
        let flags = program.run_flags();
        assert_eq!(sorted(listed), sorted(flags.iter().map(|flag| flag.name).collect()), "{}", program.name());
        for (names, default) in rows {
            // A row of several says where they are described.
            let [name] = names[..] else { continue };
            let flag = flags.iter().find(|flag| flag.name == name).expect("it was just compared");
            if matches!(flag.default, "" | "0" | "false") {
                assert!(!default.contains('`') || flag.default != "false", "-{name} has no default: {default}");
            } else {
                assert_eq!(default, format!("`{}`", flag.default), "-{name}");
            }
        }
    }
}

#[test]
fn the_readme_lists_each_flag_of_the_verb_status_once() {
    let listed = readme_rows("`status`").into_iter().flat_map(|(flags, _)| flags).collect();
    let mut flags: Vec<_> = [Program::Transfer, Program::Gateway].map(Program::status_flags).concat();
    flags.sort_unstable_by_key(|flag| flag.name);
    flags.dedup_by_key(|flag| flag.name);
    assert_eq!(sorted(listed), flags.iter().map(|flag| flag.name).collect::<Vec<_>>());
}

#[test]
fn the_command_lines_of_the_readme_parse() {
    let mut parsed = 0;
    for line in README.lines().map(str::trim_start) {
        for program in [Program::Transfer, Program::Gateway] {
            let Some(words) = line.strip_prefix(&format!("./{} ", program.name())) else { continue };
            let words: Vec<String> = words.split(' ').map(|word| word.trim_matches('\'').to_owned()).collect();
            let words = Words { called_as: String::new(), words, variable: Box::new(|_| None) };
            let command = match program {
                Program::Transfer => words.read(program, |settings| TransferOptions::from_settings(settings).map(drop)),
                Program::Gateway => words.read(program, |settings| GatewayOptions::from_settings(settings).map(drop)),
            };
            assert!(matches!(command, Ok(Command::Run(_))), "{line}: {command:?}");
            parsed += 1;
        }
    }
    assert!(parsed >= 6, "the walkthrough has six commands, in two languages; found {parsed}");
}
