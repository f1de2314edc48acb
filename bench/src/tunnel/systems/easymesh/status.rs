//! What `gateway status -json` says of a peer: whether packets to it go where a cell wants them, under the cipher a system has.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::tunnel::cell::Path;

/// The cipher of [`EasyMesh::CHACHA`](super::EasyMesh::CHACHA), as gateways call it.
pub(super) const CHACHA: &str = "ChaCha20-Poly1305";

#[derive(Debug, Deserialize)]
struct Gateway {
    peers: Vec<Peer>,
}

#[derive(Debug, Deserialize)]
struct Peer {
    ip4: Ipv4Addr,
    connected: bool,
    path: Option<String>,
    cipher: Option<String>,
}

/// What is wrong with the way to `peer`, in half a sentence; nothing if packets to it go as they should.
///
/// # Errors
/// The text is no status of a gateway.
pub(super) fn objection(status: &str, peer: Ipv4Addr, path: Path, cipher: Option<&str>) -> Result<Option<String>> {
    let line = status.lines().next().context("the gateway tells no status")?;
    let gateway: Gateway = serde_json::from_str(line).context("what the gateway tells is no status")?;
    let Some(found) = gateway.peers.iter().find(|found| found.ip4 == peer) else {
        return Ok(Some(format!("it does not know {peer}")));
    };
    let taken = found.path.as_deref().unwrap_or("no path");
    let wanted: &[&str] = match path {
        Path::Direct => &["direct", "lan"],
        Path::Relayed => &["relay"],
    };
    let used = found.cipher.as_deref().unwrap_or("no cipher");
    Ok(if !found.connected {
        Some(format!("it has no session with {peer}"))
    } else if !wanted.contains(&taken) {
        Some(format!("it reaches {peer} by {taken}, not by {}", wanted.join(" or ")))
    } else if cipher.is_some_and(|cipher| cipher != used) {
        Some(format!("it talks to {peer} under {used}"))
    } else {
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Ipv4Addr = Ipv4Addr::new(172, 168, 3, 2);

    fn told(connected: bool, path: &str, cipher: &str) -> String {
        format!(
            "{{\"schema\":1,\"inside_mtu\":1380,\"peers\":[{{\"ip4\":\"172.168.3.9\",\"connected\":false,\"path\":null,\
             \"cipher\":null}},{{\"ip4\":\"{PEER}\",\"connected\":{connected},\"path\":{path},\"cipher\":{cipher},\
             \"bytes_in\":7}}]}}\n"
        )
    }

    fn objection_to(status: &str, path: Path, cipher: Option<&str>) -> Option<String> {
        objection(status, PEER, path, cipher).unwrap()
    }

    #[test]
    fn a_path_of_the_wanted_kind_is_none_to_object_to() {
        for (path, kind) in [(Path::Direct, "\"direct\""), (Path::Direct, "\"lan\""), (Path::Relayed, "\"relay\"")] {
            assert_eq!(objection_to(&told(true, kind, "\"AES-256-GCM\""), path, None), None, "{kind}");
        }
        assert_eq!(objection_to(&told(true, "\"lan\"", "\"ChaCha20-Poly1305\""), Path::Direct, Some(CHACHA)), None);
    }

    #[test]
    fn any_other_way_is_objected_to() {
        let aes = "\"AES-256-GCM\"";
        for (status, path, cipher, word) in [
            (told(true, "\"relay\"", aes), Path::Direct, None, "by relay"),
            (told(true, "\"lan\"", aes), Path::Relayed, None, "by lan"),
            (told(true, "null", aes), Path::Direct, None, "by no path"),
            (told(false, "\"direct\"", aes), Path::Direct, None, "no session"),
            (told(true, "\"direct\"", aes), Path::Direct, Some(CHACHA), "under AES-256-GCM"),
            ("{\"peers\":[]}".to_owned(), Path::Direct, None, "does not know"),
        ] {
            let why = objection_to(&status, path, cipher).expect("an objection");
            assert!(why.contains(word), "{why}");
        }
    }

    #[test]
    fn what_is_no_status_is_an_error() {
        for text in ["", "no gateway runs here\n", "{\"peers\":3}"] {
            assert!(objection(text, PEER, Path::Direct, None).is_err(), "{text:?}");
        }
    }
}
