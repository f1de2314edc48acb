//! The virtual interface: opening it and giving it its name, addresses and MTU.
//!
//! Reading and writing packets is the engines' work. The interface vanishes when its device is dropped.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use mesh_core::seam::Offloads;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod offload;
#[cfg(target_os = "linux")]
mod sys;
#[cfg(windows)]
mod windows;

/// Name of the interface if nothing else is asked for.
pub const NAME: &str = "mesh0";

/// Smallest MTU with which an interface may have IPv6 (RFC 8200, section 5); below it Linux removes the addresses for good.
pub const MTU_IPV6_MIN: u32 = 1280;

/// What the virtual interface shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InsideConfig {
    /// Name to try first; if it is taken, the next free number after it. `None`: [`NAME`].
    pub name_hint: Option<String>,
    /// Virtual address.
    pub ipv4: Ipv4Addr,
    /// Length of the network's prefix in bits, 1 to 32.
    pub prefix: u8,
    /// IPv6 address with the length of its prefix in bits, 1 to 128. Where IPv6 is off, the interface does without.
    pub ula: Option<(Ipv6Addr, u8)>,
    /// Largest inner packet in bytes, 68 to 65,535.
    pub mtu: u32,
    /// Whether the system may leave segments and checksums to it, where it can.
    pub offload: bool,
}

/// An open virtual interface, up and configured.
#[derive(Debug)]
pub struct InsideDevice {
    /// A TUN queue without packet information, with a virtio-net header if it has offloads, non-blocking.
    #[cfg(target_os = "linux")]
    pub fd: std::os::fd::OwnedFd,
    /// The Wintun adapter.
    #[cfg(windows)]
    pub device: compat_win::Inside,
    /// Name of the interface.
    pub name: String,
    /// The IPv6 address, if it was set.
    pub ula: Option<Ipv6Addr>,
    /// What it does by itself.
    pub offloads: Offloads,
}

/// Why there is no virtual interface. Each message names the cause and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum InsideError {
    /// A value of the configuration is out of range.
    #[error("the virtual interface cannot have {0}")]
    Invalid(String),
    /// The system has no TUN driver.
    #[cfg(target_os = "linux")]
    #[error(
        "there is no /dev/net/tun: load the driver with `modprobe tun`; in a container, pass the device in (--device /dev/net/tun)"
    )]
    NoDriver,
    /// Something else is in the place of the TUN driver.
    #[cfg(target_os = "linux")]
    #[error(
        "/dev/net/tun is not the TUN driver: remove it and run `mknod /dev/net/tun c 10 200`; in a container, pass the device in (--device /dev/net/tun)"
    )]
    NotDriver,
    /// `wintun.dll` is missing.
    #[cfg(windows)]
    #[error("{0} is missing: put the wintun.dll that came with the program beside it")]
    NoDriver(std::path::PathBuf),
    /// The program may not make interfaces.
    #[cfg(target_os = "linux")]
    #[error(
        "not allowed to {doing}: run as root, or give the program CAP_NET_ADMIN (`setcap cap_net_admin+ep PROGRAM`)"
    )]
    NotPermitted {
        /// What was refused.
        doing: String,
    },
    /// The program may not make interfaces.
    #[cfg(windows)]
    #[error("not allowed to {doing}: run as Administrator")]
    NotPermitted {
        /// What was refused.
        doing: String,
    },
    /// Every name is taken.
    #[error("no free interface name from {first} to {last}: stop programs that hold them, or choose another name")]
    NoFreeName {
        /// First name tried.
        first: String,
        /// Last name tried.
        last: String,
    },
    /// The system refused for a reason of its own.
    #[error("cannot {doing}: {cause}")]
    System {
        /// What was refused.
        doing: String,
        /// What the system said.
        cause: io::Error,
    },
}

impl InsideError {
    fn system(doing: impl Into<String>, cause: impl Into<io::Error>) -> Self {
        let (doing, cause) = (doing.into(), cause.into());
        if cause.kind() == io::ErrorKind::PermissionDenied {
            return Self::NotPermitted { doing };
        }
        Self::System { doing, cause }
    }
}

impl InsideDevice {
    /// Makes the interface, gives it its addresses and MTU, and brings it up.
    ///
    /// # Errors
    /// No driver, no permission, no free name, a value out of range, or what the system said. Only IPv6 may be missing
    /// without an error; the log says so.
    pub fn open(config: &InsideConfig) -> Result<Self, InsideError> {
        config.check()?;
        #[cfg(target_os = "linux")]
        return linux::open(config);
        #[cfg(windows)]
        return windows::open(config);
    }
}

#[cfg(target_os = "linux")]
impl InsideDevice {
    /// The same device once more, for another engine.
    ///
    /// # Errors
    /// Too many open files.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()?, name: self.name.clone(), ula: self.ula, offloads: self.offloads })
    }
}

#[cfg(windows)]
impl InsideDevice {
    /// The same device once more, for another engine.
    ///
    /// # Errors
    /// `Unsupported`, always: Wintun's rings are one thread's.
    pub fn try_clone(&self) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Sets the MTU of the interface `name`, while it is open, in bytes.
///
/// # Errors
/// What the system said; also when it would lose its IPv6 addresses by so small a value.
pub fn set_mtu(name: &str, bytes: u16) -> io::Result<()> {
    if u32::from(bytes) < MTU_IPV6_MIN {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "less than IPv6 needs"));
    }
    #[cfg(target_os = "linux")]
    return sys::set_mtu(name, bytes).map(|()| linux::set_limits(name, bytes.into())).map_err(io::Error::from);
    #[cfg(windows)]
    return compat_win::set_mtu(name, bytes);
}

impl InsideConfig {
    fn check(&self) -> Result<(), InsideError> {
        if !(1..=32).contains(&self.prefix) {
            return Err(InsideError::Invalid(format!("an IPv4 prefix of {} bits (1 to 32)", self.prefix)));
        }
        if let Some((_, prefix)) = self.ula
            && !(1..=128).contains(&prefix)
        {
            return Err(InsideError::Invalid(format!("an IPv6 prefix of {prefix} bits (1 to 128)")));
        }
        if !(68..=65_535).contains(&self.mtu) {
            return Err(InsideError::Invalid(format!("an MTU of {} bytes (68 to 65535)", self.mtu)));
        }
        Ok(())
    }

    /// The IPv6 address, unless the MTU rules it out.
    fn usable_ula(&self) -> Option<(Ipv6Addr, u8)> {
        if self.ula.is_some() && self.mtu < MTU_IPV6_MIN {
            tracing::warn!(mtu = self.mtu, "no IPv6 on the virtual interface: its MTU is below {MTU_IPV6_MIN} bytes");
            return None;
        }
        self.ula
    }
}

/// `hint`, then the same name with the numbers after it.
#[cfg(target_os = "linux")]
fn names(hint: &str, count: u32) -> impl Iterator<Item = String> + '_ {
    let stem = hint.trim_end_matches(|last: char| last.is_ascii_digit());
    let number = hint[stem.len()..].parse::<u32>().ok();
    let next = number.map_or(0, |number| number.saturating_add(1));
    std::iter::once(hint.to_owned())
        .chain((next..next.saturating_add(count)).map(move |number| format!("{stem}{number}")))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn names_count_on_from_the_hint() {
        let first = |hint| names(hint, 2).collect::<Vec<_>>();
        assert_eq!(first("mesh0"), ["mesh0", "mesh1", "mesh2"]);
        assert_eq!(first("mesh7"), ["mesh7", "mesh8", "mesh9"]);
        assert_eq!(first("vpn"), ["vpn", "vpn0", "vpn1"]);
    }

    #[test]
    fn values_out_of_range_are_named() {
        let good = InsideConfig {
            name_hint: None,
            ipv4: [10, 9, 0, 1].into(),
            prefix: 16,
            ula: None,
            mtu: 1400,
            offload: false,
        };
        let text = |config: InsideConfig| InsideDevice::open(&config).expect_err("out of range").to_string();
        assert!(text(InsideConfig { prefix: 0, ..good.clone() }).contains("prefix of 0"));
        assert!(text(InsideConfig { prefix: 33, ..good.clone() }).contains("prefix of 33"));
        assert!(text(InsideConfig { mtu: 67, ..good.clone() }).contains("MTU of 67"));
        assert!(text(InsideConfig { mtu: 65_536, ..good.clone() }).contains("MTU of 65536"));
        assert!(text(InsideConfig { name_hint: Some("a/b".into()), ..good.clone() }).contains("a/b"));
        assert!(text(InsideConfig { name_hint: Some("sixteen-letters-".into()), ..good }).contains("sixteen"));
    }
}
