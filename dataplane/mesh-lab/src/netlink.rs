//! What `ip` would do, by netlink: interfaces, addresses, routes and their listing.
//!
//! Each call opens a netlink socket inside the host, on a thread of its own with a single-threaded runtime.

use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures_util::StreamExt as _;
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::address::{AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    BridgePortState, InfoBridgePort, InfoData, InfoPortData, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
    State,
};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::host::Host;
use crate::link::{Interface, Net, port_name};

/// The name of the bridge in a switch.
const BRIDGE: &str = "br0";

/// The IPv6 routes of the calling thread's namespace: destination and prefix length in hexadecimal, and more.
const IPV6_ROUTES: &str = "/proc/thread-self/net/ipv6_route";

/// How often the state of a cable is looked at.
const CARRIER_POLL: Duration = Duration::from_millis(1);

/// How long a cable may take to carry packets: the kernel looks at carriers at least once a second.
const CARRIER_WAIT_MAX: Duration = Duration::from_secs(5);

/// One end of a cable to be made.
pub(crate) struct End<'a> {
    host: &'a Host,
    name: &'a str,
}

impl<'a> End<'a> {
    pub(crate) fn of(interface: &'a Interface) -> End<'a> {
        End { host: interface.host(), name: interface.name() }
    }

    /// The message part that makes this end in its host. It stays down: the kernel refuses to switch it on before
    /// the other end is made.
    fn message(&self) -> LinkMessage {
        let fd = self.host.net_fd().as_raw_fd();
        LinkMessageBuilder::<LinkUnspec>::new().name(self.name).setns_by_fd(fd).build()
    }
}

/// Switches the loopback interface on.
pub(crate) fn loopback_up(host: &Host) -> Result<()> {
    change_link(host, "lo", |link| link.up())
}

/// Makes a pair of interfaces, one in each host; the second is down.
pub(crate) fn add_cable(a: End<'_>, b: End<'_>) -> Result<()> {
    session(a.host, async |netlink| {
        let cable = LinkMessageBuilder::<LinkVeth>::new(a.name, b.name)
            .up()
            .set_info_data(InfoData::Veth(InfoVeth::Peer(b.message())));
        netlink.link().add(cable.build()).execute().await.context("make a veth pair")
    })
}

/// Makes the bridge of a switch.
pub(crate) fn add_bridge(switch: &Host) -> Result<()> {
    session(switch, async |netlink| {
        // No snooping: multicast (IPv6 neighbour discovery) goes to every port at once.
        let bridge = LinkBridge::new(BRIDGE).mcast_snooping(false);
        netlink.link().add(bridge.build()).execute().await.context("make a bridge (kernel module bridge)")
    })
}

/// Makes a cable from the bridge to each of `interfaces`, which are down, at ports numbered from `first`.
pub(crate) fn add_bridge_ports(switch: &Host, first: usize, interfaces: &[Interface]) -> Result<()> {
    session(switch, async |netlink| {
        let bridge = index_of(BRIDGE)?;
        for (number, interface) in (first..).zip(interfaces) {
            let end = End::of(interface);
            let cable = LinkMessageBuilder::<LinkVeth>::new(&port_name(number), end.name)
                .controller(bridge)
                .up()
                .set_info_data(InfoData::Veth(InfoVeth::Peer(end.message())));
            let added = netlink.link().add(cable.build()).execute().await;
            added.with_context(|| format!("make a veth pair to {}", end.host.name()))?;
        }
        Ok(())
    })
}

/// Takes an interface away, and the other end of its cable with it.
pub(crate) fn remove_link(host: &Host, name: &str) -> Result<()> {
    session(host, async |netlink| {
        let removed = netlink.link().del(index_of(name)?).execute().await;
        removed.with_context(|| format!("remove {name} of {}", host.name()))
    })
}

/// Changes settings of an interface.
pub(crate) fn change_link(
    host: &Host,
    name: &str,
    change: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec> + Send,
) -> Result<()> {
    session(host, async |netlink| {
        let message = change(LinkUnspec::new_with_index(index_of(name)?)).build();
        let changed = netlink.link().set(message).execute().await;
        changed.with_context(|| format!("change {name} of {}", host.name()))
    })
}

/// Waits until an interface carries packets. The kernel connects its queue some time after the carrier has come, and
/// drops what is sent before; a port of a bridge also has to be told to forward.
pub(crate) fn wait_until_running(host: &Host, name: &str) -> Result<()> {
    let ready = session(host, async |netlink| {
        let (index, deadline) = (index_of(name)?, Instant::now() + CARRIER_WAIT_MAX);
        loop {
            let found = netlink.link().get().match_index(index).execute().next().await;
            let link = found.context("the kernel answers nothing")?.context("ask for the state")?;
            if carries_packets(&link) {
                return Ok(());
            }
            if Instant::now() > deadline || !link.header.flags.contains(LinkFlags::Up) {
                bail!("there is none: one of the ends is switched off");
            }
            tokio::time::sleep(CARRIER_POLL).await;
        }
    });
    ready.with_context(|| format!("wait for the carrier of {name} in {}", host.name()))
}

/// Waits until the host takes packets for its IPv6 `addresses`. The kernel makes their local routes some time after
/// it has been given the addresses or the interface has been switched on.
#[expect(clippy::disallowed_methods, reason = "the kernel announces the address before it makes the route")]
pub(crate) fn wait_until_local(host: &Host, addresses: &[Net]) -> Result<()> {
    let wanted = |net: &Net| match net.address() {
        IpAddr::V6(address) => Some(format!("{:032x} 80 ", address.to_bits())),
        IpAddr::V4(_) => None,
    };
    let wanted: Vec<_> = addresses.iter().filter_map(wanted).collect();
    let deadline = Instant::now() + CARRIER_WAIT_MAX;
    host.run(|| {
        while !wanted.is_empty() {
            let routes = std::fs::read_to_string(IPV6_ROUTES).with_context(|| format!("read {IPV6_ROUTES}"))?;
            if wanted.iter().all(|start| routes.lines().any(|route| route.starts_with(start))) {
                break;
            }
            if Instant::now() > deadline {
                bail!("the kernel makes no local routes for {addresses:?}");
            }
            std::thread::sleep(CARRIER_POLL);
        }
        Ok(())
    })
}

/// Whether an interface has a carrier: it and the other end of its cable are switched on.
pub(crate) fn has_carrier(host: &Host, name: &str) -> Result<bool> {
    session(host, async |netlink| {
        let found = netlink.link().get().match_index(index_of(name)?).execute().next().await;
        let link = found.context("the kernel answers nothing")?.context("ask for the state")?;
        Ok(link.header.flags.contains(LinkFlags::LowerUp))
    })
}

fn carries_packets(link: &LinkMessage) -> bool {
    let mut forwards = true;
    for attribute in &link.attributes {
        let LinkAttribute::LinkInfo(infos) = attribute else { continue };
        for info in infos {
            if let LinkInfo::PortData(InfoPortData::BridgePort(port)) = info {
                forwards = port.contains(&InfoBridgePort::State(BridgePortState::Forwarding));
            }
        }
    }
    forwards && link.attributes.contains(&LinkAttribute::OperState(State::Up))
}

/// Adds addresses to an interface, usable at once (no duplicate address detection).
pub(crate) fn add_addresses(host: &Host, name: &str, addresses: &[Net]) -> Result<()> {
    session(host, async |netlink| {
        let index = index_of(name)?;
        for net in addresses {
            let mut request = netlink.address().add(index, net.address(), net.prefix());
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
            let added = request.execute().await;
            added.with_context(|| format!("give {net} to {name} of {}", host.name()))?;
        }
        Ok(())
    })
}

/// Takes an address from an interface.
pub(crate) fn remove_address(host: &Host, name: &str, net: Net) -> Result<()> {
    session(host, async |netlink| {
        let mut request = netlink.address().add(index_of(name)?, net.address(), net.prefix());
        let message = std::mem::take(request.message_mut());
        let removed = netlink.address().del(message).execute().await;
        removed.with_context(|| format!("take {net} from {name} of {}", host.name()))
    })
}

/// Adds a route, or replaces the one to the same destination.
pub(crate) fn set_route(host: &Host, destination: Net, gateway: IpAddr) -> Result<()> {
    session(host, async |netlink| {
        let route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(destination.address(), destination.prefix())
            .and_then(|route| route.gateway(gateway))
            .with_context(|| format!("a route to {destination} through {gateway}"))?;
        let added = netlink.route().add(route.build()).replace().execute().await;
        added.with_context(|| format!("route {destination} through {gateway} in {}", host.name()))
    })
}

/// All interfaces of a host, and all their addresses.
pub(crate) fn dump(host: &Host) -> Result<(Vec<LinkMessage>, Vec<AddressMessage>)> {
    session(host, async |netlink| {
        let links: Vec<_> = netlink.link().get().execute().collect().await;
        let addresses: Vec<_> = netlink.address().get().execute().collect().await;
        let links = links.into_iter().collect::<Result<_, _>>().context("list the interfaces")?;
        let addresses = addresses.into_iter().collect::<Result<_, _>>().context("list the addresses")?;
        Ok((links, addresses))
    })
}

fn index_of(name: &str) -> Result<u32> {
    if_nametoindex(name).with_context(|| format!("look up the interface {name}"))
}

/// Runs `work` inside the host with a netlink connection of the host.
fn session<T: Send>(host: &Host, work: impl AsyncFnOnce(Handle) -> Result<T> + Send) -> Result<T> {
    host.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().context("open a netlink socket")?;
            tokio::spawn(connection);
            work(handle).await
        })
    })
}
