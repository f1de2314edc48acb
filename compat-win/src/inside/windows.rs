//! A Wintun adapter.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Command;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tun::{AsyncDevice, Configuration, Device};

/// How long Windows may take to bring a new adapter's IPv4 side up.
const INTERFACE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the virtual interface shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InsideConfig {
    /// Name of the adapter.
    pub name: String,
    /// Where `wintun.dll` lies, as an absolute path: a bare name would be searched for, and so could be planted.
    pub library: PathBuf,
    /// IPv4 address and prefix length in bits (0 to 32). `None` leaves the adapter's addresses and MTU alone.
    pub ipv4: Option<(Ipv4Addr, u8)>,
    /// IPv6 address and prefix length in bits.
    pub ipv6: Option<(Ipv6Addr, u8)>,
    /// Largest inner packet in bytes, at most 65,535.
    pub mtu: u16,
}

/// The virtual interface: one IP packet at a time. The adapter vanishes when this is dropped.
pub struct Inside {
    device: Option<Device>,
    registered: Option<AsyncDevice>,
}

impl std::fmt::Debug for Inside {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Inside").finish_non_exhaustive()
    }
}

impl Inside {
    /// Makes the adapter, or takes over the one of that name, and configures it.
    ///
    /// # Errors
    /// `InvalidInput` if the library's path is not absolute or the prefix too long, `NotFound` if the library is not there;
    /// otherwise what Wintun or Windows said (no administrator: `PermissionDenied`).
    pub fn open(config: &InsideConfig) -> io::Result<Self> {
        if !config.library.is_absolute() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path of wintun.dll must be absolute"));
        }
        if !config.library.is_file() {
            let text = format!("{} is not there", config.library.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        let mut device = Configuration::default();
        device.tun_name(&config.name);
        device.platform_config(|platform| {
            platform.wintun_file(config.library.as_os_str());
            platform.wait_for_interfaces(config.ipv4.is_some(), false, INTERFACE_TIMEOUT);
        });
        if let Some((address, prefix)) = config.ipv4 {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            device.address(address).netmask(Ipv4Addr::from(mask)).mtu(config.mtu).up();
        }
        let device = tun::create(&device).map_err(io::Error::from)?;
        if let Some((address, prefix)) = config.ipv6
            && let Err(error) = add_ipv6(&config.name, address, prefix)
        {
            tracing::warn!(interface = config.name, %address, %error, "the interface has no IPv6 address");
        }
        Ok(Self { device: Some(device), registered: None })
    }

    /// Registers with the runtime, within which this must be called.
    pub(crate) fn register(&mut self) -> io::Result<()> {
        if let Some(device) = self.device.take() {
            self.registered = Some(AsyncDevice::new(device)?);
        }
        Ok(())
    }

    /// Reads one packet, or fails with `WouldBlock` and wakes `waker` when there is one.
    pub(crate) fn read(&mut self, buffer: &mut [u8], waker: &Waker) -> io::Result<usize> {
        let device = self.registered.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let mut buffer = ReadBuf::new(buffer);
        match Pin::new(device).poll_read(&mut Context::from_waker(waker), &mut buffer) {
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            Poll::Ready(result) => result.map(|()| buffer.filled().len()),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Writes one packet.
    pub(crate) fn write(&mut self, packet: &[u8]) -> io::Result<()> {
        if packet.is_empty() || packet.len() > usize::from(u16::MAX) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // The device's own call: it tells a full ring from success, which the asynchronous one does not.
        let device: &Device = self.registered.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        device.send(packet).map(drop)
    }
}

/// Sets the largest inner packet of the adapter `name`, in bytes, until the next restart.
///
/// # Errors
/// What Windows said of one of the two families; the other one's is set all the same.
pub fn set_mtu(name: &str, bytes: u16) -> io::Result<()> {
    let set = |family: &str| {
        netsh(&["interface", family, "set", "subinterface", name, &format!("mtu={bytes}"), "store=active"])
    };
    let (ipv4, ipv6) = (set("ipv4"), set("ipv6"));
    ipv4.and(ipv6)
}

/// Adds an address until the next restart; the `tun` crate knows IPv4 only.
fn add_ipv6(name: &str, address: Ipv6Addr, prefix: u8) -> io::Result<()> {
    netsh(&["interface", "ipv6", "add", "address", name, &format!("{address}/{prefix}"), "store=active"])
}

fn netsh(line: &[&str]) -> io::Result<()> {
    let windows = std::env::var_os("SystemRoot").ok_or(io::ErrorKind::NotFound)?;
    let status = Command::new(PathBuf::from(windows).join("System32").join("netsh.exe")).args(line).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("netsh ended with {status}"))) }
}
