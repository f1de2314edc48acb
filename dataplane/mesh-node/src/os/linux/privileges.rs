//! What root may do and the programs never need is given up before the first thread.
//!
//! The kernel keeps capabilities for each thread, so this comes before any other thread is started; what the programs keep is what
//! they need while they run, not only at the start: sockets of busy ports are bound later, interfaces are made and taken away.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;
use nix::unistd::geteuid;

/// Kept always, where it is there: interfaces, routes and socket buffers beyond the limit; ports below 1024; the memory of rings;
/// the limit of open files.
const KEPT: [Capability; 4] = [
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_IPC_LOCK,
    Capability::CAP_SYS_RESOURCE,
];

/// Gives up every capability but those the programs need, for this process and for whatever it should ever start. `folders` are those
/// it writes to: only if one belongs to somebody else may root still write to what belongs to others.
///
/// # Errors
/// The kernel refuses; nothing has changed then, or less was given up than could be.
pub(crate) fn give_up(folders: &[&Path]) -> Result<()> {
    let has = caps::read(None, CapSet::Permitted).context("read the capabilities")?;
    if has.is_empty() {
        return Ok(());
    }
    let mut kept: CapsHashSet = KEPT.into_iter().filter(|capability| has.contains(capability)).collect();
    if has.contains(&Capability::CAP_DAC_OVERRIDE) && folders.iter().any(|folder| belongs_to_another(folder)) {
        kept.insert(Capability::CAP_DAC_OVERRIDE);
    }
    if has.contains(&Capability::CAP_SETPCAP) {
        let mut all: Vec<Capability> = caps::all().into_iter().collect();
        all.sort_unstable_by_key(Capability::index);
        for capability in all {
            if !kept.contains(&capability) && caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) {
                caps::drop(None, CapSet::Bounding, capability).context("shrink the bounding set")?;
            }
        }
    }
    // Effective before permitted: the one may not exceed the other.
    caps::set(None, CapSet::Effective, &kept).context("set the effective capabilities")?;
    caps::set(None, CapSet::Permitted, &kept).context("set the permitted capabilities")?;
    caps::clear(None, CapSet::Inheritable).context("clear the inheritable capabilities")?;
    prctl::set_no_new_privs().context("forbid new privileges")
}

/// Whether a folder, or the nearest above it that exists, has another owner than this process.
fn belongs_to_another(folder: &Path) -> bool {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| PathBuf::from("/"));
    let existing = folder.ancestors().find_map(|folder| fs::metadata(folder).ok());
    existing.is_none_or(|metadata| metadata.uid() != geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_what_will_be_made_is_that_of_the_folder_above() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!belongs_to_another(&folder.path().join("not/there/yet")));
        if geteuid().is_root() {
            std::os::unix::fs::chown(folder.path(), Some(65_534), None).unwrap();
            assert!(belongs_to_another(&folder.path().join("not/there/yet")));
        }
    }
}
