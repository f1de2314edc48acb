//! `cargo xtask bench peers`: the programs of others that the bench measures beside ours, installed into
//! `target/peers`.
//!
//! Nothing of the system is touched. Debian's packages are unpacked, each set with what it depends on into a folder of
//! its own, and none of their scripts is run; crates.io's programs are built from source, in the version named here.
//! What is there in that version is left as it is, what fails does not stop the rest, and a run that is interrupted
//! leaves each program whole or absent. `bench/src/peers.rs` finds what lies here.

mod crates_io;
mod debian;

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use crates_io::{CRATES, Crate};
use debian::{COMPILER_OF_PROTOCOLS, SETS, Set};

/// Names the folder, if it is not `target/peers`; the bench looks there too.
const FOLDER_VARIABLE: &str = "XTASK_PEERS";

/// What became of one rival: a short sentence, or why it is not there.
struct Outcome {
    name: String,
    result: Result<String>,
}

/// What a rival costs before it is there.
#[derive(Clone, Copy, Default)]
struct Cost {
    /// Bytes that come over the network, at most: what is in the caches of apt and cargo does not come again.
    download: u64,
    /// Bytes on the disk while it is made, the download not counted.
    disk: u64,
    /// Seconds of one processor.
    processor_seconds: u64,
}

/// Installs the rivals of these names, or all if there are none; fails if one of them could not be installed.
pub(crate) fn run(names: &[String]) -> Result<ExitCode> {
    let (mut sets, crates) = select(names)?;
    let folder = match env::var_os(FOLDER_VARIABLE).filter(|value| !value.is_empty()) {
        Some(folder) => std::path::absolute(PathBuf::from(folder))?,
        // Whatever CARGO_TARGET_DIR says: the builds take long enough to be made once.
        None => Workspace::load()?.root.join("target/peers"),
    };
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let _lock = lock(&folder)?;

    let from_crates_io = crates_io::Plan::make(&crates, folder.clone());
    if from_crates_io.lacks_protoc() && !sets.contains(&&COMPILER_OF_PROTOCOLS) {
        sets.push(&COMPILER_OF_PROTOCOLS);
    }
    let from_debian = debian::Plan::make(&sets, folder.join("debian"));
    let (download, disk) = from_debian.say();
    let mut cost = from_crates_io.say();
    if download != 0 && cost.download != 0 {
        cost.download += download;
        cost.disk += disk;
        println!("together: {}", cost.spoken());
    }

    let mut outcomes = from_debian.run();
    outcomes.extend(from_crates_io.run());
    println!("\n{}:", folder.display());
    let width = outcomes.iter().map(|outcome| outcome.name.len()).max().unwrap_or(0);
    for Outcome { name, result } in &outcomes {
        match result {
            Ok(sentence) => println!("  {name:width$}  {sentence}"),
            Err(error) => println!("  {name:width$}  ABSENT: {error:#}"),
        }
    }
    let failed = outcomes.iter().filter(|outcome| outcome.result.is_err()).count();
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The rivals of these names, in the order they are installed; without names all.
fn select(names: &[String]) -> Result<(Vec<&'static Set>, Vec<&'static Crate>)> {
    let known = || SETS.iter().map(|set| set.name).chain(CRATES.iter().map(|krate| krate.name));
    if let Some(unknown) = names.iter().find(|name| !known().any(|known| known == name.as_str())) {
        bail!("no rival is called `{unknown}`; there are: {}", known().collect::<Vec<_>>().join(" "));
    }
    let chosen = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    let sets = SETS.iter().filter(|set| chosen(set.name) && !(names.is_empty() && set.is_tool_of_builds()));
    Ok((sets.collect(), CRATES.iter().filter(|krate| chosen(krate.name)).collect()))
}

/// Held until the run ends, however it ends: two runs would unpack and build into the same folders.
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(".lock");
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    if file.try_lock().is_err() {
        bail!("another `cargo xtask bench peers` is at work in {}", folder.display());
    }
    Ok(file)
}

impl Cost {
    fn sum(costs: impl Iterator<Item = Cost>) -> Cost {
        costs.fold(Cost::default(), |sum, cost| Cost {
            download: sum.download + cost.download,
            // One after the other, and each leaves little: the largest counts.
            disk: sum.disk.max(cost.disk),
            processor_seconds: sum.processor_seconds + cost.processor_seconds,
        })
    }

    /// For people: `46 MB to download at most, 0.3 GB of disk while it is built, about 2 minutes on two cores`.
    fn spoken(self) -> String {
        let minutes = self.minutes_on_two_cores();
        let minutes = if minutes == 1 { "a minute".to_owned() } else { format!("{minutes} minutes") };
        format!(
            "{} to download at most, {} of disk while it is built, about {minutes} on two cores",
            bytes(self.download),
            bytes(self.disk)
        )
    }

    /// Two cores are not twice as fast: the last crate and the linker use one. 1.5 times is assumed.
    fn minutes_on_two_cores(self) -> u64 {
        (self.processor_seconds * 2).div_ceil(3 * 60).max(1)
    }
}

/// A size for people, in decimal units.
fn bytes(bytes: u64) -> String {
    const MEGA: u64 = 1_000_000;
    match bytes {
        0..MEGA => format!("{} kB", bytes.div_ceil(1000)),
        MEGA..1_000_000_000 => format!("{} MB", bytes.div_ceil(MEGA)),
        _ => {
            let tenths = bytes.div_ceil(100 * MEGA);
            format!("{}.{} GB", tenths / 10, tenths % 10)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(names: &[&str]) -> Result<Vec<&'static str>> {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let (sets, crates) = select(&names)?;
        Ok(sets.iter().map(|set| set.name).chain(crates.iter().map(|krate| krate.name)).collect())
    }

    #[test]
    fn names_restrict_what_is_installed_and_an_unknown_one_lists_the_known() {
        assert_eq!(selected(&["quilkin", "nginx"]).unwrap(), ["nginx", "quilkin"]);
        let error = selected(&["nginx", "apache"]).unwrap_err().to_string();
        assert!(
            error.starts_with("no rival is called `apache`; there are: ") && error.contains("wireguard-go"),
            "{error}"
        );
    }

    #[test]
    fn without_names_all_rivals_are_installed_and_what_only_builds_need_is_not() {
        let all = selected(&[]).unwrap();
        assert_eq!(all.len(), SETS.len() + CRATES.len() - 1);
        assert!(!all.contains(&COMPILER_OF_PROTOCOLS.name));
    }

    #[test]
    fn costs_add_up_to_what_a_person_plans_with() {
        let small = Cost { download: 25_400_000, disk: 180_000_000, processor_seconds: 46 };
        let large = Cost { download: 47_000_001, disk: 1_810_000_000, processor_seconds: 600 };
        let text = "26 MB to download at most, 180 MB of disk while it is built, about a minute on two cores";
        assert_eq!(small.spoken(), text);
        let text = "73 MB to download at most, 1.9 GB of disk while it is built, about 8 minutes on two cores";
        assert_eq!(Cost::sum([small, large].into_iter()).spoken(), text);
    }

    #[test]
    fn one_run_at_a_time_works_in_a_folder() {
        let folder = env::temp_dir().join(format!("xtask-peers-lock-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let first = lock(&folder).unwrap();
        assert!(lock(&folder).unwrap_err().to_string().starts_with("another"));
        drop(first);
        lock(&folder).unwrap();
        fs::remove_dir_all(&folder).unwrap();
    }
}
