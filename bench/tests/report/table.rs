use bench::report::table::table;

use crate::fixture::{self, OURS, REFERENCE, SLOW};

/// The table of a cell of the fixture.
fn shown(cell: usize, width: usize) -> String {
    let report = fixture::report();
    table(&report, &report.cells[cell], width)
}

#[test]
fn the_best_stands_first_beside_its_ratio() {
    let text = shown(2, 200);
    let lines: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("system")).collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["system", "ratio", "range", "loss-free", "relay", "ns", "loss"]
    );
    let starts = [(OURS, "2.00  2.00..2.00"), (REFERENCE, "1  reference"), (SLOW, "0.10  0.10..0.10")];
    for (line, (system, ratio)) in lines[2..].iter().zip(starts) {
        assert!(line.starts_with(system) && line.contains(ratio), "{text}");
    }
    assert!(
        lines[2].contains("2,963 (2,469..3,457)"),
        "thousands are parted, and a range is told where it is wide: {text}"
    );
}

#[test]
fn a_narrow_terminal_gets_more_tables_and_loses_nothing() {
    for cell in 0..6 {
        let words = |width: usize| {
            let text = shown(cell, width);
            let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            words.sort_unstable();
            words.dedup();
            words
        };
        assert_eq!(words(50), words(200));
        for width in [50, 80, 120] {
            let text = shown(cell, width);
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}:\n{text}");
        }
    }
    let heads = |width| shown(2, width).lines().filter(|line| line.starts_with("system")).count();
    assert_eq!((heads(200), heads(50)), (1, 3));
}

#[test]
fn rows_of_a_table_are_aligned() {
    let text = shown(2, 200);
    let ends: Vec<usize> = (text.lines().filter(|line| line.contains("..") && line.contains(") ")))
        .map(|line| line.find(" (").unwrap())
        .collect();
    assert!(ends.len() == 3 && ends.iter().all(|end| *end == ends[0]), "{ends:?}\n{text}");
}

#[test]
fn what_went_wrong_stands_below() {
    let steady = shown(0, 200);
    for part in [
        "generator-limited",
        "rejected: 1 of 4 rounds (round 2, control moved by 14 %)",
        "failed: slow \"tool\": ended by signal 11",
        "absent: quil<kin>",
    ] {
        assert!(steady.contains(part), "{part}:\n{steady}");
    }
    assert!(!steady.contains("too noisy") && !steady.contains("unable"), "{steady}");
    let noisy = shown(1, 200);
    for part in ["too noisy", "rejected: 2 of 3 rounds", "unable: socket <cat>: it forwards one flow & no more"] {
        assert!(noisy.contains(part), "{part}:\n{noisy}");
    }
}

#[test]
fn nothing_steers_the_terminal() {
    let text = shown(0, 80);
    assert!(text.contains("[0m") && text.ends_with('\n'));
    assert!(text.chars().all(|char| char == '\n' || !char.is_control()), "{text:?}");
}

#[test]
fn a_cell_in_which_nothing_was_measured_has_a_table_too() {
    let mut report = fixture::report();
    let cell = &mut report.cells[0];
    cell.outcomes.clear();
    cell.rounds.clear();
    let text = table(&report, &report.cells[0], 80);
    assert!(text.starts_with("nic-1400-b16: ") && text.contains("failed: slow"), "{text}");
}

#[test]
fn a_long_note_stands_below_the_table() {
    let mut report = fixture::report();
    report.cells[2].outcomes[0].notes = vec!["the generator could not offer more than this".into()];
    let text = table(&report, &report.cells[2], 100);
    assert!(text.contains(&format!("  {OURS}: the generator could not offer more than this")), "{text}");
}
