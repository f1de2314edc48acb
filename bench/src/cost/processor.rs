//! Busy time of cores, from `/proc/stat`.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Ticks a second in `/proc/stat` (`USER_HZ`, the same on every Linux that Rust's standard library runs on).
const TICKS_PER_SECOND: u64 = 100;

/// How long the cores have been busy since the machine started: neither idle nor waiting for a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Busy {
    cores: Vec<Duration>,
}

impl Busy {
    /// Of one core since an earlier reading, to two ticks of 10 ms.
    ///
    /// # Errors
    /// There is no such core.
    pub fn of_core_since(&self, earlier: &Busy, core: usize) -> Result<Duration> {
        let of = |busy: &Busy| busy.cores.get(core).copied();
        let (now, then) = of(self).zip(of(earlier)).with_context(|| format!("there is no core {core}"))?;
        Ok(now.saturating_sub(then))
    }

    /// Of the whole machine since an earlier reading.
    pub fn since(&self, earlier: &Busy) -> Duration {
        self.cores.iter().zip(&earlier.cores).map(|(now, then)| now.saturating_sub(*then)).sum()
    }
}

/// Reads the busy times of all cores.
///
/// # Errors
/// `/proc/stat` cannot be read or understood.
pub fn busy() -> Result<Busy> {
    parse(&fs::read_to_string("/proc/stat").context("read /proc/stat")?)
}

fn parse(text: &str) -> Result<Busy> {
    let mut cores = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let core =
            words.next().and_then(|name| name.strip_prefix("cpu")).and_then(|number| number.parse::<usize>().ok());
        let Some(core) = core else { continue };
        // user nice system idle iowait irq softirq steal; what guests use is in user already.
        let ticks: Vec<u64> = words.take(8).map_while(|word| word.parse().ok()).collect();
        let [user, nice, system, _idle, _iowait, irq, softirq, _steal] = ticks[..] else { continue };
        let busy = user + nice + system + irq + softirq;
        cores.resize(cores.len().max(core + 1), Duration::ZERO);
        cores[core] = Duration::from_millis(busy * 1_000 / TICKS_PER_SECOND);
    }
    anyhow::ensure!(!cores.is_empty(), "/proc/stat names no core");
    Ok(Busy { cores })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_waiting_and_stolen_time_is_not_busy() {
        let text = "cpu 9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 3 1000 50 4 5 70 8 8\ncpu1 10 0 0 0 0 0 0 0 0 0\nintr 5\n";
        let (first, none) = (parse(text).unwrap(), Busy { cores: vec![Duration::ZERO; 2] });
        assert_eq!(first.of_core_since(&none, 0).unwrap(), Duration::from_millis(150));
        assert_eq!(first.of_core_since(&none, 1).unwrap(), Duration::from_millis(100));
        assert_eq!(first.since(&none), Duration::from_millis(250));
        assert!(first.of_core_since(&none, 2).is_err());
        assert!(parse("intr 5\n").is_err());
    }

    #[test]
    fn this_machine_is_understood() {
        let first = busy().unwrap();
        assert!(busy().unwrap().of_core_since(&first, 0).is_ok());
    }
}
