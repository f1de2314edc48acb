//! The laboratory: makes hosts and connects them.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};

use crate::emulation::Emulation;
use crate::emulator::EmulatedLink;
use crate::host::Host;
use crate::link::{Lan, Link, parse};
use crate::world;

/// A laboratory in the private world of this process. See the crate's documentation for an example.
///
/// It holds nothing itself: hosts end with their last handle, and everything ends with the process.
#[derive(Debug)]
pub struct Lab {
    name: String,
    taken: Mutex<BTreeSet<String>>,
}

impl Lab {
    /// A laboratory without hosts; `name` appears in messages.
    ///
    /// # Errors
    /// The process is not in a private world: call [`crate::enter`] or [`crate::isolated`] first.
    pub fn new(name: &str) -> Result<Lab> {
        if !world::inside() {
            bail!("the laboratory {name} needs a private world: call mesh_lab::enter or mesh_lab::isolated first");
        }
        Ok(Lab { name: name.to_owned(), taken: Mutex::new(BTreeSet::new()) })
    }

    /// The name given when the laboratory was made.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A host with a loopback interface and nothing else.
    ///
    /// # Errors
    /// The name is taken or not of letters, digits and dashes, or the kernel refuses the namespaces.
    pub fn host(&self, name: &str) -> Result<Host> {
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            bail!("{name:?} is not a name of letters, digits and dashes");
        }
        if !self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned()) {
            bail!("the laboratory {} already has a host {name}", self.name);
        }
        Host::new(name)
    }

    /// A host that forwards packets between its interfaces, IPv4 and IPv6.
    ///
    /// # Errors
    /// As [`Lab::host`].
    pub fn router(&self, name: &str) -> Result<Host> {
        let host = self.host(name)?;
        for knob in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            host.sysctl(knob, "1")?;
        }
        Ok(host)
    }

    /// A cable between two hosts: a new interface in each, up, with one address of each of `nets` (as
    /// `10.1.0.0/24` or `fd01::/64`): number 1 for `a`, number 2 for `b`.
    ///
    /// # Errors
    /// A network is malformed or too small, or the kernel refuses the interfaces.
    pub fn link(&self, a: &Host, b: &Host, nets: &[&str]) -> Result<Link> {
        Link::new(a, b, &parse(nets)?).with_context(|| format!("link {} and {}", a.name(), b.name()))
    }

    /// A link that delays, loses or throttles what passes, in each direction as `emulation` says until
    /// [`EmulatedLink::set`] says otherwise: a new interface in each host, up, with the addresses of [`Lab::link`].
    ///
    /// # Errors
    /// As [`Lab::link`], or a value of `emulation` is out of its range.
    pub fn emulated_link(&self, a: &Host, b: &Host, nets: &[&str], emulation: Emulation) -> Result<EmulatedLink> {
        let link = EmulatedLink::new(a, b, &parse(nets)?, emulation);
        link.with_context(|| format!("link {} and {} through an emulator", a.name(), b.name()))
    }

    /// A switch with a cable to each host: a new interface in each, up, with one address of each of `nets` (as
    /// `10.1.0.0/24` or `fd01::/64`), numbered from 1 in the order of `hosts`.
    ///
    /// # Errors
    /// A network is malformed or too small, or the kernel refuses the interfaces.
    pub fn lan(&self, hosts: &[&Host], nets: &[&str]) -> Result<Lan> {
        Lan::new(hosts, &parse(nets)?).with_context(|| format!("connect {} hosts to a switch", hosts.len()))
    }
}
