use std::cell::Cell;
use std::io::Read as _;
use std::rc::Rc;

use super::*;

/// A clock that the test sets.
fn clock(start: SystemTime) -> (Rc<Cell<SystemTime>>, impl Fn() -> SystemTime) {
    let time = Rc::new(Cell::new(start));
    let shared = Rc::clone(&time);
    (time, move || shared.get())
}

/// 2026-02-27, noon.
fn noon() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_772_193_600)
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn house(directory: &Path, limits: Limits) -> House {
    House { directory: directory.to_owned(), name: "transfer-8000".into(), limits }
}

#[test]
fn days_have_the_names_of_the_calendar() {
    for (seconds, name) in [
        (0, "1970-01-01"),
        (951_782_400, "2000-02-29"),
        (951_868_800, "2000-03-01"),
        (1_772_193_600, "2026-02-27"),
        (4_107_542_400, "2100-03-01"),
    ] {
        let day = Day::of(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(day.name(), name);
        assert_eq!(Day::parse(name), Some(day));
    }
    for day in (0..60_000).map(Day) {
        assert_eq!(Day::parse(&day.name()), Some(day));
    }
    for wrong in ["", "2026-13-01", "2026-1-01", "1969-12-31", "2026-01-32", "x"] {
        assert_eq!(Day::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn each_day_has_its_file_and_a_full_one_a_next_part() {
    let directory = tempfile::tempdir().unwrap();
    let (time, now) = clock(noon());
    let limits = Limits { file_bytes: 10, ..Limits::default() };
    let mut file = RotatingFile::open(directory.path(), "transfer-8000", limits, now).unwrap();
    file.write_all(b"12345\n").unwrap();
    file.write_all(b"67890\n").unwrap();
    file.write_all(b"next part\n").unwrap();
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
    assert_eq!(read("transfer-8000-2026-02-27.log"), "12345\n67890\n");
    assert_eq!(read("transfer-8000-2026-02-27.1.log"), "next part\n");
    time.set(noon() + 2 * DAY);
    file.write_all(b"March\n").unwrap();
    assert_eq!(read("transfer-8000-2026-03-01.log"), "March\n");
    // The clock set back: lines stay in the newest file.
    time.set(noon());
    file.write_all(b"x\n").unwrap();
    assert_eq!(read("transfer-8000-2026-03-01.log"), "March\nx\n");
}

#[test]
fn a_restart_goes_on_in_the_same_file() {
    let directory = tempfile::tempdir().unwrap();
    for line in ["one\n", "two\n"] {
        let (_, now) = clock(noon());
        let mut file = RotatingFile::open(directory.path(), "transfer-8000", Limits::default(), now).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
    assert_eq!(fs::read_to_string(directory.path().join("transfer-8000-2026-02-27.log")).unwrap(), "one\ntwo\n");
}

#[test]
fn closed_days_are_packed_and_others_files_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (old, current) = ("transfer-8000-2026-02-26.log", "transfer-8000-2026-02-27.log");
    let others = ["transfer-80001-2026-02-01.log", "gateway-2026-01-01.log", "transfer-8000-notes.log", "x"];
    for name in [&[old, current][..], &others].concat() {
        fs::write(directory.path().join(name), format!("lines of {name}")).unwrap();
    }
    house(directory.path(), Limits::default()).keep(Day::of(noon()), &directory.path().join(current));
    let mut expect: Vec<String> = others.iter().chain([&current]).map(ToString::to_string).collect();
    expect.push(format!("{old}.zip"));
    expect.sort();
    assert_eq!(names(directory.path()), expect);
    let mut archive = zip::ZipArchive::new(File::open(directory.path().join(format!("{old}.zip"))).unwrap()).unwrap();
    let mut text = String::new();
    archive.by_name(old).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, format!("lines of {old}"));
}

#[test]
fn old_files_go_and_so_does_what_is_too_much() {
    let directory = tempfile::tempdir().unwrap();
    let day = |back: u64| Day(Day::of(noon()).0 - back);
    for back in [1, 2, 3, 30, 31, 400] {
        let name = format!("transfer-8000-{}.log.zip", day(back).name());
        fs::write(directory.path().join(name), [0; 100]).unwrap();
    }
    let current = directory.path().join("transfer-8000-2026-02-27.log");
    fs::write(&current, [0; 100]).unwrap();
    house(directory.path(), Limits::default()).keep(day(0), &current);
    assert_eq!(names(directory.path()).len(), 5, "31 and 400 days are too old");
    let limits = Limits { file_bytes: 100, total_bytes: 320, ..Limits::default() };
    house(directory.path(), limits).keep(day(0), &current);
    assert_eq!(
        names(directory.path()),
        ["transfer-8000-2026-02-25.log.zip", "transfer-8000-2026-02-26.log.zip", "transfer-8000-2026-02-27.log"]
    );
}

#[test]
fn a_packed_day_is_not_written_again() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("transfer-8000-2026-02-27.log.zip"), "packed").unwrap();
    let (_, now) = clock(noon());
    let mut file = RotatingFile::open(directory.path(), "transfer-8000", Limits::default(), now).unwrap();
    file.write_all(b"more\n").unwrap();
    assert_eq!(fs::read_to_string(directory.path().join("transfer-8000-2026-02-27.1.log")).unwrap(), "more\n");
}
