//! The features of an interface by their names, as `ethtool --show-features` has them: the `SIOCETHTOOL` requests.
#![expect(unsafe_code, reason = "the ioctl SIOCETHTOOL has no safe wrapper")]

use std::collections::BTreeMap;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;

/// Which set of names is asked for: those of the features (`ETH_SS_FEATURES`).
const FEATURE_NAMES: u32 = 4;

/// Bytes of a name, filled up with zeros (`ETH_GSTRING_LEN`).
const NAME_BYTES: usize = 32;

/// Most names a kernel may claim to have; those of today have some sixty.
const NAMES_MAX: u32 = 1024;

/// The requests of `linux/ethtool.h`, the first word of what is passed.
const GET_STRINGS: u32 = 0x1b;
const GET_STRING_COUNTS: u32 = 0x37;
const GET_FEATURES: u32 = 0x3a;
const SET_FEATURES: u32 = 0x3b;

/// A feature of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Feature {
    /// Whether it is in force.
    pub(crate) on: bool,
    /// Whether it can be switched.
    pub(crate) changeable: bool,
}

/// The features of one interface of the calling thread's network namespace.
pub(crate) struct Features {
    socket: OwnedFd,
    interface: String,
    /// In the order of their bits; places without a feature have no name.
    names: Vec<String>,
}

impl Features {
    /// Asks for the names.
    ///
    /// # Errors
    /// There is no such interface.
    pub(crate) fn of(interface: &str) -> Result<Features> {
        // Any socket will do; it says which network namespace is meant.
        let socket = UdpSocket::bind("127.0.0.1:0").context("open a socket")?;
        let mut features = Features { socket: socket.into(), interface: interface.to_owned(), names: Vec::new() };
        features.names = features.read_names().with_context(|| format!("ask for the features of {interface}"))?;
        Ok(features)
    }

    /// Every feature with its name.
    ///
    /// # Errors
    /// The interface is gone.
    pub(crate) fn read(&self) -> Result<BTreeMap<String, Feature>> {
        let blocks = self.blocks();
        let mut request = vec![0; 2 + 4 * blocks];
        (request[0], request[1]) = (GET_FEATURES, blocks as u32);
        // SAFETY: the kernel writes at most as many blocks of four words as the second word says, and there is room.
        unsafe { self.request(&mut request) }.with_context(|| format!("ask for the features of {}", self.interface))?;
        let feature = |bit: usize| {
            // The words of a block: available, requested, active, never to be changed.
            let word = |number: usize| request[2 + bit / 32 * 4 + number] >> (bit % 32) & 1 == 1;
            Feature { on: word(2), changeable: word(0) && !word(3) }
        };
        let named = self.names.iter().enumerate().filter(|(_, name)| !name.is_empty());
        Ok(named.map(|(bit, name)| (name.clone(), feature(bit))).collect())
    }

    /// Switches features and checks that each is as asked for. A name with the value it has already is no change.
    ///
    /// # Errors
    /// A feature does not exist or cannot be switched: the error names it.
    pub(crate) fn set(&self, wanted: &[(&str, bool)]) -> Result<()> {
        let blocks = self.blocks();
        let mut request = vec![0; 2 + 2 * blocks];
        (request[0], request[1]) = (SET_FEATURES, blocks as u32);
        for (name, on) in wanted {
            let bit = self.names.iter().position(|known| known == name);
            let bit = bit.with_context(|| format!("the kernel knows no feature {name} of interfaces"))?;
            // The words of a block: which bits count, and their values.
            let block = 2 + bit / 32 * 2;
            request[block] |= 1 << (bit % 32);
            request[block + 1] |= u32::from(*on) << (bit % 32);
        }
        // SAFETY: the kernel reads as many blocks of two words as the second word says, and there are as many.
        unsafe { self.request(&mut request) }
            .with_context(|| format!("switch features of {}: {}", self.interface, list(wanted)))?;
        // The kernel takes a wish that it cannot fulfil for a success.
        let features = self.read()?;
        let refused = |&(name, on): &(&str, bool)| features.get(name).is_none_or(|feature| feature.on != on);
        let refused: Vec<_> = wanted.iter().copied().filter(refused).collect();
        if !refused.is_empty() {
            bail!("the driver of {} does not switch {}", self.interface, list(&refused));
        }
        Ok(())
    }

    fn blocks(&self) -> usize {
        self.names.len().div_ceil(32)
    }

    fn read_names(&self) -> Result<Vec<String>> {
        // Command, reserved, a mask of sets in 64 bits, and one count for the one set in the mask.
        let mut counts = [GET_STRING_COUNTS, 0, 0, 0, 0];
        counts[2..4].copy_from_slice(&words_of(1 << FEATURE_NAMES));
        // SAFETY: one bit of the mask is set, so that the kernel writes one count after the mask, which has room.
        unsafe { self.request(&mut counts) }?;
        let count = counts[4];
        if count == 0 || count > NAMES_MAX {
            bail!("the kernel claims to have {count} features");
        }
        let mut request = vec![0; 3 + count as usize * NAME_BYTES / 4];
        (request[0], request[1], request[2]) = (GET_STRINGS, FEATURE_NAMES, count);
        // SAFETY: the kernel writes all its names, of 32 bytes each. Their number is a constant of the running kernel,
        // which it has just told, and there is room for that many.
        unsafe { self.request(&mut request) }?;
        let bytes: Vec<u8> = request[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let text = |name: &[u8]| String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
        Ok(bytes.chunks(NAME_BYTES).map(text).collect())
    }

    /// Makes one request.
    ///
    /// # Safety
    /// `data` must begin with a request's number and be as long as the kernel reads and writes for it.
    unsafe fn request(&self, data: &mut [u32]) -> io::Result<()> {
        let mut name = [0; libc::IFNAMSIZ];
        if self.interface.len() >= name.len() {
            return Err(Errno::ENODEV.into());
        }
        for (to, from) in name.iter_mut().zip(self.interface.bytes()) {
            *to = from as libc::c_char;
        }
        let data = libc::__c_anonymous_ifr_ifru { ifru_data: data.as_mut_ptr().cast() };
        let mut request = libc::ifreq { ifr_name: name, ifr_ifru: data };
        // SAFETY: SIOCETHTOOL takes a struct ifreq with a name and a pointer to the data of the request, which the
        // caller vouches for; both outlive the call.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
        Errno::result(result)?;
        Ok(())
    }
}

/// The two words of a `u64` as they lie in memory.
fn words_of(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_ne_bytes();
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
}

fn list(features: &[(&str, bool)]) -> String {
    let text = |(name, on): &(&str, bool)| format!("{name} {}", if *on { "on" } else { "off" });
    features.iter().map(text).collect::<Vec<_>>().join(", ")
}
