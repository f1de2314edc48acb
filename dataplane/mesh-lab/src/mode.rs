//! Link modes: what the interfaces of a cable do to trains of packets, and which CPUs take what arrives.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, bail};

use crate::ethtool::{Feature, Features};
use crate::link::{Interface, Link};
use crate::{sys, world};

/// CPUs a mask can name: the most a kernel is built for.
const CPUS_MAX: usize = 8192;

/// Merging of received packets into trains, for local sockets.
const GRO: &str = "rx-gro";

/// Merging of UDP packets also where no socket has asked for trains, as for packets to be forwarded.
const UDP_GRO_FORWARDING: &str = "rx-udp-gro-forwarding";

/// Completing of checksums that were left undone, of all protocols.
const CHECKSUMS: &str = "tx-checksum-ip-generic";

/// What becomes of a train: many packets of one flow that a program or the kernel's TCP sends in one piece.
///
/// Checksums are left unfinished in all modes, as a card would finish them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkMode {
    /// Every packet by itself: the sender's kernel cuts trains, the receiver's merges none. The least favourable.
    Wire,
    /// A common card: trains are cut when sent, and the receiver merges what it finds in one turn of its queue. It does not
    /// wait for more ([`Interface::set_gro_flush_timeout`]): on a virtual machine the timer costs more than the merging saves.
    Nic,
    /// What a veth pair does by itself: trains arrive as they were sent, uncut. The most favourable.
    Veth,
}

impl LinkMode {
    /// All modes, from the least favourable to the most.
    pub const ALL: [LinkMode; 3] = [LinkMode::Wire, LinkMode::Nic, LinkMode::Veth];
}

impl fmt::Display for LinkMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            LinkMode::Wire => "wire",
            LinkMode::Nic => "nic",
            LinkMode::Veth => "veth",
        })
    }
}

impl FromStr for LinkMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<LinkMode> {
        let found = LinkMode::ALL.into_iter().find(|mode| mode.to_string() == text);
        found.with_context(|| format!("{text:?} is not a link mode: wire, nic or veth"))
    }
}

impl Link {
    /// Sets what both ends do to trains of packets; a new link is [`LinkMode::Veth`].
    ///
    /// # Errors
    /// The kernel refuses a setting: the error names it.
    pub fn set_mode(&self, mode: LinkMode) -> Result<()> {
        self.a().set_mode(mode)?;
        self.b().set_mode(mode)
    }
}

impl Interface {
    /// Sets what this end does to trains it sends and receives: see [`Link::set_mode`], which sets both ends.
    ///
    /// # Errors
    /// The kernel refuses a setting: the error names it.
    pub fn set_mode(&self, mode: LinkMode) -> Result<()> {
        let set = || {
            self.set_transmit_offloads(mode == LinkMode::Veth)?;
            self.set_receive_offloads(mode == LinkMode::Nic)
        };
        set().with_context(|| format!("set the mode {mode}"))
    }

    /// Lets trains leave uncut, or has the kernel cut them (TCP, UDP and encapsulated, all `tx-*-segmentation`).
    ///
    /// # Errors
    /// The kernel refuses a feature: the error names it.
    pub fn set_transmit_offloads(&self, on: bool) -> Result<()> {
        self.with_features(|features| {
            let all = features.read()?;
            let cuts = |name: &str| name.starts_with("tx-") && name.ends_with("-segmentation") || name == "tx-gso-list";
            let wanted = |(name, feature): &(&String, &Feature)| feature.changeable && feature.on != on && cuts(name);
            let wanted: Vec<_> = all.iter().filter(wanted).map(|(name, _)| (name.as_str(), on)).collect();
            features.set(&wanted)
        })
    }

    /// Leaves checksums unfinished, or has the kernel complete them before a packet leaves. Where it is to complete
    /// them, switch [`Interface::set_transmit_offloads`] off first: trains need what is switched off here.
    ///
    /// # Errors
    /// The kernel refuses the feature.
    pub fn set_checksum_offload(&self, on: bool) -> Result<()> {
        self.with_features(|features| features.set(&[(CHECKSUMS, on)]))
    }

    /// Merges what is received into trains, UDP too and also what is to be forwarded, or leaves packets single
    /// (`rx-gro` and `rx-udp-gro-forwarding`). Trains that the other end sends uncut stay trains.
    ///
    /// # Errors
    /// The kernel refuses a feature: the error names it.
    pub fn set_receive_offloads(&self, on: bool) -> Result<()> {
        self.with_features(|features| features.set(&[(GRO, on), (UDP_GRO_FORWARDING, on)]))
    }

    /// Sets how long the receiver waits for the rest of a train; zero: no longer than packets are at hand. Without
    /// [`Interface::set_receive_offloads`] it has no effect.
    ///
    /// # Errors
    /// The kernel refuses it, as it does in a user namespace for every change.
    pub fn set_gro_flush_timeout(&self, timeout: Duration) -> Result<()> {
        let (file, text) = (self.sysfs("gro_flush_timeout"), timeout.as_nanos().to_string());
        self.with_sysfs(|| {
            // A value that is there already needs no privilege.
            if read(&file)? == text { Ok(()) } else { write(&file, &text) }
        })
    }

    /// The features of the interface by the kernel's names, as `rx-gro` or `tx-udp-segmentation`, and whether each
    /// is in force.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn features(&self) -> Result<BTreeMap<String, bool>> {
        let all = self.with_features(Features::read)?;
        Ok(all.into_iter().map(|(name, feature)| (name, feature.on)).collect())
    }

    /// Lets these CPUs, numbered from 0, take what the interface receives, one flow always the same one (receive
    /// packet steering). With none the CPU that the packet came on takes it: on a veth pair, the sender's.
    ///
    /// # Errors
    /// The machine lacks one of the CPUs, or the kernel refuses a change, as it does in a user namespace.
    pub fn steer_receive(&self, cpus: &[usize]) -> Result<()> {
        let mask = mask_of(cpus)?;
        let mut wanted = cpus.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        self.with_sysfs(|| {
            for file in self.steering_files()? {
                if cpus_of(&read(&file)?)? == wanted {
                    continue;
                }
                write(&file, &mask)?;
                if cpus_of(&read(&file)?)? != wanted {
                    bail!("not all of the CPUs {wanted:?} are there to take what is received");
                }
            }
            Ok(())
        })
    }

    /// The CPUs that take what the interface receives, in ascending order: see [`Interface::steer_receive`].
    ///
    /// # Errors
    /// The interface is gone.
    pub fn receive_steering(&self) -> Result<Vec<usize>> {
        self.with_sysfs(|| {
            let mut cpus = Vec::new();
            for file in self.steering_files()? {
                cpus.extend(cpus_of(&read(&file)?)?);
            }
            cpus.sort_unstable();
            cpus.dedup();
            Ok(cpus)
        })
    }

    /// The mask of each receive queue; a veth interface has one queue unless told otherwise.
    fn steering_files(&self) -> Result<Vec<PathBuf>> {
        let queues = self.sysfs("queues");
        let mut files = Vec::new();
        for queue in fs::read_dir(&queues).with_context(|| format!("list {}", queues.display()))? {
            let queue = queue.with_context(|| format!("list {}", queues.display()))?;
            if queue.file_name().to_string_lossy().starts_with("rx-") {
                files.push(queue.path().join("rps_cpus"));
            }
        }
        files.sort();
        Ok(files)
    }

    fn sysfs(&self, file: &str) -> PathBuf {
        Path::new("/sys/class/net").join(self.name()).join(file)
    }

    fn with_features<T: Send>(&self, work: impl FnOnce(&Features) -> Result<T> + Send) -> Result<T> {
        let done = self.host().run(|| work(&Features::of(self.name())?));
        done.with_context(|| format!("features of {self:?}"))
    }

    /// Runs `work` inside the host with a `/sys` that shows the host's interfaces and can be written to.
    fn with_sysfs<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let done = self.host().run(|| {
            sys::cover_sysfs().context("mount a /sys of the host (a container that hides parts of /sys forbids it)")?;
            work()
        });
        done.with_context(|| format!("settings of {self:?}"))
    }
}

fn read(file: &Path) -> Result<String> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    Ok(text.trim().to_owned())
}

fn write(file: &Path, text: &str) -> Result<()> {
    let remedy = if world::has_user_namespace() {
        "; the kernel allows this to the machine's root only, in no user namespace: run as root"
    } else {
        ""
    };
    fs::write(file, text).with_context(|| format!("write {text:?} to {}{remedy}", file.display()))
}

/// The mask of CPUs as the kernel reads it: words of 32 bits in hexadecimal, the highest first.
fn mask_of(cpus: &[usize]) -> Result<String> {
    let highest = cpus.iter().copied().max().unwrap_or_default();
    if highest >= CPUS_MAX {
        bail!("there is no CPU {highest}: the highest number of any machine is {}", CPUS_MAX - 1);
    }
    let mut words = vec![0_u32; highest / 32 + 1];
    for cpu in cpus {
        words[cpu / 32] |= 1 << (cpu % 32);
    }
    Ok(words.iter().rev().map(|word| format!("{word:08x}")).collect::<Vec<_>>().join(","))
}

/// The CPUs of such a mask in ascending order.
fn cpus_of(mask: &str) -> Result<Vec<usize>> {
    let mut cpus = Vec::new();
    for (number, word) in mask.split(',').rev().enumerate() {
        let word = u32::from_str_radix(word, 16).with_context(|| format!("{mask:?} is not a mask of CPUs"))?;
        cpus.extend((0..32).filter(|bit| word >> bit & 1 == 1).map(|bit| number * 32 + bit));
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mode_is_read_as_it_is_written() {
        for mode in LinkMode::ALL {
            assert_eq!(mode.to_string().parse::<LinkMode>().unwrap(), mode);
        }
        assert!("Wire".parse::<LinkMode>().is_err() && "".parse::<LinkMode>().is_err());
    }

    #[test]
    fn mask_has_the_kernels_form_and_is_read_back() {
        let check = |cpus: &[usize], mask: &str| {
            assert_eq!(mask_of(cpus).unwrap(), mask);
            assert_eq!(cpus_of(mask).unwrap(), cpus);
        };
        check(&[], "00000000");
        check(&[0], "00000001");
        check(&[1, 31], "80000002");
        check(&[0, 32, 65], "00000002,00000001,00000001");
        assert_eq!(cpus_of("3").unwrap(), [0, 1]);
        assert!(mask_of(&[CPUS_MAX]).is_err() && cpus_of("x").is_err() && cpus_of("").is_err());
    }
}
