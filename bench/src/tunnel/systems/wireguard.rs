//! WireGuard in user space, as three projects have it. They are told what to do over the socket that `wg` uses.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mesh_lab::Host;
use rand::Rng as _;
use x25519_dalek::{PublicKey, StaticSecret};

use super::{LEFT, PREFIX, RIGHT, relaying};
use crate::tunnel::cell::{Path, TunnelCell};
use crate::tunnel::interface;
use crate::tunnel::rig::{Place, Rig};
use crate::tunnel::system::{Found, START_MAX, Tunnel, TunnelSystem};

const PORT: u16 = 51_820;
const INTERFACE: &str = "wg0";
const SOCKET: &str = "/var/run/wireguard/wg0.sock";

/// One of the programs.
pub(super) struct WireGuard {
    name: &'static str,
    peer: &'static str,
    words: &'static [&'static str],
    about: &'static str,
}

impl WireGuard {
    pub(super) const GO: Self = Self {
        name: "wireguard-go",
        peer: "wireguard-go",
        words: &["-f", INTERFACE],
        about: "WireGuard in Go, by its authors.",
    };
    pub(super) const BORINGTUN: Self = Self {
        name: "boringtun",
        peer: "boringtun",
        words: &["-f", "--disable-drop-privileges", INTERFACE],
        about: "WireGuard in Rust, by Cloudflare.",
    };
    pub(super) const GOTATUN: Self = Self {
        name: "gotatun",
        peer: "gotatun",
        words: &["-f", "--disable-drop-privileges", INTERFACE],
        about: "WireGuard in Rust, by Mullvad.",
    };
}

impl TunnelSystem for WireGuard {
    fn name(&self) -> &'static str {
        self.name
    }

    fn find(&self) -> Result<Found> {
        let about = format!("{} ChaCha20-Poly1305. {}", self.about, relaying::ABOUT);
        super::find(self.name, &[self.peer], &about)
    }

    fn unable(&self, cell: &TunnelCell) -> Option<String> {
        relaying::unable(cell)
    }

    fn start(&self, rig: &Rig, cell: &TunnelCell) -> Result<Tunnel> {
        relaying::relay_port(rig, PORT)?;
        let peer = super::program(self.peer)?;
        let mut processes = Vec::new();
        for place in [Place::Left, Place::Right] {
            processes.push(super::start(rig, place, &peer, self.words)?);
        }
        let [left, right] = [secret(), secret()];
        let to_right = SocketAddr::new(Rig::toward_right(rig.path).into(), PORT);
        // Behind a relay the right end learns where the left one is from its first packet.
        let to_left = (rig.path == Path::Direct).then(|| SocketAddr::new(Rig::LEFT.into(), PORT));
        let ends = [
            (Place::Left, LEFT, configuration(&left, &PublicKey::from(&right), RIGHT, Some(to_right))),
            (Place::Right, RIGHT, configuration(&right, &PublicKey::from(&left), LEFT, to_left)),
        ];
        for (place, address, configuration) in ends {
            let host = rig.host(place);
            interface::wait_for(host, INTERFACE, START_MAX)?;
            configure(host, &configuration).with_context(|| format!("configure it in {}", host.name()))?;
            interface::set_up(host, INTERFACE, address, PREFIX, cell.inner_mtu)?;
        }
        Ok(Tunnel { left: LEFT, right: RIGHT, processes, relay: None })
    }
}

fn secret() -> StaticSecret {
    let mut bytes = [0; 32];
    rand::rng().fill_bytes(&mut bytes);
    StaticSecret::from(bytes)
}

/// The text of a `set` operation of WireGuard's cross-platform user space interface.
fn configuration(own: &StaticSecret, other: &PublicKey, inside: Ipv4Addr, endpoint: Option<SocketAddr>) -> String {
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    let (own, other) = (hex(own.as_bytes()), hex(other.as_bytes()));
    let mut text = format!("set=1\nprivate_key={own}\nlisten_port={PORT}\nreplace_peers=true\npublic_key={other}\n");
    if let Some(endpoint) = endpoint {
        let _ = writeln!(text, "endpoint={endpoint}");
    }
    let _ = write!(text, "replace_allowed_ips=true\nallowed_ip={}/32\n\n", IpAddr::V4(inside));
    text
}

/// Sends an operation as soon as the program listens, and reads the answer.
#[expect(clippy::disallowed_methods, reason = "programs of others tell nobody when they listen")]
fn configure(host: &Host, operation: &str) -> Result<()> {
    host.run(|| {
        let deadline = Instant::now() + START_MAX;
        let mut stream = loop {
            match UnixStream::connect(SOCKET) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > deadline => {
                    return Err(error).with_context(|| format!("connect to {SOCKET}"));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        stream.set_read_timeout(Some(START_MAX)).context("set a time limit")?;
        stream.write_all(operation.as_bytes()).context("send the configuration")?;
        let mut answer = Vec::new();
        // The answer ends with an empty line; some close the connection after it, some do not.
        while !answer.ends_with(b"\n\n") {
            let mut byte = [0];
            if stream.read(&mut byte).context("read the answer")? == 0 || answer.len() > 1_000 {
                break;
            }
            answer.push(byte[0]);
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        ensure!(answer.contains("errno=0"), "it answered {answer:?}");
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_names_keys_peer_and_endpoint() {
        let own = StaticSecret::from([0xab; 32]);
        let other = PublicKey::from([0x01; 32]);
        let text = configuration(&own, &other, RIGHT, Some("10.2.0.2:51820".parse().unwrap()));
        assert!(text.starts_with("set=1\nprivate_key="), "{text}");
        assert!(text.contains(&format!("\npublic_key={}\nendpoint=10.2.0.2:51820\n", "01".repeat(32))), "{text}");
        assert!(text.ends_with("\nallowed_ip=10.9.0.2/32\n\n"), "{text}");
        assert!(!configuration(&own, &other, LEFT, None).contains("endpoint"));
    }
}
