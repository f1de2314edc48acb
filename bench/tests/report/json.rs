use std::fs;

use bench::report::json::{self, VERSION};

use crate::fixture;

#[test]
fn a_report_is_read_back_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("report.json");
    let report = fixture::report();
    json::write(&report, &path).unwrap();
    assert_eq!(json::read(&path).unwrap(), report);
    assert_eq!(json::text(&report).unwrap(), fs::read_to_string(&path).unwrap().trim_end());
}

#[test]
fn a_report_replaces_the_one_before_and_leaves_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("report.json");
    let mut report = fixture::report();
    json::write(&report, &path).unwrap();
    report.cells.truncate(1);
    report.complete = false;
    json::write(&report, &path).unwrap();
    assert_eq!(json::read(&path).unwrap(), report);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
}

#[test]
fn where_nothing_can_be_written_the_path_is_named_and_nothing_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("report.json");
    fs::create_dir(&path).unwrap();
    let why = format!("{:#}", json::write(&fixture::report(), &path).unwrap_err());
    assert!(why.contains("report.json"), "{why}");
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "the temporary file is removed");
}

#[test]
fn what_is_no_number_is_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("report.json");
    let mut report = fixture::report();
    let round = &mut report.cells[0].rounds[0];
    round.control_moved = f64::INFINITY;
    let measures = round.measures.get_mut(fixture::OURS).unwrap();
    measures.insert("rate".into(), f64::NAN);
    json::write(&report, &path).unwrap();
    let read = json::read(&path).unwrap();
    let round = &read.cells[0].rounds[0];
    assert!(!round.measures[fixture::OURS].contains_key("rate"));
    assert!(round.measures[fixture::OURS].contains_key("cost"));
    assert!(round.control_moved > 1e9, "{}", round.control_moved);
}

#[test]
fn another_version_of_the_schema_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("report.json");
    for (version, word) in [(VERSION + 1, "a newer bench"), (VERSION - 1, "an older bench")] {
        // What else is in the file of another version is unknown.
        fs::write(&path, format!("{{\"schema\": {version}, \"reports\": [1, 2]}}")).unwrap();
        let why = format!("{:#}", json::read(&path).unwrap_err());
        for part in [word, "report.json", &version.to_string(), &VERSION.to_string()] {
            assert!(why.contains(part), "{part}: {why}");
        }
    }
}

#[test]
fn what_is_no_report_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("report.json");
    json::write(&fixture::report(), &path).unwrap();
    let whole = fs::read_to_string(&path).unwrap();
    for text in ["", "[]", "{}", "{\"schema\": 1}", "{\"schema\": \"one\"}", &whole[..whole.len() / 2]] {
        fs::write(&path, text).unwrap();
        let why = format!("{:#}", json::read(&path).unwrap_err());
        assert!(why.contains("report.json is no report of this bench"), "{text:.20}: {why}");
    }
}
