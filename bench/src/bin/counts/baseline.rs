//! The committed counts, and what is worse than they are.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::figures::Figures;

/// What `--bless` puts above the figures.
const HEADER: &str = "\
# Counts for each datagram. Written by `cargo xtask bench counts --bless`; checked by `cargo xtask bench counts`.
# A count that is worse by more than its table tolerates fails the check. The tolerances may be edited; blessing keeps them.
# Operations end with the number of datagrams of a train; `changes`: each has another destination than the one before.
# Instructions are those of the release build on x86-64, on the processor that valgrind shows, which is the same one on every
# machine with AVX2; ciphers choose their code by it. Another compiler or valgrind may count differently.
";

/// All committed counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Baseline {
    pub(crate) made_with: MadeWith,
    /// Instructions of our own code.
    pub(crate) instructions: Table,
    /// Instructions of what is mostly a cipher.
    pub(crate) instructions_crypto: Table,
    /// Allocations in steady state, of every operation.
    pub(crate) allocations: Table,
    /// System calls of the transfer's data thread, by engine and load.
    pub(crate) system_calls: Table,
}

/// Programs on which counts of instructions depend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MadeWith {
    pub(crate) rustc: String,
    pub(crate) valgrind: String,
}

/// Counts of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Table {
    /// A count that is more than this many percent above the baseline is worse.
    pub(crate) tolerance_percent: f64,
    pub(crate) per_datagram: BTreeMap<String, f64>,
}

/// What became of one count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Same,
    Better,
    Worse,
    /// Not in the baseline.
    New,
    /// In the baseline only.
    Gone,
}

/// One count beside its baseline.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) baseline: Option<f64>,
    pub(crate) now: Option<f64>,
    pub(crate) verdict: Verdict,
}

impl Line {
    /// The change in percent, where there is one to speak of.
    pub(crate) fn percent(&self) -> Option<f64> {
        let (baseline, now) = (self.baseline?, self.now?);
        (baseline > 0.0).then(|| (now - baseline) / baseline * 100.0)
    }
}

impl Table {
    /// New figures, rounded to thousandths.
    pub(crate) fn new(tolerance_percent: f64, figures: &Figures) -> Self {
        let rounded = figures.iter().map(|(name, figure)| (name.clone(), rounded(*figure)));
        Self { tolerance_percent, per_datagram: rounded.collect() }
    }

    /// Each count of `now` and of this baseline, in order of their names.
    pub(crate) fn compare(&self, now: &Figures) -> Vec<Line> {
        let names: std::collections::BTreeSet<&String> = self.per_datagram.keys().chain(now.keys()).collect();
        let line = |name: &String| {
            let baseline = self.per_datagram.get(name).copied();
            let now = now.get(name).copied().map(rounded);
            let verdict = match (baseline, now) {
                (Some(baseline), Some(now)) => self.judge(baseline, now),
                (None, _) => Verdict::New,
                (Some(_), None) => Verdict::Gone,
            };
            Line { name: name.clone(), baseline, now, verdict }
        };
        names.into_iter().map(line).collect()
    }

    fn judge(&self, baseline: f64, now: f64) -> Verdict {
        let margin = baseline * self.tolerance_percent / 100.0;
        if now > baseline + margin {
            Verdict::Worse
        } else if now < baseline - margin {
            Verdict::Better
        } else {
            Verdict::Same
        }
    }
}

fn rounded(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}

impl Baseline {
    /// Reads the committed counts; `None` when there are none yet.
    pub(crate) fn load(file: &Path) -> Result<Option<Self>> {
        match fs::read_to_string(file) {
            Ok(text) => toml::from_str(&text).map(Some).with_context(|| format!("read {}", file.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", file.display())),
        }
    }

    /// Writes them.
    pub(crate) fn save(&self, file: &Path) -> Result<()> {
        let text = format!("{HEADER}\n{}", toml::to_string(self)?);
        fs::write(file, text).with_context(|| format!("write {}", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(pairs: &[(&str, f64)]) -> Figures {
        pairs.iter().map(|(name, figure)| ((*name).to_owned(), *figure)).collect()
    }

    #[test]
    fn a_count_is_worse_beyond_the_tolerance_only() {
        let table = Table::new(2.0, &figures(&[("a", 100.0)]));
        for (now, verdict) in
            [(100.0, Verdict::Same), (102.0, Verdict::Same), (102.01, Verdict::Worse), (97.9, Verdict::Better)]
        {
            assert_eq!(table.compare(&figures(&[("a", now)]))[0].verdict, verdict, "{now}");
        }
    }

    #[test]
    fn nothing_is_all_that_a_baseline_of_nothing_allows() {
        let table = Table::new(50.0, &figures(&[("a", 0.0)]));
        assert_eq!(table.compare(&figures(&[("a", 0.0)]))[0].verdict, Verdict::Same);
        let line = table.compare(&figures(&[("a", 0.005)])).remove(0);
        assert_eq!((line.verdict, line.percent()), (Verdict::Worse, None));
    }

    #[test]
    fn what_is_on_one_side_only_is_told() {
        let lines = Table::new(2.0, &figures(&[("a", 1.0)])).compare(&figures(&[("b", 1.0)]));
        assert_eq!(lines.iter().map(|line| line.verdict).collect::<Vec<_>>(), [Verdict::Gone, Verdict::New]);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let table = Table::new(2.0, &figures(&[("decide-1", 61.2345)]));
        assert_eq!(table.per_datagram["decide-1"], 61.235);
        let made_with = MadeWith { rustc: "rustc 1".into(), valgrind: "valgrind-3".into() };
        let baseline = Baseline {
            made_with,
            instructions: table.clone(),
            instructions_crypto: table.clone(),
            allocations: table.clone(),
            system_calls: table,
        };
        let file = std::env::temp_dir().join(format!("counts-{}", std::process::id()));
        baseline.save(&file).unwrap();
        let read = Baseline::load(&file);
        fs::remove_file(&file).unwrap();
        assert_eq!(read.unwrap(), Some(baseline));
        assert_eq!(Baseline::load(&file).unwrap(), None);
    }
}
