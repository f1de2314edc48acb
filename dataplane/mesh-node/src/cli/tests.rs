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
        StatusQuery { program: Program::Gateway, json, watch, only: Some("172.168.3.1".into()) }
    );
    assert_eq!(
        query(Program::Transfer, &["status"]),
        StatusQuery { program: Program::Transfer, json: false, watch: false, only: None }
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
