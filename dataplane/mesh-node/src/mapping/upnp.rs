//! The Internet gateway of UPnP (IGD): found by multicast, then spoken to by HTTP and XML.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use igd_next::aio::Gateway;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{AddPortError, GatewayIpVersion, PortMappingProtocol, SearchOptions};
use tokio::time::timeout;

use super::Target;
use super::answer::{Granted, LIFETIME, Refused, judge};

/// How long the router may take to be found, its description read too; and to do what it is asked.
const SEARCH: Duration = Duration::from_secs(3);
const REQUEST: Duration = Duration::from_secs(3);

/// What the router shows in its list of mappings.
const DESCRIPTION: &str = "EasyMesh";

/// A router that was found.
pub(super) type Device = Gateway<Tokio>;

/// Where devices are searched for.
const GROUP: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(239, 255, 255, 250), SEARCH_PORT));
const SEARCH_PORT: u16 = 1900;

/// Finds the router: by asking all, as every one understands, and by asking it alone, so that no neighbour can answer in its place.
pub(super) async fn search(target: &Target) -> Result<Device, Refused> {
    let (all, alone) = (search_at(target, GROUP), search_at(target, (target.router, SEARCH_PORT).into()));
    tokio::pin!(all, alone);
    tokio::select! {
        found = &mut all => match found {
            Ok(device) => Ok(device),
            Err(_) => alone.await,
        },
        found = &mut alone => match found {
            Ok(device) => Ok(device),
            Err(_) => all.await,
        },
    }
}

async fn search_at(target: &Target, at: SocketAddr) -> Result<Device, Refused> {
    let mut options = SearchOptions::default();
    // Sent from our address, so by our interface.
    options.bind_addr = (target.client, 0).into();
    options.broadcast_address = at;
    (options.timeout, options.single_search_timeout) = (Some(SEARCH), Some(SEARCH));
    options.gateway_ip_version = GatewayIpVersion::V4;
    let found = search_gateway(options).await.map_err(|error| {
        tracing::debug!(%at, %error, "no router by UPnP");
        Refused::Silent
    })?;
    if found.addr.ip() == IpAddr::V4(target.router) {
        return Ok(found);
    }
    tracing::debug!(answers = %found.addr, router = %target.router, "somebody else answers by UPnP");
    Err(Refused::Silent)
}

/// Asks for a mapping, or for it to go on: then `before` is the port outside.
pub(super) async fn map(device: &Device, target: &Target, before: Option<u16>) -> Result<Granted, Refused> {
    let asked = async {
        let ip = device.get_external_ip().await.map_err(|error| Refused::No(error.to_string()))?;
        let IpAddr::V4(ip) = ip else { return Err(Refused::No("it gives an IPv6 address".into())) };
        // Before a port is asked for that would be of no use.
        judge(ip, target.port, LIFETIME)?;
        let port = add(device, target, before.unwrap_or(target.port)).await?;
        judge(ip, port, LIFETIME)
    };
    timeout(REQUEST, asked).await.unwrap_or(Err(Refused::Silent))
}

/// Gives a mapping back.
pub(super) async fn unmap(device: &Device, outside: u16) -> Result<(), Refused> {
    let removed = timeout(REQUEST, device.remove_port(PortMappingProtocol::UDP, outside)).await;
    removed.map_err(|_| Refused::Silent)?.map_err(|error| Refused::No(error.to_string()))
}

/// Maps a port, this one if it can be had.
async fn add(device: &Device, target: &Target, wished: u16) -> Result<u16, Refused> {
    let local = SocketAddr::from((target.client, target.port));
    let udp = PortMappingProtocol::UDP;
    let mut lease = u32::try_from(LIFETIME.as_secs()).unwrap_or(u32::MAX);
    let mut added = device.add_port(udp, wished, local, lease, DESCRIPTION).await;
    if matches!(added, Err(AddPortError::OnlyPermanentLeasesSupported)) {
        // It is taken away when the program ends, and the next start asks for the same one.
        lease = 0;
        added = device.add_port(udp, wished, local, lease, DESCRIPTION).await;
    }
    match added {
        Ok(()) => Ok(wished),
        Err(AddPortError::PortInUse) => {
            let any = device.add_any_port(udp, local, lease, DESCRIPTION).await;
            any.map_err(|error| Refused::No(error.to_string()))
        }
        Err(error) => Err(Refused::No(error.to_string())),
    }
}
