//! The interfaces of a host as `ip addr` prints them.
#![expect(clippy::wildcard_enum_match_arm, reason = "a listing shows some of the kernel's many kinds")]

use std::fmt;
use std::net::IpAddr;

use anyhow::Result;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage, State};

use crate::host::Host;
use crate::netlink;

/// An interface as the kernel has it: also one that a program made, as a TUN. Prints as `ip addr` would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceInfo {
    /// The kernel's number of the interface in its host.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its flags, as `UP` and `LOWER_UP`.
    pub flags: Vec<&'static str>,
    /// The largest packet in bytes.
    pub mtu: u32,
    /// The queueing discipline.
    pub qdisc: String,
    /// `UP`, `DOWN`, `UNKNOWN` and so on.
    pub state: String,
    /// The kind of its link layer: `ether`, `loopback`, or `none` for a TUN.
    pub link_type: &'static str,
    /// The hardware address, if it has one.
    pub mac: Option<Vec<u8>>,
    /// Addresses with the lengths of their prefixes in bits.
    pub addresses: Vec<(IpAddr, u8)>,
}

impl Host {
    /// All interfaces of the host, the loopback interface first.
    ///
    /// # Errors
    /// The kernel refuses the list.
    pub fn list_interfaces(&self) -> Result<Vec<InterfaceInfo>> {
        let (links, addresses) = netlink::dump(self)?;
        let mut list: Vec<_> = links.iter().map(InterfaceInfo::new).collect();
        for message in &addresses {
            let of = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
            // On a point-to-point interface `Address` is the other end.
            let local = of(|attribute| if let AddressAttribute::Local(ip) = attribute { Some(*ip) } else { None });
            let address = of(|attribute| if let AddressAttribute::Address(ip) = attribute { Some(*ip) } else { None });
            let owner = list.iter_mut().find(|interface| interface.index == message.header.index);
            if let (Some(address), Some(interface)) = (local.or(address), owner) {
                interface.addresses.push((address, message.header.prefix_len));
            }
        }
        Ok(list)
    }
}

impl InterfaceInfo {
    fn new(message: &LinkMessage) -> InterfaceInfo {
        let flags = [
            (LinkFlags::Broadcast, "BROADCAST"),
            (LinkFlags::Loopback, "LOOPBACK"),
            (LinkFlags::Pointopoint, "POINTOPOINT"),
            (LinkFlags::Multicast, "MULTICAST"),
            (LinkFlags::Noarp, "NOARP"),
            (LinkFlags::Promisc, "PROMISC"),
            (LinkFlags::Up, "UP"),
            (LinkFlags::LowerUp, "LOWER_UP"),
        ];
        let has = |(flag, name): &(LinkFlags, &'static str)| message.header.flags.contains(*flag).then_some(*name);
        let mut info = InterfaceInfo {
            index: message.header.index,
            name: String::new(),
            flags: flags.iter().filter_map(has).collect(),
            mtu: 0,
            qdisc: String::new(),
            state: "UNKNOWN".to_owned(),
            link_type: match message.header.link_layer_type {
                LinkLayerType::Ether => "ether",
                LinkLayerType::Loopback => "loopback",
                _ => "none",
            },
            mac: None,
            addresses: Vec::new(),
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => info.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => info.mtu = *mtu,
                LinkAttribute::Qdisc(qdisc) => info.qdisc.clone_from(qdisc),
                LinkAttribute::OperState(state) => info.state = state_name(*state),
                LinkAttribute::Address(mac) if !mac.is_empty() => info.mac = Some(mac.clone()),
                _ => {}
            }
        }
        info
    }
}

fn state_name(state: State) -> String {
    format!("{state:?}").to_uppercase()
}

impl fmt::Display for InterfaceInfo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let InterfaceInfo { index, name, mtu, qdisc, state, link_type, .. } = self;
        write!(formatter, "{index}: {name}: <{}> mtu {mtu} qdisc {qdisc} state {state}", self.flags.join(","))?;
        write!(formatter, "\n    link/{link_type}")?;
        if let Some(mac) = &self.mac {
            let bytes: Vec<_> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
            write!(formatter, " {}", bytes.join(":"))?;
        }
        for (address, prefix) in &self.addresses {
            let (family, scope) = match address {
                IpAddr::V4(address) => ("inet", if address.is_loopback() { "host" } else { "global" }),
                IpAddr::V6(address) if address.is_loopback() => ("inet6", "host"),
                IpAddr::V6(address) if address.is_unicast_link_local() => ("inet6", "link"),
                IpAddr::V6(_) => ("inet6", "global"),
            };
            write!(formatter, "\n    {family} {address}/{prefix} scope {scope}")?;
            if family == "inet" {
                write!(formatter, " {name}")?;
            }
        }
        Ok(())
    }
}
