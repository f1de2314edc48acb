//! Counts of one process: repetitions for valgrind, and allocations.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, thread};

use anyhow::{Context as _, Result, bail, ensure};

use crate::allocator::allocations;
use crate::operations::{ALL, Operation};

/// Repetitions before allocations are counted: memory has grown to its size.
const WARM_UP: usize = 50;
/// Repetitions in which they are counted.
const COUNTED: usize = 200;

/// Counts for each datagram, by name.
pub(crate) type Figures = BTreeMap<String, f64>;

/// Repeats one operation: what valgrind runs.
pub(crate) fn run_one(name: &str, times: &str, capacity: &str) -> Result<()> {
    Operation::named(name)?.run(times.parse()?, capacity.parse()?, |_| ())
}

/// Prints the allocations of each operation.
pub(crate) fn print_allocations() -> Result<()> {
    for operation in ALL {
        let (mut before, mut after) = (0, 0);
        operation
            .run(WARM_UP + COUNTED, WARM_UP + COUNTED, |done| match done {
                WARM_UP => before = allocations(),
                _ => after = allocations(),
            })
            .with_context(|| format!("operation {}", operation.name))?;
        print(operation.name, (after - before) as f64 / (COUNTED * operation.datagrams) as f64);
    }
    Ok(())
}

/// One figure for the parent.
pub(crate) fn print(name: &str, figure: f64) {
    println!("{name}\t{figure}");
}

/// The figures that this program prints when it is started with these words.
pub(crate) fn of_child(words: &[&str]) -> Result<Figures> {
    let output = Command::new(env::current_exe()?).args(words).output().context("start this program again")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}", complaint.trim().trim_start_matches("counts: "));
    let text = String::from_utf8(output.stdout)?;
    text.lines()
        .map(|line| {
            let (name, figure) = line.split_once('\t').with_context(|| format!("not a figure: {line}"))?;
            Ok((name.to_owned(), figure.parse()?))
        })
        .collect()
}

/// The instructions of each operation for a datagram, in parts: of our own code, and of ciphers.
pub(crate) fn instructions() -> Result<(Figures, Figures)> {
    let next = AtomicUsize::new(0);
    let counted = Mutex::new(Vec::new());
    let work = || {
        while let Some(operation) = ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
            let count = instructions_of(operation);
            counted.lock().expect("nobody panics while holding it").push((operation, count));
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let (mut core, mut crypto) = (Figures::new(), Figures::new());
    for (operation, count) in counted.into_inner().expect("nobody panics while holding it") {
        let figures = if operation.is_crypto() { &mut crypto } else { &mut core };
        let count = count.with_context(|| format!("count the instructions of {}", operation.name))?;
        figures.insert(operation.name.to_owned(), count);
    }
    Ok((core, crypto))
}

fn instructions_of(operation: &Operation) -> Result<f64> {
    let times = operation.times();
    let [once, twice] = [times, 2 * times].map(|repetitions| collected(operation.name, repetitions, 2 * times));
    let difference = twice?.checked_sub(once?).context("more repetitions took fewer instructions")?;
    Ok(difference as f64 / (times * operation.datagrams) as f64)
}

/// Instructions of a whole run.
fn collected(name: &str, times: usize, capacity: usize) -> Result<u64> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(env::current_exe()?);
    valgrind.args(["run", name, &times.to_string(), &capacity.to_string()]);
    let output = valgrind.output().context("valgrind is missing: apt-get install valgrind")?;
    let report = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("valgrind ended with {}:\n{report}", output.status);
    }
    parse_collected(&report).with_context(|| format!("valgrind reports no count:\n{report}"))
}

/// The line `==pid== Collected : 123`.
fn parse_collected(report: &str) -> Option<u64> {
    report.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_of_valgrind_is_found() {
        let report =
            "==8211== Events    : Ir\n==8211== Collected : 128719\n==8211== \n==8211== I   refs:      128,719\n";
        assert_eq!(parse_collected(report), Some(128_719));
        assert_eq!(parse_collected("==8211== Collected : \n"), None);
        assert_eq!(parse_collected(""), None);
    }

    #[test]
    fn every_operation_runs_and_allocates_nothing() {
        for operation in ALL {
            let mut made = 0;
            operation
                .run(6, 8, |done| {
                    if done == 3 {
                        made = allocations();
                    } else if done == 6 {
                        made = allocations() - made;
                    }
                })
                .unwrap();
            assert_eq!(made, 0, "{}", operation.name);
        }
    }
}
