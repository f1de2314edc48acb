//! What the gateway tells the person at the console, and the log.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use mesh_core::gateway::{Event, PathKind};
use mesh_wire::message::RefusedReason;

use crate::config::GatewayOptions;
use crate::hex;
use crate::iface::{self, Interface, Outside};
use crate::log::{announce, announce_warning};
use crate::select::Selection;

/// What it means that the transfer is not who it was, or not who it should be.
pub(super) fn other_key(options: &GatewayOptions, pin: &Path) -> String {
    let trans = &options.trans;
    if options.trans_key.is_some() {
        return format!(
            "{trans} shows another key than -trans-key says: copy it from the transfer's first lines; if it is the same there, someone is in the transfer's place"
        );
    }
    format!(
        "{trans} shows another key than before: if the transfer was set up anew, delete {} or give -trans-key; else someone is in its place",
        pin.display()
    )
}

/// Why there is no address.
pub(super) fn refusal(reason: RefusedReason, ip: Ipv4Addr) -> String {
    match reason {
        RefusedReason::AddressTaken => format!("the address {ip} is taken by another gateway: choose another -ip"),
        RefusedReason::KeyInUse => format!(
            "another running gateway has this machine's key for {ip} (a cloned machine?): delete its key from the -state directory here, and start again"
        ),
        RefusedReason::Full => "the namespace is full: use another port of the transfer in -trans".into(),
        RefusedReason::BadAddress => format!("the transfer does not accept {ip} as an address: choose another -ip"),
    }
}

/// One line for each event that concerns a peer.
pub(super) fn tell(event: &Event) {
    match event {
        Event::PeerUp { ip4, key, verified } => {
            tracing::info!(peer = %ip4, key = %hex::encode(&key[..4]), verified, "session");
        }
        Event::PeerDown { ip4 } => tracing::info!(peer = %ip4, "session ended"),
        Event::PathChanged { ip4, kind: PathKind::Relay, .. } => tracing::info!(peer = %ip4, "reached by the relay"),
        Event::PathChanged { ip4, kind, endpoint } => {
            let way = if *kind == PathKind::Lan { "over the local network" } else { "directly" };
            let endpoint = endpoint.map(|endpoint| endpoint.to_string()).unwrap_or_default();
            tracing::info!(peer = %ip4, endpoint, "reached {way}");
        }
        Event::Impostor { ip4 } => {
            tracing::warn!(peer = %ip4, "someone with another key is in the place of a peer: refused")
        }
        Event::NoCommonCipher { ip4 } => tracing::warn!(
            peer = %ip4,
            "no cipher in common: give both gateways the same -cipher, or leave it out on both"
        ),
        Event::ResolveTransfer
        | Event::Registered { .. }
        | Event::Refused { .. }
        | Event::TransferSilent { .. }
        | Event::TransferBack
        | Event::StreamWanted(_)
        | Event::OverTcp { .. }
        | Event::TransferKeyChanged
        | Event::VersionMismatch { .. }
        | Event::OpenSockets { .. }
        | Event::InsideMtu { .. }
        | Event::CloseSockets(_)
        | Event::ObserverKeyWanted { .. } => {}
    }
}

/// The first lines: what runs, and what a user should know of it.
pub(super) fn introduce(
    options: &GatewayOptions,
    selection: &Selection,
    outside: &Outside,
    interfaces: &[Interface],
    interface: &str,
    ula: Option<Ipv6Addr>,
    fingerprint: &str,
) {
    let ula = ula.map_or(String::new(), |ula| format!(" and {ula}"));
    announce(format_args!(
        "gateway {}: {interface} is {}/{}{ula}; engine {selection}",
        env!("CARGO_PKG_VERSION"),
        options.ip,
        options.prefix
    ));
    announce(format_args!("token fingerprint {fingerprint}"));
    match outside {
        Outside::Interface { name, preferred } => {
            let (ipv4, ipv6) = match interfaces.iter().find(|interface| interface.name == *name).map(iface::usable) {
                Some((ipv4, ipv6)) => match *preferred {
                    Some(IpAddr::V4(asked)) => (Some(asked), ipv6),
                    Some(IpAddr::V6(asked)) => (ipv4, Some(asked)),
                    None => (ipv4, ipv6),
                },
                None => (None, None),
            };
            let addresses: Vec<String> =
                ipv4.map(|ip| ip.to_string()).into_iter().chain(ipv6.map(|ip| ip.to_string())).collect();
            announce(format_args!("sending from {name} ({})", addresses.join(", ")));
        }
        // Told as soon as the transfer's address is known.
        Outside::Routed => {}
    }
    if iface::is_public(options.ip) {
        let network = Ipv4Addr::from_bits(options.ip.to_bits() & !(u32::MAX >> options.prefix));
        announce(format_args!(
            "note: {network}/{} is public address space: its owners cannot be reached while this runs; \
             choose a private network on all gateways to avoid it, as in -ip 10.77.0.1",
            options.prefix
        ));
    }
    if options.common.token.is_weak() {
        announce_warning("the token is easy to guess: use 16 random characters or more");
    }
}
