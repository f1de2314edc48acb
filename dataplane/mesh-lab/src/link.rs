//! Cables and switches: veth pairs between hosts, and a bridge in a namespace of its own.

use std::any::Any;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Error, Result, bail};

use crate::host::Host;
use crate::netlink;

/// A network, or an address in one: `10.1.0.7/24`, `fd01::7/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    address: IpAddr,
    prefix: u8,
}

impl Net {
    /// The address before the slash.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// The length of the prefix in bits: 0 to 32, or to 128 for IPv6.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether `address` lies in the network.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        let differ = |bits: u8, difference: u128| self.prefix != 0 && difference >> (bits - self.prefix) != 0;
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => !differ(32, u128::from(own.to_bits() ^ other.to_bits())),
            (IpAddr::V6(own), IpAddr::V6(other)) => !differ(128, own.to_bits() ^ other.to_bits()),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// The `number`-th address of the network, counted from its first.
    ///
    /// # Errors
    /// The network ends before.
    pub fn nth(self, number: u32) -> Result<Net> {
        let (prefix, host_bits) = (self.prefix, if self.address.is_ipv4() { 32 } else { 128 } - u32::from(self.prefix));
        if host_bits < 32 && number >> host_bits != 0 {
            bail!("{self} has no address number {number}");
        }
        let address = match self.address {
            IpAddr::V4(first) => IpAddr::V4(Ipv4Addr::from_bits(first.to_bits() | number)),
            IpAddr::V6(first) => IpAddr::V6(Ipv6Addr::from_bits(first.to_bits() | u128::from(number))),
        };
        Ok(Net { address, prefix })
    }
}

impl FromStr for Net {
    type Err = Error;

    fn from_str(text: &str) -> Result<Net> {
        let (address, prefix) = text.split_once('/').with_context(|| format!("{text:?} lacks a /prefix"))?;
        let address: IpAddr = address.parse().with_context(|| format!("{text:?} does not begin with an address"))?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= bits);
        Ok(Net { address, prefix: prefix.with_context(|| format!("{text:?} has no prefix of 0 to {bits}"))? })
    }
}

impl fmt::Display for Net {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

/// Something that an interface keeps alive.
pub(crate) type Kept = Arc<dyn Any + Send + Sync>;

/// What the laboratory knows of an interface; the host keeps it, so it must not keep the host.
pub(crate) struct Record {
    name: String,
    addresses: Mutex<Vec<Net>>,
    up: AtomicBool,
    /// Whether it is the outside of a [`crate::Nat::FullCone`].
    cone: AtomicBool,
    /// What is at the other end and lives as long as a host on it does: a switch, an emulator.
    _keeps: Option<Kept>,
}

impl Record {
    pub(crate) fn new(name: String, keeps: Option<Kept>) -> Arc<Record> {
        let (up, cone) = (AtomicBool::new(true), AtomicBool::new(false));
        Arc::new(Record { name, addresses: Mutex::default(), up, cone, _keeps: keeps })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn addresses(&self) -> MutexGuard<'_, Vec<Net>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A network interface of a host: one end of a cable.
#[derive(Clone)]
pub struct Interface {
    host: Host,
    record: Arc<Record>,
}

impl fmt::Debug for Interface {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Interface({} of {})", self.record.name, self.host.name())
    }
}

impl Interface {
    pub(crate) fn new(host: &Host, record: &Arc<Record>) -> Interface {
        Interface { host: host.clone(), record: Arc::clone(record) }
    }

    /// The host it belongs to.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its name in the host: `eth0`, `eth1` and so on.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// The addresses it was given, with the prefixes of their networks.
    #[must_use]
    pub fn addresses(&self) -> Vec<Net> {
        self.record.addresses().clone()
    }

    /// Adds an address, as `10.1.0.7/24`; it is usable at once.
    ///
    /// # Errors
    /// It is malformed, or the interface has it already.
    pub fn add_address(&self, address: &str) -> Result<()> {
        let address: Net = address.parse()?;
        self.add_addresses(&[address])?;
        if self.is_up() { netlink::wait_until_local(&self.host, &[address]) } else { Ok(()) }
    }

    pub(crate) fn add_addresses(&self, addresses: &[Net]) -> Result<()> {
        netlink::add_addresses(&self.host, self.name(), addresses)?;
        self.record.addresses().extend_from_slice(addresses);
        Ok(())
    }

    /// Takes an address away. With its last IPv4 address the interface loses the IPv4 routes through it.
    ///
    /// # Errors
    /// The interface does not have it.
    pub fn remove_address(&self, address: &str) -> Result<()> {
        let address: Net = address.parse()?;
        netlink::remove_address(&self.host, self.name(), address)?;
        self.record.addresses().retain(|own| *own != address);
        Ok(())
    }

    /// Takes all addresses away and gives these instead, as `10.1.0.7/24`, while the interface runs: what a host sees
    /// that gets a new lease. Routes that [`Host::route`] had set stay if the new addresses reach their gateway.
    ///
    /// # Errors
    /// One is malformed.
    pub fn set_addresses(&self, addresses: &[&str]) -> Result<()> {
        let addresses = parse(addresses)?;
        for own in self.addresses() {
            netlink::remove_address(&self.host, self.name(), own)?;
        }
        self.record.addresses().clear();
        self.add_addresses(&addresses)?;
        if self.is_up() {
            netlink::wait_until_local(&self.host, &addresses)?;
        }
        self.host.restore_routes()
    }

    /// Sets the largest packet in bytes, 68 to 65,535; below 1280 the interface loses IPv6. Set both ends of a cable.
    ///
    /// # Errors
    /// The kernel refuses the size.
    pub fn set_mtu(&self, bytes: u32) -> Result<()> {
        netlink::change_link(&self.host, self.name(), |link| link.mtu(bytes))
    }

    /// Sets how many packets may wait to be sent; 0 means none, and then a full receiver drops at once.
    ///
    /// # Errors
    /// The kernel refuses the length.
    pub fn set_tx_queue(&self, packets: u32) -> Result<()> {
        netlink::change_link(&self.host, self.name(), |link| link.txqueuelen(packets))
    }

    /// Switches the interface off. The host loses the routes through it; the other end loses the carrier.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn down(&self) -> Result<()> {
        netlink::change_link(&self.host, self.name(), |link| link.down())?;
        self.record.up.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Switches the interface on again, puts back the routes that [`Host::route`] had set, and returns when the cable
    /// carries packets, unless its other end is switched off or pulled out.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn up(&self) -> Result<()> {
        self.switch_on()?;
        if netlink::has_carrier(&self.host, self.name())? {
            self.wait_until_running()?;
        }
        self.host.restore_routes()
    }

    fn switch_on(&self) -> Result<()> {
        netlink::change_link(&self.host, self.name(), |link| link.up())?;
        self.record.up.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn wait_until_running(&self) -> Result<()> {
        netlink::wait_until_running(&self.host, self.name())?;
        netlink::wait_until_local(&self.host, &self.addresses())
    }

    pub(crate) fn is_up(&self) -> bool {
        self.record.up.load(Ordering::Relaxed)
    }

    pub(crate) fn has_cone(&self) -> bool {
        self.record.cone.load(Ordering::Relaxed)
    }

    pub(crate) fn set_cone(&self, cone: bool) {
        self.record.cone.store(cone, Ordering::Relaxed);
    }

    pub(crate) fn reaches(&self, address: IpAddr) -> bool {
        self.record.addresses().iter().any(|net| net.contains(address))
    }
}

/// A cable between two hosts. It stays when this handle goes.
#[derive(Debug)]
pub struct Link {
    a: Interface,
    b: Interface,
}

impl Link {
    pub(crate) fn new(a: &Host, b: &Host, nets: &[Net]) -> Result<Link> {
        let link = Link::join(a.next_interface(None), b.next_interface(None))?;
        link.a.add_addresses(&nth_of_each(nets, 1)?)?;
        link.b.add_addresses(&nth_of_each(nets, 2)?)?;
        link.wait_until_running()?;
        Ok(link)
    }

    /// Makes the cable between two interfaces that are still names only, and switches both on.
    pub(crate) fn join(a: Interface, b: Interface) -> Result<Link> {
        let link = Link { a, b };
        netlink::add_cable(netlink::End::of(&link.a), netlink::End::of(&link.b))?;
        link.a.switch_on()?;
        link.b.switch_on()?;
        Ok(link)
    }

    /// The end in the first host.
    #[must_use]
    pub fn a(&self) -> &Interface {
        &self.a
    }

    /// The end in the second host.
    #[must_use]
    pub fn b(&self) -> &Interface {
        &self.b
    }

    /// Sets the largest packet in bytes on both ends: see [`Interface::set_mtu`].
    ///
    /// # Errors
    /// The kernel refuses the size.
    pub fn set_mtu(&self, bytes: u32) -> Result<()> {
        self.a.set_mtu(bytes)?;
        self.b.set_mtu(bytes)
    }

    /// Switches both ends off.
    ///
    /// # Errors
    /// An interface is gone.
    pub fn down(&self) -> Result<()> {
        self.a.down()?;
        self.b.down()
    }

    /// Switches both ends on again, with their addresses and routes, and returns when they carry packets.
    ///
    /// # Errors
    /// An interface is gone.
    pub fn up(&self) -> Result<()> {
        self.a.switch_on()?;
        self.b.switch_on()?;
        self.wait_until_running()?;
        self.a.host.restore_routes()?;
        self.b.host.restore_routes()
    }

    pub(crate) fn wait_until_running(&self) -> Result<()> {
        self.a.wait_until_running()?;
        self.b.wait_until_running()
    }
}

/// Hosts on one switch. It stays when this handle goes, as long as one of its hosts does.
#[derive(Debug)]
pub struct Lan {
    switch: Host,
    ports: Vec<Interface>,
}

impl Lan {
    pub(crate) fn new(hosts: &[&Host], nets: &[Net]) -> Result<Lan> {
        let switch = Host::new("switch")?;
        // A switch is no party to the traffic: without this its ports would send IPv6 multicasts of their own.
        switch.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        netlink::add_bridge(&switch)?;
        let mut lan = Lan { switch, ports: Vec::new() };
        let addresses = (1..).take(hosts.len()).map(|number| nth_of_each(nets, number)).collect::<Result<Vec<_>>>()?;
        lan.connect(hosts, &addresses)?;
        Ok(lan)
    }

    /// Connects one more host: a new interface in it, up, with these addresses, as `10.1.0.7/24`.
    ///
    /// # Errors
    /// An address is malformed, or the kernel refuses the interface.
    pub fn attach(&mut self, host: &Host, addresses: &[&str]) -> Result<Interface> {
        let connected = self.connect(&[host], &[parse(addresses)?]);
        connected.with_context(|| format!("connect {} to a switch", host.name()))?;
        Ok(self.ports[self.ports.len() - 1].clone())
    }

    /// Makes a port for each of `hosts`, which gets its part of `addresses`.
    fn connect(&mut self, hosts: &[&Host], addresses: &[Vec<Net>]) -> Result<()> {
        let (switch, first) = (&self.switch, self.ports.len());
        let ports: Vec<_> = hosts.iter().map(|host| host.next_interface(Some(Arc::new(switch.clone())))).collect();
        netlink::add_bridge_ports(switch, first, &ports)?;
        for (port, addresses) in ports.iter().zip(addresses) {
            port.switch_on()?;
            port.add_addresses(addresses)?;
        }
        for (port, number) in ports.iter().zip(first..) {
            port.wait_until_running()?;
            netlink::wait_until_running(switch, &port_name(number))?;
        }
        self.ports.extend(ports);
        Ok(())
    }

    /// The hosts' interfaces, in the order the hosts were given and attached.
    #[must_use]
    pub fn ports(&self) -> &[Interface] {
        &self.ports
    }

    /// The switch, a host without addresses: a capture on its ports `p0`, `p1`, ... or on `br0` sees what passes.
    #[must_use]
    pub fn switch(&self) -> &Host {
        &self.switch
    }

    /// Sets the largest packet in bytes on every cable: see [`Interface::set_mtu`].
    ///
    /// # Errors
    /// The kernel refuses the size.
    pub fn set_mtu(&self, bytes: u32) -> Result<()> {
        for (number, port) in self.ports.iter().enumerate() {
            netlink::change_link(&self.switch, &port_name(number), |link| link.mtu(bytes))?;
            port.set_mtu(bytes)?;
        }
        Ok(())
    }

    /// Pulls a host's cable at the switch: the host loses the carrier but keeps its addresses and routes.
    ///
    /// # Errors
    /// The host is not on this switch.
    pub fn unplug(&self, host: &Host) -> Result<()> {
        netlink::change_link(&self.switch, &self.port_of(host)?.1, |link| link.down())
    }

    /// Puts the cable back, and returns when it carries packets.
    ///
    /// # Errors
    /// The host is not on this switch.
    pub fn plug(&self, host: &Host) -> Result<()> {
        let (number, name) = self.port_of(host)?;
        netlink::change_link(&self.switch, &name, |link| link.up())?;
        netlink::wait_until_running(&self.switch, &name)?;
        self.ports[number].wait_until_running()
    }

    /// Takes a host's interface away, as a card that is pulled or a driver that is unloaded.
    ///
    /// # Errors
    /// The host is not on this switch, or its interface is away already.
    pub fn remove(&self, host: &Host) -> Result<()> {
        let port = &self.ports[self.port_of(host)?.0];
        netlink::remove_link(host, port.name())?;
        port.record.up.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Gives a host its interface back: a new one of the same name, with the addresses and routes that the one before had. Returns when
    /// it carries packets.
    ///
    /// # Errors
    /// The host is not on this switch, or has its interface.
    pub fn restore(&self, host: &Host) -> Result<()> {
        let (number, name) = self.port_of(host)?;
        let port = &self.ports[number];
        netlink::add_bridge_ports(&self.switch, number, std::slice::from_ref(port))?;
        port.switch_on()?;
        netlink::add_addresses(host, port.name(), &port.addresses())?;
        port.wait_until_running()?;
        netlink::wait_until_running(&self.switch, &name)?;
        host.restore_routes()
    }

    /// The number of a host's port and its name in the switch.
    fn port_of(&self, host: &Host) -> Result<(usize, String)> {
        let number = self.ports.iter().position(|port| port.host() == host);
        number
            .map(|number| (number, port_name(number)))
            .with_context(|| format!("the host {} is not on this switch", host.name()))
    }
}

/// The switch's end of the cable to the host of that place in the list.
pub(crate) fn port_name(number: usize) -> String {
    format!("p{number}")
}

pub(crate) fn parse(nets: &[&str]) -> Result<Vec<Net>> {
    nets.iter().map(|net| net.parse()).collect()
}

pub(crate) fn nth_of_each(nets: &[Net], number: u32) -> Result<Vec<Net>> {
    nets.iter().map(|net| net.nth(number)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nets_number_their_addresses_and_know_their_members() {
        let check = |net: &str, number: u32, expect: Option<&str>| {
            let found = net.parse::<Net>().unwrap().nth(number).ok().map(|net| net.to_string());
            assert_eq!(found.as_deref(), expect);
        };
        check("10.1.0.0/24", 7, Some("10.1.0.7/24"));
        check("10.1.0.0/24", 256, None);
        check("10.0.0.0/8", 40_000, Some("10.0.156.64/8"));
        check("fd01::/64", 40, Some("fd01::28/64"));
        check("0.0.0.0/0", 1, Some("0.0.0.1/0"));
        for malformed in ["10.1.0.0", "10.1.0.0/33", "fd01::/129", "x/8", "10.1.0.0/-1", ""] {
            assert!(malformed.parse::<Net>().is_err(), "{malformed}");
        }
        let net: Net = "10.1.0.0/24".parse().unwrap();
        assert!(net.contains("10.1.0.255".parse().unwrap()));
        assert!(!net.contains("10.1.1.0".parse().unwrap()));
        assert!(!net.contains("::1".parse().unwrap()));
    }
}
