use bench::report::Report;
use bench::report::goals::table;

use crate::fixture;

#[test]
fn every_target_has_a_line_with_what_was_seen() {
    let text = table(&fixture::report(), 200);
    for (line, words) in [
        ("cost, over <raw>", "≤ 2.80x 2.00x 1.80..2.20x reached 0.25x"),
        ("rate, over tool 1", "≥ 3.50x ≥ 5.00x 5.50x 4.95..6.05x stretch reached"),
        ("delay", "≤ 8.00 ms ≤ 6.00 ms 9.00 ms 8.10..9.90 ms missed"),
        ("rate, over tool 2", "≥ 3.50x 100x 90.0..110x too noisy"),
        ("rate, over tool 3", "≥ 10.0x – – rival absent"),
    ] {
        let found = text.lines().find(|found| found.starts_with(line)).expect(line);
        let told = found.strip_prefix(line).expect(line).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(told, words, "{text}");
    }
    let head = text.lines().find(|line| line.starts_with("target")).expect("a head");
    assert_eq!(head.split_whitespace().collect::<Vec<_>>().join(" "), "target wanted stretch seen range nic & co");
}

#[test]
fn a_narrow_terminal_gets_more_tables_and_a_report_without_targets_none() {
    let report = fixture::report();
    let text = table(&report, 60);
    assert!(text.lines().skip(1).all(|line| line.chars().count() <= 60), "{text}");
    assert!(text.lines().filter(|line| line.starts_with("target")).count() > 1, "{text}");
    assert_eq!(table(&Report { goals: Vec::new(), ..report }, 60), "");
}
