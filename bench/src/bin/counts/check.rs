//! The whole check: counts everything, compares, tells; or blesses.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::baseline::{Baseline, Line, MadeWith, Table, Verdict};
use crate::figures::{self, Figures};

/// What makes the counts of today the baseline.
const BLESS: &str = "cargo xtask bench counts --bless";
/// Our own code: the same compiler makes the same instructions.
const CORE_PERCENT: f64 = 2.0;
/// Ciphers: a later valgrind may show more of the processor.
const CRYPTO_PERCENT: f64 = 5.0;
/// A turn of the loop may find one datagram of a batch a little earlier than the rest.
const SYSTEM_CALLS_PERCENT: f64 = 15.0;

/// Counts, and compares with the baseline, or makes it. Whether nothing is worse.
pub(crate) fn check(file: &Path, transfer: &Path, bless: bool) -> Result<bool> {
    if !cfg!(target_arch = "x86_64") {
        bail!("the baseline is that of x86-64");
    }
    let made_with = MadeWith { rustc: version("rustc")?, valgrind: version("valgrind")? };
    let old = Baseline::load(file)?;
    let Some(old) = (if bless { old.or_else(|| Some(empty(&made_with))) } else { old }) else {
        bail!("there is no baseline {}: {BLESS}", file.display());
    };
    let slowed = cfg!(feature = "slow");
    if bless && slowed {
        bail!("a build with the feature `slow` makes no baseline");
    }

    let (core, crypto) = figures::instructions()?;
    let mut failed = show("instructions", &old.instructions, &core);
    failed.extend(show("instructions, ciphers", &old.instructions_crypto, &crypto));
    let allocations = figures::of_child(&["allocations"]).context("count allocations")?;
    failed.extend(show("allocations", &old.allocations, &allocations));
    let path = transfer.to_str().with_context(|| format!("{} is not text", transfer.display()))?;
    let system_calls = figures::of_child(&["syscalls", path]).context("count system calls")?;
    failed.extend(show("system calls", &old.system_calls, &system_calls));

    if bless {
        let again = |old: &Table, now: &Figures| Table::new(old.tolerance_percent, now);
        let new = Baseline {
            made_with,
            instructions: again(&old.instructions, &core),
            instructions_crypto: again(&old.instructions_crypto, &crypto),
            allocations: again(&old.allocations, &allocations),
            system_calls: again(&old.system_calls, &system_calls),
        };
        new.save(file)?;
        println!("\n{} holds these counts now", file.display());
        return Ok(true);
    }
    if made_with != old.made_with {
        let MadeWith { rustc, valgrind } = &old.made_with;
        println!("\nThe baseline was made with {rustc} and {valgrind}, which are others than today:");
        println!("{} and {}. Instructions may differ for that alone.", made_with.rustc, made_with.valgrind);
    }
    if !failed.is_empty() {
        println!();
    }
    for line in &failed {
        println!("FAILED: {line}; if that is as it should be: {BLESS}");
    }
    Ok(failed.is_empty())
}

/// The baseline of a check that has none yet.
fn empty(made_with: &MadeWith) -> Baseline {
    let table = |tolerance| Table::new(tolerance, &Figures::new());
    Baseline {
        made_with: made_with.clone(),
        instructions: table(CORE_PERCENT),
        instructions_crypto: table(CRYPTO_PERCENT),
        allocations: table(0.0),
        system_calls: table(SYSTEM_CALLS_PERCENT),
    }
}

/// Prints one kind of count beside its baseline; one sentence for each that fails.
fn show(kind: &str, baseline: &Table, now: &Figures) -> Vec<String> {
    println!("\n{kind} for each datagram (tolerance {} %)", baseline.tolerance_percent);
    println!("{:<28} {:>12} {:>12} {:>9}", "", "now", "baseline", "change");
    let lines = baseline.compare(now);
    for line in &lines {
        let Line { name, baseline, now, verdict } = line;
        let number = |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.3}"));
        let change = line.percent().map_or_else(String::new, |percent| format!("{percent:+.2} %"));
        let note = match verdict {
            Verdict::Same => String::new(),
            Verdict::Better => format!("  better; keep it by {BLESS}"),
            Verdict::Worse => "  WORSE".to_owned(),
            Verdict::New => "  NOT IN THE BASELINE".to_owned(),
            Verdict::Gone => "  IN THE BASELINE ONLY".to_owned(),
        };
        println!("{name:<28} {:>12} {:>12} {change:>9}{note}", number(*now), number(*baseline));
    }
    let failed = |line: &&Line| matches!(line.verdict, Verdict::Worse | Verdict::New | Verdict::Gone);
    let number = |figure: Option<f64>| figure.map_or_else(|| "none".to_owned(), |figure| figure.to_string());
    let sentence =
        |line: &Line| format!("{kind}, {}: baseline {}, now {}", line.name, number(line.baseline), number(line.now));
    lines.iter().filter(failed).map(sentence).collect()
}

/// The first line a program answers to `--version`.
fn version(program: &str) -> Result<String> {
    let output = Command::new(program).arg("--version").output();
    let output = output.with_context(|| format!("{program} is missing: install it"))?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}
