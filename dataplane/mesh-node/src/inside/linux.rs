//! A TUN interface. The queue is opened here, because offloads are asked for at that moment; addresses are set through the `tun` crate, which adopts the descriptor without owning it.

use std::fs::OpenOptions;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use mesh_core::seam::Offloads;
use nix::errno::Errno;
use nix::libc;
use tun::AbstractDevice;

use super::{InsideConfig, InsideDevice, InsideError, NAME, names, offload, sys};
use crate::iface;

/// How many numbers are tried after the first name.
const NAMES_MAX: u32 = 256;

/// Interface names have at most 15 bytes.
const NAME_BYTES_MAX: usize = libc::IFNAMSIZ - 1;

/// Packets that wait in the interface for the gateway to read them, as many as on Ethernet.
const QUEUE_PACKETS: u32 = 1000;

const DRIVER: &str = "/dev/net/tun";

pub(super) fn open(config: &InsideConfig) -> Result<InsideDevice, InsideError> {
    let hint = config.name_hint.as_deref().unwrap_or(NAME);
    check_name(hint)?;
    if config.offload {
        match open_as(hint, config, true) {
            // An interface that cannot be had with offloads is tried without, and that says what is wrong.
            Err(error) => tracing::info!(%error, "no virtual interface with offloads"),
            opened => return opened,
        }
    }
    open_as(hint, config, false)
}

/// Opens one with offloads, or without.
fn open_as(hint: &str, config: &InsideConfig, offload: bool) -> Result<InsideDevice, InsideError> {
    let (fd, name) = create(hint, offload)?;
    let refused = |error| InsideError::system(format!("use the offloads of {name}"), error);
    let offloads = if offload { offload::enable(&fd).map_err(refused)? } else { Offloads::NONE };
    configure(&fd, &name, config)?;
    if offload {
        offload::try_out(&fd, offloads).map_err(refused)?;
        set_limits(&name, config.mtu);
    }
    let ula = config.usable_ula().filter(|(address, prefix)| add_ipv6(&name, *address, *prefix));
    Ok(InsideDevice { fd, name, ula: ula.map(|(address, _)| address), offloads })
}

/// Has what the system makes of several segments fit one train, and room for some of them to wait. Without it trains are cut in two.
pub(super) fn set_limits(name: &str, mtu: u32) {
    if let Err(error) = iface::set_limits(name, offload::segments_max(mtu), QUEUE_PACKETS) {
        tracing::info!(interface = name, %error, "the interface's limits are not set");
    }
}

fn check_name(name: &str) -> Result<(), InsideError> {
    let plain = name.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%'));
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !plain || name == "." || name == ".." {
        return Err(InsideError::Invalid(format!(
            "the name {name:?} (1 to {NAME_BYTES_MAX} letters, digits, '-', '_' or '.')"
        )));
    }
    Ok(())
}

/// Opens a queue of a new interface under the first free name.
fn create(hint: &str, header: bool) -> Result<(OwnedFd, String), InsideError> {
    let mut last = hint.to_owned();
    for name in names(hint, NAMES_MAX).filter(|name| name.len() <= NAME_BYTES_MAX) {
        last.clone_from(&name);
        // An interface of another kind, or a persistent one that belongs to someone.
        if nix::net::if_::if_nametoindex(name.as_str()).is_ok() {
            continue;
        }
        let fd = open_driver()?;
        match sys::attach(&fd, &name, header) {
            Ok(()) => return Ok((fd, name)),
            // A kernel without that header; another name would not help.
            Err(error @ Errno::EINVAL) if header => {
                return Err(InsideError::system(format!("make the interface {name} with a virtio-net header"), error));
            }
            // Taken since it was looked for.
            Err(Errno::EBUSY | Errno::EEXIST | Errno::EINVAL) => {}
            // A file, or another device.
            Err(Errno::ENOTTY) => return Err(InsideError::NotDriver),
            Err(error) => return Err(InsideError::system(format!("make the interface {name}"), error)),
        }
    }
    Err(InsideError::NoFreeName { first: hint.to_owned(), last })
}

fn open_driver() -> Result<OwnedFd, InsideError> {
    let opened = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DRIVER);
    match opened {
        Ok(file) => Ok(OwnedFd::from(file)),
        Err(error) => {
            let driver_missing = error.kind() == io::ErrorKind::NotFound
                || matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO));
            Err(if driver_missing {
                InsideError::NoDriver
            } else {
                InsideError::system(format!("open {DRIVER}"), error)
            })
        }
    }
}

/// IPv4 address, mask, MTU, and up.
fn configure(fd: &OwnedFd, name: &str, config: &InsideConfig) -> Result<(), InsideError> {
    let failed =
        |error: tun::Error| InsideError::system(format!("configure the interface {name}"), io::Error::from(error));
    let mask = Ipv4Addr::from(u32::MAX << (32 - u32::from(config.prefix)));
    let mtu = u16::try_from(config.mtu).expect("the configuration was checked");
    let mut wanted = tun::Configuration::default();
    wanted.raw_fd(fd.as_raw_fd()).close_fd_on_drop(false);
    wanted.tun_name(name).address(config.ipv4).netmask(mask).mtu(mtu).up();
    // Adopting a descriptor configures nothing by itself.
    let mut device = tun::create(&wanted).map_err(failed)?;
    device.configure(&wanted).map_err(failed)
}

/// Adds the IPv6 address, or says why there is none.
fn add_ipv6(name: &str, address: Ipv6Addr, prefix: u8) -> bool {
    match sys::add_ipv6(name, address, prefix) {
        Ok(()) => true,
        Err(Errno::EACCES | Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP) => {
            tracing::info!(interface = name, "IPv6 is disabled on this host: the virtual interface has IPv4 only");
            false
        }
        Err(error) => {
            tracing::warn!(interface = name, %address, %error, "cannot set the IPv6 address: IPv4 only");
            false
        }
    }
}
