//! The command line: words in, a [`Verb`] or a named mistake out.

/// What `cargo xtask help` prints; lists only verbs that work.
pub(crate) const HELP: &str = "\
usage: cargo xtask VERB

  demo [--keep] [--engine auto|uring|mmsg|portable]
                      a transfer and two gateways in network namespaces private to the run: ping, copy, rate.
                      --keep holds it open and prints how to step into each host
  test [FILTER]       every check and test, as CI runs them; with FILTER only tests whose name contains it
  test --long [NAME]  the tests that take more than a minute (their names begin with long_)
  bench relay | tunnel | latency | overload | scale | soak [FLAGS]
                      rates, costs and delays beside rivals, as ratios in one run (bench relay --help; bench/README.md)
  bench peers [NAME..]
                      put the rivals that Debian and crates.io carry into target/peers
  bench counts [--bless]
                      instructions, allocations and system calls for each datagram against bench/counts.toml; part of `test`.
                      --bless takes what it counts as the new baseline
  windows setup       unpack a compiler for Windows beside the system ($EASYMESH_WINRUST or the user's cache folder)
  windows check       clippy on the workspace for Windows, warnings denied; part of `test`
  windows build       transfer.exe and gateway.exe, release
  deny                licences, sources and advisories of all dependencies
  help                this text";

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Help,
    Demo { keep: bool, engine: Option<String> },
    Test(Selection),
    Bench(Bench),
    Windows(WindowsAction),
    Deny,
}

/// Which tests to run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// Every check and every test that takes less than a minute.
    All,
    /// The tests whose name contains this; no other check.
    Named(String),
    /// The tests that take longer: all, or those whose name contains this.
    Long(Option<String>),
}

/// What to measure.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Bench {
    /// What the program `bench` does with these words.
    Run(Vec<String>),
    /// Get rivals: these, or all.
    Peers(Vec<String>),
    /// Compare counts with the baseline, or make them the baseline.
    Counts { bless: bool },
}

/// What to do for Windows.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) enum WindowsAction {
    Setup,
    Check,
    Build,
}

/// Reads the words after `cargo xtask`.
///
/// # Errors
/// One sentence that names the word it stumbled over.
pub(crate) fn parse(words: impl IntoIterator<Item = String>) -> Result<Verb, String> {
    let mut words = words.into_iter();
    let Some(verb) = words.next() else { return Err("which verb?".into()) };
    match verb.as_str() {
        "help" | "-h" | "--help" => Ok(Verb::Help),
        "demo" => parse_demo(words),
        "test" => parse_test(words),
        "bench" => parse_bench(words.collect()).map(Verb::Bench),
        "windows" => parse_windows(words),
        "deny" => nothing_after("deny", words).map(|()| Verb::Deny),
        other => Err(format!("no verb `{other}`")),
    }
}

fn parse_demo(mut words: impl Iterator<Item = String>) -> Result<Verb, String> {
    let (mut keep, mut engine) = (false, None);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--keep" => keep = true,
            "--engine" => engine = Some(words.next().ok_or("--engine needs a name")?),
            _ => match word.strip_prefix("--engine=") {
                Some(name) => engine = Some(name.to_owned()),
                None => return Err(format!("demo knows --keep and --engine, not `{word}`")),
            },
        }
    }
    Ok(Verb::Demo { keep, engine })
}

fn parse_test(words: impl Iterator<Item = String>) -> Result<Verb, String> {
    let (mut long, mut name) = (false, None);
    for word in words {
        if word == "--long" {
            long = true;
        } else if word.starts_with('-') {
            return Err(format!("test knows --long, not `{word}`"));
        } else if let Some(first) = name.replace(word) {
            return Err(format!("test takes one name, `{first}` is not the only one"));
        }
    }
    Ok(Verb::Test(match (long, name) {
        (true, name) => Selection::Long(name),
        (false, Some(name)) => Selection::Named(name),
        (false, None) => Selection::All,
    }))
}

/// The words of a measurement are the bench's own: it knows its flags.
fn parse_bench(words: Vec<String>) -> Result<Bench, String> {
    match words.first().map(String::as_str) {
        None => Err("bench: relay, tunnel, latency, overload, scale, soak, peers or counts?".into()),
        Some("peers") => match words.iter().find(|word| word.starts_with('-')) {
            Some(flag) => Err(format!("bench peers takes names, not `{flag}`")),
            None => Ok(Bench::Peers(words[1..].to_vec())),
        },
        Some("counts") => match &words[1..] {
            [] => Ok(Bench::Counts { bless: false }),
            [word] if word == "--bless" => Ok(Bench::Counts { bless: true }),
            [word, ..] => Err(format!("bench counts knows --bless, not `{word}`")),
        },
        Some(_) => Ok(Bench::Run(words)),
    }
}

fn parse_windows(mut words: impl Iterator<Item = String>) -> Result<Verb, String> {
    let action = match words.next().as_deref() {
        Some("setup") => WindowsAction::Setup,
        Some("check") => WindowsAction::Check,
        Some("build") => WindowsAction::Build,
        Some(other) => return Err(format!("windows knows setup, check and build, not `{other}`")),
        None => return Err("windows: setup, check or build?".into()),
    };
    nothing_after("windows", words).map(|()| Verb::Windows(action))
}

fn nothing_after(verb: &str, mut words: impl Iterator<Item = String>) -> Result<(), String> {
    words.next().map_or(Ok(()), |word| Err(format!("{verb}: nothing is known about `{word}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Verb, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn each_verb_of_the_help_is_read() {
        assert_eq!(parsed("help"), Ok(Verb::Help));
        assert_eq!(parsed("demo"), Ok(Verb::Demo { keep: false, engine: None }));
        assert_eq!(parsed("demo --keep --engine uring"), Ok(Verb::Demo { keep: true, engine: Some("uring".into()) }));
        assert_eq!(parsed("demo --engine=portable"), Ok(Verb::Demo { keep: false, engine: Some("portable".into()) }));
        assert_eq!(parsed("test"), Ok(Verb::Test(Selection::All)));
        assert_eq!(parsed("test replay"), Ok(Verb::Test(Selection::Named("replay".into()))));
        assert_eq!(parsed("test --long"), Ok(Verb::Test(Selection::Long(None))));
        assert_eq!(parsed("test --long idle"), Ok(Verb::Test(Selection::Long(Some("idle".into())))));
        assert_eq!(parsed("windows setup"), Ok(Verb::Windows(WindowsAction::Setup)));
        assert_eq!(parsed("windows check"), Ok(Verb::Windows(WindowsAction::Check)));
        assert_eq!(parsed("windows build"), Ok(Verb::Windows(WindowsAction::Build)));
        assert_eq!(parsed("deny"), Ok(Verb::Deny));
        let run = |words: &[&str]| Bench::Run(words.iter().map(|word| (*word).to_owned()).collect());
        assert_eq!(parsed("bench relay --quick"), Ok(Verb::Bench(run(&["relay", "--quick"]))));
        assert_eq!(parsed("bench --help"), Ok(Verb::Bench(run(&["--help"]))));
        assert_eq!(parsed("bench peers nebula"), Ok(Verb::Bench(Bench::Peers(vec!["nebula".into()]))));
        assert_eq!(parsed("bench peers"), Ok(Verb::Bench(Bench::Peers(Vec::new()))));
        assert_eq!(parsed("bench counts"), Ok(Verb::Bench(Bench::Counts { bless: false })));
        assert_eq!(parsed("bench counts --bless"), Ok(Verb::Bench(Bench::Counts { bless: true })));
    }

    #[test]
    fn a_mistake_is_named() {
        for (line, word) in [
            ("", "which verb"),
            ("tset", "`tset`"),
            ("demo --kep", "`--kep`"),
            ("demo --engine", "--engine needs"),
            ("test --lnog", "`--lnog`"),
            ("test one two", "`one`"),
            ("windows", "setup, check or build"),
            ("windows test", "`test`"),
            ("windows check again", "`again`"),
            ("deny all", "`all`"),
            ("bench", "relay, tunnel"),
            ("bench peers --all", "`--all`"),
            ("bench counts --bles", "`--bles`"),
        ] {
            let mistake = parsed(line).expect_err(line);
            assert!(mistake.contains(word), "{line}: {mistake}");
        }
    }
}
