//! What nextest and rustdoc say about the tests they ran.

use crate::report::Outcome;

/// Counts the tests of nextest's JUnit file, and names those that failed.
pub(crate) fn outcome(junit: &str) -> Outcome {
    let mut outcome = Outcome::default();
    // Text inside XML has its `<` escaped, so each `<testcase` opens a test.
    for case in junit.split("<testcase ").skip(1) {
        if case.contains("<failure") || case.contains("<error") {
            let binary = attribute(case, "classname").unwrap_or_default();
            let test = attribute(case, "name").unwrap_or_default();
            outcome.failed.push(format!("{binary} {test}"));
        } else {
            outcome.passed += 1;
        }
    }
    outcome
}

/// The value of `name` in the opening tag that `tag` begins with.
fn attribute<'tag>(tag: &'tag str, name: &str) -> Option<&'tag str> {
    let tag = tag.split('>').next().unwrap_or_default();
    let mut words = tag.split(' ');
    words.find_map(|word| word.strip_prefix(name)?.strip_prefix("=\"")?.split('"').next())
}

/// Sums the `test result:` lines of documentation tests and names those that failed. An ignored one counts as failed:
/// an example that is never run proves nothing.
pub(crate) fn documentation_outcome(text: &str) -> Outcome {
    let mut outcome = Outcome::default();
    for line in text.lines() {
        if let Some(counts) = line.strip_prefix("test result: ") {
            outcome.passed += count(counts, "passed");
        } else if let Some(test) = line.strip_prefix("test ") {
            if let Some(name) = test.strip_suffix(" ... FAILED") {
                outcome.failed.push(format!("documentation {name}"));
            } else if let Some(name) = test.strip_suffix(" ... ignored") {
                outcome.failed.push(format!("documentation {name}: ignored"));
            }
        }
    }
    outcome
}

/// The number before `word` in `ok. 3 passed; 0 failed; ...`.
fn count(counts: &str, word: &str) -> usize {
    let mut parts = counts.split([';', '.']).map(str::trim);
    parts.find_map(|part| part.strip_suffix(word)?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_and_failed_tests_are_told_apart() {
        let junit = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="3" failures="1" errors="1" uuid="x" timestamp="y" time="0.1">
    <testsuite name="mesh-wire" tests="3" disabled="0" errors="1" failures="1">
        <testcase name="golden::a &lt;b&gt;" classname="mesh-wire" timestamp="y" time="0.003">
        </testcase>
        <testcase name="golden::data" classname="mesh-wire" timestamp="y" time="0.003">
            <failure message="left &lt;testcase right" type="test failure">x</failure>
        </testcase>
        <testcase name="hangs" classname="mesh-node::lab" timestamp="y" time="120">
            <error type="test timeout"/>
        </testcase>
    </testsuite>
</testsuites>"#;
        let expected =
            Outcome { passed: 1, failed: vec!["mesh-wire golden::data".into(), "mesh-node::lab hangs".into()] };
        assert_eq!(outcome(junit), expected);
    }

    #[test]
    fn documentation_tests_add_up_over_packages() {
        let text = "
running 2 tests
test dataplane/mesh-wire/src/lib.rs - (line 3) ... ok
test dataplane/mesh-wire/src/a.rs - a::B (line 9) ... FAILED

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s

running 3 tests
test src/lib.rs - (line 1) ... ok
test src/lib.rs - (line 5) ... ok
test src/lib.rs - (line 8) ... ignored

test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
";
        let outcome = documentation_outcome(text);
        assert_eq!(outcome.passed, 3);
        assert_eq!(
            outcome.failed,
            [
                "documentation dataplane/mesh-wire/src/a.rs - a::B (line 9)",
                "documentation src/lib.rs - (line 8): ignored"
            ]
        );
    }
}
