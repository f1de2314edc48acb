//! The router's port of a running gateway: asked for as the network is, told to the state machine, shown in the status.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use mesh_core::gateway::Gateway;
use mesh_core::session::handshake::StaticKey;

use super::life::Around;
use crate::iface::Outside;
use crate::mailbox::Mailbox;
use crate::mapping::{Mapper, MappingChoice, Report, Target, may_be_public};
use crate::pump::Flow;
use crate::select::Make;
use crate::status::{MappingReport, MappingState};

/// What is known of it, for whoever shows it.
pub(super) type ShownMapping = Arc<Mutex<MappingReport>>;

/// What the main thread knows of it.
#[derive(Debug)]
pub(super) struct PortMapping {
    /// `None`: no router is to be asked, or there is no thread for it.
    mapper: Option<Mapper>,
    target: Option<Result<Target, String>>,
    /// Where the transfer saw us last.
    observed: Option<SocketAddr>,
    shown: ShownMapping,
}

impl PortMapping {
    /// Starts to ask, if that is wanted.
    pub(super) fn start(
        choice: MappingChoice,
        identity: &StaticKey,
        report: impl FnMut(Report) + Send + 'static,
    ) -> Self {
        let start = || Mapper::start(identity.derive("port mapping"), report);
        let mapper = match choice {
            MappingChoice::Auto => {
                start().inspect_err(|error| tracing::warn!(%error, "no router is asked for a port")).ok()
            }
            MappingChoice::Off => None,
        };
        let state = if mapper.is_some() { MappingState::Searching } else { MappingState::Off };
        let shown = MappingReport { state, outside: None, protocol: None, why: String::new() };
        Self { mapper, target: None, observed: None, shown: Arc::new(Mutex::new(shown)) }
    }

    pub(super) fn shown(&self) -> ShownMapping {
        Arc::clone(&self.shown)
    }

    /// The network is another or has come back, or our socket for IPv4 is (`changed`); else only what differs is told.
    pub(super) fn look(&mut self, outside: &Outside, around: &Around, port: Option<u16>, changed: bool) {
        let Some(mapper) = &self.mapper else { return };
        let target = target(outside, around, port);
        if changed || self.target.as_ref() != Some(&target) {
            self.target = Some(target.clone());
            mapper.set_target(target);
        }
    }

    /// The transfer sees us here: if that is elsewhere than before, the router may have another address, or be another.
    pub(super) fn seen_at(&mut self, observed: SocketAddr) {
        let before = self.observed.replace(observed);
        if before.is_some_and(|before| before.ip() != observed.ip()) {
            self.check();
        }
    }

    /// Something hints that the router is not what it was.
    pub(super) fn check(&self) {
        if let Some(mapper) = &self.mapper {
            mapper.check();
        }
    }

    /// The router has said something.
    pub(super) fn reported<E: Make>(&self, report: Report, mailbox: &Mailbox<E, Gateway>) {
        let (mapped, shown) = match report {
            Report::Mapped { outside, protocol } => {
                tracing::info!(%outside, %protocol, "the router has given us a port");
                let (outside, protocol) = (Some(outside), Some(protocol));
                (outside, MappingReport { state: MappingState::Mapped, outside, protocol, why: String::new() })
            }
            Report::Lost { why } => {
                tracing::info!(why, "no port of a router");
                (None, MappingReport { state: MappingState::None, outside: None, protocol: None, why })
            }
        };
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown;
        mailbox.send(move |_, gateway: &mut Gateway, now| {
            gateway.set_mapping(now, mapped);
            Flow::Continue
        });
    }

    /// Begins to give the port back; to be waited for by [`Mapper::join`].
    pub(super) fn stop(self) -> Option<Mapper> {
        self.mapper.inspect(Mapper::stop)
    }
}

/// What to ask whom for; else why nothing.
fn target(outside: &Outside, around: &Around, port: Option<u16>) -> Result<Target, String> {
    let port = port.filter(|port| *port != 0).ok_or("there is no socket for IPv4")?;
    let route = around.ipv4.ok_or("no way leads out by IPv4")?;
    let Some(IpAddr::V4(router)) = route.router else { return Err("there is no router for IPv4".into()) };
    // What the socket is bound to is among our addresses, and then no other one of IPv4 is.
    let ours = |ip: &Ipv4Addr| around.addresses.iter().any(|local| local.address == IpAddr::V4(*ip));
    let by_route = match route.source {
        Some(IpAddr::V4(source)) => Some(source).filter(ours),
        Some(IpAddr::V6(_)) | None => None,
    };
    let first = || {
        let on_it = around.addresses.iter().filter(|local| local.interface == route.interface);
        on_it.map(|local| local.address).find_map(|address| match address {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        })
    };
    let client = by_route.or_else(first).ok_or("there is no IPv4 address of ours on the way out")?;
    if may_be_public(client) {
        return Err(format!("our own address {client} is public: there is nothing to map"));
    }
    let interface = match outside {
        Outside::Interface { .. } => Some(route.interface),
        Outside::Routed => None,
    };
    Ok(Target { router, client, interface, port })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iface::tests::interface;
    use crate::iface::watch::{DefaultRoute, Snapshot};

    /// A machine on two networks with the way out by the second.
    fn around(outside: &Outside, router: Option<&str>, source: Option<&str>) -> Around {
        let interfaces = vec![
            interface(2, "eth0", &["10.1.0.7/24"]),
            interface(3, "wlan0", &["10.2.0.7/24", "10.2.0.8/24", "203.0.113.9/24"]),
        ];
        let ip = |text: &str| text.parse().unwrap();
        let ipv4 = Some(DefaultRoute { interface: 3, router: router.map(ip), source: source.map(ip) });
        Around::new(outside, &Snapshot { interfaces, ipv4, ipv6: None })
    }

    fn wlan0(preferred: Option<&str>) -> Outside {
        Outside::Interface { name: "wlan0".into(), preferred: preferred.map(|text| text.parse().unwrap()) }
    }

    #[test]
    fn the_default_router_is_asked_from_the_address_that_the_socket_has() {
        let target = |outside: &Outside, source| {
            target(outside, &around(outside, Some("10.2.0.1"), source), Some(61_000)).map(|target| {
                assert_eq!((target.router, target.port), (Ipv4Addr::new(10, 2, 0, 1), 61_000));
                (target.client.to_string(), target.interface)
            })
        };
        assert_eq!(target(&Outside::Routed, Some("10.2.0.8")), Ok(("10.2.0.8".into(), None)));
        assert_eq!(target(&Outside::Routed, None), Ok(("10.2.0.7".into(), None)));
        assert_eq!(target(&wlan0(None), Some("10.2.0.8")), Ok(("10.2.0.8".into(), Some(3))));
        assert_eq!(target(&wlan0(Some("10.2.0.7")), Some("10.2.0.8")), Ok(("10.2.0.7".into(), Some(3))));
    }

    #[test]
    fn why_there_is_nothing_to_ask_is_told() {
        let routed = Outside::Routed;
        let why = |outside: &Outside, router, source, port| {
            target(outside, &around(outside, router, source), port).unwrap_err()
        };
        assert_eq!(why(&routed, None, None, Some(1)), "there is no router for IPv4");
        assert_eq!(why(&routed, Some("fe80::1"), None, Some(1)), "there is no router for IPv4");
        assert_eq!(why(&routed, Some("10.2.0.1"), None, None), "there is no socket for IPv4");
        assert!(why(&routed, Some("203.0.113.1"), Some("203.0.113.9"), Some(1)).contains("203.0.113.9 is public"));
        let nowhere = Around::new(&routed, &Snapshot::default());
        assert_eq!(target(&routed, &nowhere, Some(1)).unwrap_err(), "no way leads out by IPv4");
        let eth0 = Outside::Interface { name: "eth0".into(), preferred: None };
        assert_eq!(
            why(&eth0, Some("10.2.0.1"), Some("10.2.0.7"), Some(1)),
            "there is no IPv4 address of ours on the way out"
        );
    }
}
