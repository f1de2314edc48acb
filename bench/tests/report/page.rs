use std::fs;

use bench::figure::Better;
use bench::report::page::page;
use bench::report::{Report, json};
use roxmltree::{Document, Node, ParsingOptions};

use crate::fixture::{self, OURS, PLACES, REFERENCE, SLOW};

/// Reads a page, which is well-formed as XML.
fn read(html: &str) -> Document<'_> {
    Document::parse_with_options(html, ParsingOptions { allow_dtd: true, ..ParsingOptions::default() })
        .expect("the page is well-formed as XML")
}

/// All text inside.
fn text(node: Node<'_, '_>) -> String {
    let texts: Vec<&str> = node.descendants().filter(Node::is_text).filter_map(|node| node.text()).collect();
    texts.concat()
}

/// The element of that `id`.
fn by_id<'a>(document: &'a Document<'a>, id: &str) -> Node<'a, 'a> {
    document.descendants().find(|node| node.attribute("id") == Some(id)).unwrap_or_else(|| panic!("no #{id}"))
}

/// Elements of that name, and of that class if one is given.
fn elements<'a>(node: Node<'a, 'a>, name: &str, class: &str) -> Vec<Node<'a, 'a>> {
    let classes = |node: &Node<'_, '_>| node.attribute("class").unwrap_or_default().to_owned();
    let fits = |node: &Node<'_, '_>| class.is_empty() || classes(node).split(' ').any(|one| one == class);
    node.descendants().filter(|node| node.has_tag_name(name) && fits(node)).collect()
}

/// A report of no cells.
fn empty() -> Report {
    Report {
        cells: Vec::new(),
        goals: Vec::new(),
        absent: Vec::new(),
        settings: Vec::new(),
        complete: false,
        ..fixture::report()
    }
}

#[test]
fn the_page_is_well_formed_and_says_who_and_where() {
    let report = fixture::report();
    let html = page(&report);
    let document = read(&html);
    let body = text(document.root());
    for part in [
        &report.title,
        &report.command,
        "First & foremost.",
        "Then <b>more</b>.",
        "2023-11-14, 22:13 UTC",
        "12 min 34 s",
    ] {
        assert!(body.contains(part), "{part}");
    }
    let (machine, settings) = (report.machine.iter(), report.settings.iter());
    for (name, value) in machine.chain(settings) {
        assert!(body.contains(name) && body.contains(value), "{name}");
    }
}

#[test]
fn nothing_is_fetched_and_nothing_runs() {
    let html = page(&fixture::report());
    let document = read(&html);
    for node in document.descendants().filter(Node::is_element) {
        assert!(!["script", "link", "img", "iframe", "object", "base"].contains(&node.tag_name().name()), "{node:?}");
        for attribute in node.attributes() {
            let (name, value) = (attribute.name(), attribute.value());
            assert!(!["src", "srcset", "data", "action"].contains(&name) && !name.starts_with("on"), "{name}={value}");
            assert!(name != "href" || value.starts_with('#'), "{name}={value}");
        }
    }
    assert!(!html.contains("http:") && !html.contains("https:") && !html.contains("url(") && !html.contains("@import"));
}

#[test]
fn every_link_leads_somewhere_and_every_place_is_one() {
    let html = page(&fixture::report());
    let document = read(&html);
    let mut ids: Vec<&str> = document.descendants().filter_map(|node| node.attribute("id")).collect();
    for link in document.descendants().filter_map(|node| node.attribute("href")) {
        assert!(ids.contains(&&link[1..]), "{link}");
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

#[test]
fn every_system_and_figure_is_named_and_explained() {
    let report = fixture::report();
    let html = page(&report);
    let document = read(&html);
    let systems = text(by_id(&document, "systems"));
    for system in &report.systems {
        assert!(
            [&system.name, &system.version, &system.about].iter().all(|part| systems.contains(*part)),
            "{}",
            system.name
        );
    }
    for (number, figure) in report.figures.iter().enumerate() {
        let row = text(by_id(&document, &format!("figure-{number}")));
        assert!([&figure.title, &figure.unit, &figure.meaning].iter().all(|part| row.contains(*part)), "{row}");
    }
}

#[test]
fn every_cell_has_bars_by_merit_and_a_table_of_all_figures() {
    let report = fixture::report();
    let html = page(&report);
    let document = read(&html);
    for number in 1..report.cells.len() {
        let cell = by_id(&document, &format!("cell-{number}"));
        let names: Vec<String> = elements(cell, "span", "name").into_iter().map(text).collect();
        assert_eq!(names, [OURS, REFERENCE, SLOW]);
        let bar = elements(cell, "div", "ours")[0];
        assert!(
            text(bar).contains("2.00×") && text(bar).contains("mesh <ring>: 2.00 times the reference"),
            "{}",
            text(bar)
        );
        assert_eq!(elements(bar, "g", "whisker").len(), 1);
        assert_eq!(elements(cell, "div", "reference").len(), 1);
        let heads: Vec<String> = elements(cell, "th", "")
            .into_iter()
            .filter(|node| node.attribute("scope") == Some("col"))
            .map(text)
            .collect();
        assert_eq!(
            heads.join("|"),
            "System|ratio× reference|loss-freekpps|relay nsns/datagram|loss%",
            "a figure that nobody has is left out"
        );
    }
}

#[test]
fn bars_of_a_wide_spread_part_at_the_reference() {
    let html = page(&fixture::report());
    let document = read(&html);
    let cell = by_id(&document, "cell-2");
    let places = elements(cell, "rect", "").into_iter().map(|bar| {
        let at = |name: &str| bar.attribute(name).unwrap().trim_end_matches('%').parse::<f64>().unwrap();
        (at("x"), at("width"))
    });
    let places: Vec<(f64, f64)> = places.collect();
    // The axis is logarithmic, as the ratios are 2, 1 and 0.1: a bar leads from the reference to the ratio, to either side.
    let (reference, nothing) = places[1];
    assert_eq!(nothing, 0.0);
    assert_eq!(places[0].0, reference);
    assert!((places[2].0 + places[2].1 - reference).abs() < 0.02, "{places:?}");
    let (better, worse) = (places[0].1, places[2].1);
    assert!((worse / better - 10_f64.ln() / 2_f64.ln()).abs() < 0.01, "a tenth is as far as its logarithm: {places:?}");
}

#[test]
fn bars_of_a_small_spread_begin_at_zero() {
    let mut report = fixture::report();
    report.cells[2].outcomes.retain(|outcome| outcome.system != SLOW);
    let html = page(&report);
    let document = read(&html);
    let bars = elements(by_id(&document, "cell-2"), "rect", "");
    let at = |bar: usize, name: &str| bars[bar].attribute(name).unwrap().trim_end_matches('%').parse::<f64>().unwrap();
    assert_eq!((at(0, "x"), at(1, "x")), (0.0, 0.0));
    assert!((at(0, "width") / at(1, "width") - 2.0).abs() < 0.001, "twice as good is twice as long");
}

#[test]
fn what_went_wrong_is_said() {
    let html = page(&fixture::report());
    let document = read(&html);
    let (steady, noisy) = (text(by_id(&document, "cell-0")), text(by_id(&document, "cell-1")));
    for part in ["1 of 4 rounds rejected", "round 2 (by 14 %)", "Failed: slow \"tool\"", "generator-limited"] {
        assert!(steady.contains(part), "{part}: {steady}");
    }
    assert!(!steady.contains("Too noisy"));
    for part in ["Too noisy", "2 of 3 rounds rejected", "Unable: socket <cat>"] {
        assert!(noisy.contains(part), "{part}: {noisy}");
    }
    let missing = text(by_id(&document, "missing"));
    for part in [
        "quil<kin>: cargo install \"quilkin\" && true",
        "slow \"tool\", in nic-1400-b16: ended",
        "socket <cat>, in wire-64-b1",
    ] {
        assert!(missing.contains(part), "{part}: {missing}");
    }
    let head = text(elements(document.root(), "header", "")[0]);
    assert!(head.contains("Failed. 1 trial of a system that is installed") && !head.contains("Not complete"), "{head}");
}

#[test]
fn the_summary_compares_us_with_each_other_in_the_same_round() {
    let html = page(&fixture::report());
    let document = read(&html);
    let summary = by_id(&document, "summary");
    let rows: Vec<Vec<String>> = elements(summary, "tr", "")
        .into_iter()
        .map(|row| row.children().filter(|node| node.has_tag_name("td")).map(text).collect())
        .collect();
    assert_eq!(rows[1], [OURS, "2.00", "failed"], "who is first, and our ratio with each other");
    assert_eq!(rows[3], [OURS, "2.00", "20.0"], "the machine got faster by two fifths, and no ratio moved");
    let words = text(summary);
    assert!(
        words.contains("compared with others 9 times"),
        "five cells with two others each, less the one that failed: {words}"
    );
    assert!(words.contains("ahead in every round in 9 of these") && words.contains("1 cell was too noisy"), "{words}");
}

#[test]
fn what_is_ahead_of_us_is_named_in_the_summary() {
    let mut report = fixture::report();
    report.systems[0].ours = false;
    report.systems[2].ours = true;
    let html = page(&report);
    let document = read(&html);
    let words = text(by_id(&document, "summary"));
    assert!(words.contains("It is behind mesh <ring> in flows-1 (0.050×), flows-32 (0.050×)"), "{words}");
    // And where less is better, the same figures say the opposite.
    report.figures[0].better = Better::Lower;
    let html = page(&report);
    let words = text(by_id(&read(&html), "summary"));
    assert!(!words.contains("It is behind mesh") && words.contains("ahead in every round in 8"), "{words}");
}

#[test]
fn cells_of_a_group_are_drawn_as_curves() {
    let html = page(&fixture::report());
    let document = read(&html);
    let curves = by_id(&document, "curves");
    assert!(text(curves).contains("cost & flows") && text(curves).contains("flows <n>"));
    let plots = elements(curves, "svg", "plot");
    assert_eq!(plots.len(), 2, "loss is nothing everywhere and is not drawn");
    for plot in plots {
        assert_eq!(elements(plot, "path", "line").len(), 3);
        assert_eq!(elements(plot, "path", "band").len(), 3);
        let points = elements(plot, "circle", "point").len() + elements(plot, "polygon", "point").len();
        assert_eq!(points, 3 * PLACES.len());
        for name in ["title", "desc"] {
            assert_eq!(plot.children().filter(|node| node.has_tag_name(name)).count(), 1, "{name}");
        }
        let last = elements(plot, "g", "curve").pop().unwrap();
        assert!(text(last).contains(OURS), "ours is drawn last, over the others");
    }
    assert_eq!(elements(curves, "table", "").len(), 2, "the same as numbers");
}

#[test]
fn a_place_without_a_figure_parts_the_line_and_a_noisy_one_is_hollow() {
    let mut report = fixture::report();
    report.cells[3].outcomes.retain(|outcome| outcome.system != SLOW);
    report.cells[5].too_noisy = true;
    let html = page(&report);
    let document = read(&html);
    let plot = elements(document.root(), "svg", "plot")[0];
    let slow = elements(plot, "g", "curve").into_iter().find(|curve| text(*curve).contains(SLOW)).unwrap();
    let lines = elements(slow, "path", "line");
    assert_eq!(lines.len(), 1, "of four places the second is missing: a single one and two");
    assert_eq!(lines[0].attribute("d").unwrap().matches('L').count(), 1, "a line of two");
    let points = |class| elements(slow, "circle", class).len() + elements(slow, "polygon", class).len();
    assert_eq!((points("point"), points("hollow")), (3, 1));
}

#[test]
fn a_line_of_many_places_has_no_points_but_those_not_to_be_relied_on() {
    let mut report = fixture::report();
    let minute = report.cells[2].clone();
    report.cells = (0..60u8)
        .map(|number| {
            let mut cell = minute.clone();
            cell.too_noisy = number == 30;
            cell.point.as_mut().expect("it is of a curve").at = f64::from(number);
            cell
        })
        .collect();
    let html = page(&report);
    let document = read(&html);
    let plot = elements(document.root(), "svg", "plot")[0];
    let points = |class| elements(plot, "circle", class).len() + elements(plot, "polygon", class).len();
    assert_eq!((elements(plot, "path", "line").len(), points("point"), points("hollow")), (3, 3, 3));
    let labels =
        elements(plot, "text", "").into_iter().filter(|label| label.attribute("text-anchor") == Some("middle"));
    assert!((5..30).contains(&labels.count()), "labels that would run into each other are left out");
}

#[test]
fn a_report_of_nothing_has_a_page() {
    let html = page(&empty());
    let document = read(&html);
    let body = text(document.root());
    assert!(body.contains("No cell was measured.") && body.contains("Not complete."), "{body}");
    assert!(document.descendants().all(|node| node.attribute("id") != Some("missing")));
}

#[test]
fn figures_that_are_no_numbers_do_not_reach_the_drawings() {
    let mut report = fixture::report();
    for outcome in report.cells.iter_mut().flat_map(|cell| &mut cell.outcomes) {
        let wild = bench::figure::Spread { min: f64::NEG_INFINITY, median: f64::NAN, max: f64::INFINITY, count: 1 };
        outcome.ratio = Some(wild);
        outcome.figures.insert("rate".into(), wild);
    }
    let html = page(&report);
    for svg in elements(read(&html).root(), "svg", "") {
        for attribute in svg.descendants().flat_map(|node| node.attributes()) {
            assert!(!attribute.value().contains("NaN") && !attribute.value().contains("inf"), "{attribute:?}");
        }
    }
}

#[test]
fn a_directory_gets_the_page_and_the_numbers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made/on the way");
    let report = fixture::report();
    bench::report::write(&report, &path).unwrap();
    assert_eq!(fs::read_to_string(path.join("index.html")).unwrap(), page(&report));
    assert_eq!(json::read(&path.join("report.json")).unwrap(), report);
}

#[test]
fn targets_stand_on_the_page_with_their_verdicts() {
    let html = page(&fixture::report());
    let document = read(&html);
    let rows: Vec<Vec<String>> = elements(by_id(&document, "targets"), "tr", "")
        .into_iter()
        .map(|row| row.children().filter(Node::is_element).map(text).collect())
        .collect();
    assert_eq!(rows[0], ["Target", "Wanted", "Stretch", "Seen", "Verdict", "nic & co"]);
    assert_eq!(rows[1], ["cost, over <raw>", "≤ 2.80x", "", "2.00x1.80..2.20x", "reached", "0.25x"]);
    assert_eq!(rows[3], ["delay", "≤ 8.00 ms", "≤ 6.00 ms", "9.00 ms8.10..9.90 ms", "missed", ""]);
    assert_eq!(rows[5][3..], ["–", "rival absent", ""]);
    assert_eq!(elements(by_id(&document, "targets"), "td", "behind").len(), 1, "what is too noisy is no verdict");
    assert!(!page(&empty()).contains("id=\"targets\""));
}
