//! OpenVPN from one host to one other, over TLS with self-signed certificates that each end knows by fingerprint.

use anyhow::{Context as _, Result};

use super::{FOLDER, LEFT, PREFIX, RIGHT, relaying};
use crate::tunnel::cell::{Path, TunnelCell};
use crate::tunnel::interface;
use crate::tunnel::rig::{Place, Rig};
use crate::tunnel::system::{Found, START_MAX, Tunnel, TunnelSystem, run_once};

const PORT: u16 = 1_194;
const INTERFACE: &str = "ovpn0";

/// Two ends.
pub(super) struct OpenVpn;

impl TunnelSystem for OpenVpn {
    fn name(&self) -> &'static str {
        "openvpn"
    }

    fn find(&self) -> Result<Found> {
        let about = format!("OpenVPN in C, UDP, AES-256-GCM, in user space. {}", relaying::ABOUT);
        super::find(self.name(), &["openvpn"], &about)
    }

    fn unable(&self, cell: &TunnelCell) -> Option<String> {
        relaying::unable(cell)
    }

    fn start(&self, rig: &Rig, cell: &TunnelCell) -> Result<Tunnel> {
        relaying::relay_port(rig, PORT)?;
        let openvpn = super::program("openvpn")?;
        let left = certify(rig, Place::Left)?;
        let right = certify(rig, Place::Right)?;
        let mut processes = Vec::new();
        for (place, other) in [(Place::Right, &left), (Place::Left, &right)] {
            let words = words(place, rig.path, cell.inner_mtu, other);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            processes.push(super::start(rig, place, &openvpn, &words)?);
        }
        for (place, address) in [(Place::Left, LEFT), (Place::Right, RIGHT)] {
            let host = rig.host(place);
            interface::wait_for(host, INTERFACE, START_MAX)?;
            interface::set_up(host, INTERFACE, address, PREFIX, cell.inner_mtu)?;
        }
        for process in &mut processes {
            process.wait_for_line("Initialization Sequence Completed", START_MAX)?;
        }
        Ok(Tunnel { left: LEFT, right: RIGHT, processes, relay: None })
    }
}

/// Makes a key and a certificate in a host; its fingerprint.
fn certify(rig: &Rig, place: Place) -> Result<String> {
    super::write(rig.host(place), &[("openssl.cnf", "[req]\ndistinguished_name = dn\n[dn]\n".to_owned())])?;
    let openssl = |line: &str| {
        let mut command = rig.command(place, "openssl");
        command.args(line.split_whitespace()).env("OPENSSL_CONF", format!("{FOLDER}/openssl.cnf"));
        run_once(command, "").context("make a certificate for openvpn, which takes the program openssl")
    };
    let (key, certificate) = (format!("{FOLDER}/own.key"), format!("{FOLDER}/own.crt"));
    openssl(&format!(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=bench -keyout {key} \
         -out {certificate}"
    ))?;
    let told = openssl(&format!("x509 -in {certificate} -noout -fingerprint -sha256"))?;
    let (_, fingerprint) = told.trim().split_once('=').with_context(|| format!("openssl printed {told:?}"))?;
    Ok(fingerprint.to_owned())
}

/// The command line of an end. The right one waits for the left one, wherever that comes from.
fn words(place: Place, path: Path, inner_mtu: u16, other: &str) -> Vec<String> {
    let role = match (place, path) {
        (Place::Left | Place::Relay, _) => format!("--tls-client --remote {}", Rig::toward_right(path)),
        (Place::Right, Path::Direct) => format!("--tls-server --dh none --remote {}", Rig::LEFT),
        (Place::Right, Path::Relayed) => "--tls-server --dh none --float".to_owned(),
    };
    let line = format!(
        "--dev {INTERFACE} --dev-type tun --proto udp4 --port {PORT} --cipher AES-256-GCM --data-ciphers AES-256-GCM \
         --disable-dco --tun-mtu {inner_mtu} --mssfix 0 --sndbuf 8388608 --rcvbuf 8388608 --allow-compression no \
         --cert {FOLDER}/own.crt --key {FOLDER}/own.key --peer-fingerprint {other} {role}"
    );
    line.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_left_end_calls_and_the_right_one_waits() {
        let line = |place, path| words(place, path, 1_280, "AB:CD").join(" ");
        let left = line(Place::Left, Path::Relayed);
        assert!(left.ends_with("--peer-fingerprint AB:CD --tls-client --remote 10.1.0.2"), "{left}");
        assert!(left.contains("--tun-mtu 1280 ") && left.contains("--cert /run/bench/own.crt "), "{left}");
        assert!(line(Place::Left, Path::Direct).ends_with("--remote 10.2.0.2"));
        assert!(line(Place::Right, Path::Direct).ends_with("--tls-server --dh none --remote 10.1.0.1"));
        let right = line(Place::Right, Path::Relayed);
        assert!(right.ends_with("--float") && !right.contains("--remote"), "it does not know from where: {right}");
    }
}
