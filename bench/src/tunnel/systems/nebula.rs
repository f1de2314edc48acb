//! Nebula: certificates, a lighthouse, and relays since 1.6.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::{FOLDER, LEFT, PREFIX, RELAY, RIGHT, run_words};
use crate::tunnel::cell::{Path, TunnelCell};
use crate::tunnel::rig::{Place, Rig};
use crate::tunnel::system::{Found, Tunnel, TunnelSystem};

const PORT: u16 = 4_242;

/// Two nodes, and a lighthouse that relays.
pub(super) struct Nebula;

impl TunnelSystem for Nebula {
    fn name(&self) -> &'static str {
        "nebula"
    }

    fn find(&self) -> Result<Found> {
        let about = "Slack's overlay in Go, AES-256-GCM. Relayed cells go through its own relay.";
        super::find(self.name(), &["nebula", "nebula-cert"], about)
    }

    fn unable(&self, _cell: &TunnelCell) -> Option<String> {
        None
    }

    fn start(&self, rig: &Rig, cell: &TunnelCell) -> Result<Tunnel> {
        let (nebula, certify) = (super::program("nebula")?, super::program("nebula-cert")?);
        // The certificates are made in the middle host; then each host gets its own.
        super::write(&rig.relay, &[("config.yml", configuration(Place::Relay, rig.path, cell.inner_mtu))])?;
        let file = |name: &str| format!("{FOLDER}/{name}");
        let (ca, ca_key) = (file("ca.crt"), file("ca.key"));
        run_words(rig, &certify, &["ca", "-name", "bench", "-out-crt", &ca, "-out-key", &ca_key])?;
        for (place, name, address) in
            [(Place::Left, "left", LEFT), (Place::Right, "right", RIGHT), (Place::Relay, "relay", RELAY)]
        {
            let (network, certificate, key) =
                (format!("{address}/{PREFIX}"), file(&format!("{name}.crt")), file(&format!("{name}.key")));
            let sign = ["sign", "-ca-crt", &ca, "-ca-key", &ca_key, "-name", name, "-ip", &network];
            run_words(rig, &certify, &[&sign[..], &["-out-crt", &certificate, "-out-key", &key]].concat())?;
            let read = |name: &str| super::read(&rig.relay, name);
            let files = [
                ("ca.crt", read("ca.crt")?),
                ("own.crt", read(&format!("{name}.crt"))?),
                ("own.key", read(&format!("{name}.key"))?),
                ("config.yml", configuration(place, rig.path, cell.inner_mtu)),
            ];
            super::write(rig.host(place), &files)?;
        }
        let mut processes = Vec::new();
        let places = [Place::Relay, Place::Right, Place::Left];
        for place in places.into_iter().filter(|place| *place != Place::Relay || rig.path == Path::Relayed) {
            processes.push(super::start(rig, place, &nebula, &["-config", &file("config.yml")])?);
        }
        let relay = (rig.path == Path::Relayed).then_some(0);
        Ok(Tunnel { left: LEFT, right: RIGHT, processes, relay })
    }
}

/// The configuration of one node. On a direct path the ends know each other; on a relayed one they know the lighthouse.
fn configuration(place: Place, path: Path, inner_mtu: u16) -> String {
    let known: &[(Ipv4Addr, Ipv4Addr)] = match (path, place) {
        (_, Place::Relay) => &[],
        (Path::Direct, Place::Left) => &[(RIGHT, Rig::RIGHT)],
        (Path::Direct, Place::Right) => &[(LEFT, Rig::LEFT)],
        (Path::Relayed, Place::Left) => &[(RELAY, Rig::RELAY)],
        (Path::Relayed, Place::Right) => &[(RELAY, Rig::RELAY_RIGHT)],
    };
    let map: Vec<String> =
        known.iter().map(|(inside, outside)| format!("\"{inside}\": [\"{outside}:{PORT}\"]")).collect();
    let relays = if path == Path::Relayed && place != Place::Relay { format!("\"{RELAY}\"") } else { String::new() };
    let is_relay = place == Place::Relay;
    format!(
        "pki: {{ ca: {FOLDER}/ca.crt, cert: {FOLDER}/own.crt, key: {FOLDER}/own.key }}\n\
         static_host_map: {{ {map} }}\n\
         lighthouse: {{ am_lighthouse: {is_relay}, hosts: [{relays}], interval: 60 }}\n\
         listen: {{ host: 0.0.0.0, port: {PORT}, batch: 64, read_buffer: 8388608, write_buffer: 8388608 }}\n\
         punchy: {{ punch: false }}\n\
         cipher: aes\n\
         relay: {{ am_relay: {is_relay}, use_relays: true, relays: [{relays}] }}\n\
         tun: {{ dev: nebula0, disabled: {is_relay}, mtu: {inner_mtu}, tx_queue: 500 }}\n\
         logging: {{ level: warning, format: text }}\n\
         firewall:\n  \
           conntrack: {{ tcp_timeout: 12m, udp_timeout: 3m, default_timeout: 10m }}\n  \
           outbound: [ {{ port: any, proto: any, host: any }} ]\n  \
           inbound: [ {{ port: any, proto: any, host: any }} ]\n",
        map = map.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_know_each_other_or_the_relay_only() {
        let direct = configuration(Place::Left, Path::Direct, 1_280);
        assert!(direct.contains("static_host_map: { \"10.9.0.2\": [\"10.2.0.2:4242\"] }"), "{direct}");
        assert!(direct.contains("relays: [] }") && direct.contains("mtu: 1280,"), "{direct}");
        let relayed = configuration(Place::Right, Path::Relayed, 1_408);
        assert!(relayed.contains("static_host_map: { \"10.9.0.3\": [\"10.2.0.1:4242\"] }"), "{relayed}");
        assert!(relayed.contains("hosts: [\"10.9.0.3\"]") && relayed.contains("relays: [\"10.9.0.3\"]"), "{relayed}");
        let relay = configuration(Place::Relay, Path::Relayed, 1_408);
        assert!(relay.contains("am_lighthouse: true, hosts: []") && relay.contains("disabled: true"), "{relay}");
    }
}
