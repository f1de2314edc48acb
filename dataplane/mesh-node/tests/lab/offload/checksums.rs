//! Checksums, verified where nobody completes them any more: the applications are hosts of their own, behind the
//! gateways' hosts, which translate addresses for them. The cables to them complete all checksums and cut all
//! superpackets.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use mesh_lab::{Frame, Host, Link, isolated};

use super::stream::Copy;
use super::{COMBINATIONS, Pair, udp};

const BYTES: u64 = 16_000_000;
/// What both cables and both interfaces carry.
const MTU: u32 = 1280;

/// A host behind the host of gateway `number`: what arrives for the gateway's addresses is passed on to it, and it
/// speaks by them.
struct Behind {
    host: Host,
    link: Link,
    addresses: [IpAddr; 2],
}

impl Behind {
    fn new(pair: &Pair, number: usize) -> Result<Self> {
        let (office, host) = (&pair.site.offices[number], pair.site.lab.host(&format!("behind{number}"))?);
        let nets = [format!("10.9.{number}.0/24"), format!("fd99:{number}::/64")];
        let link = pair.site.lab.link(office, &host, &[&nets[0], &nets[1]])?;
        link.set_mtu(MTU)?;
        for knob in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            office.sysctl(knob, "1")?;
        }
        let addresses = [host.ipv4()?, host.ipv6()?];
        host.default_route(office.interface(link.a().name())?.addresses()[0].address())?;
        host.default_route(office.interface(link.a().name())?.addresses()[1].address())?;
        let rules = format!(
            "table inet behind {{
                chain in {{
                    type nat hook prerouting priority -100;
                    iifname mesh0 meta l4proto {{ tcp, udp }} dnat ip to {}
                    iifname mesh0 meta l4proto {{ tcp, udp }} dnat ip6 to {}
                }}
                chain out {{
                    type nat hook postrouting priority 100;
                    oifname mesh0 masquerade
                }}
            }}\n",
            addresses[0], addresses[1]
        );
        let mut nft = office.command("nft");
        nft.args(["--file", "-"]).stdin(Stdio::piped());
        let mut nft = nft.spawn().context("start nft")?;
        nft.stdin.take().context("its input")?.write_all(rules.as_bytes())?;
        ensure!(nft.wait()?.success(), "nft refuses {rules}");
        // What comes to the host is finished; so is what it sends, unless trains are asked for.
        link.a().set_transmit_offloads(false)?;
        link.a().set_checksum_offload(false)?;
        link.set_receive_offloads(false)?;
        Ok(Self { host, link, addresses })
    }

    /// Whether the host sends superpackets, with checksums undone, or finished packets.
    fn send_trains(&self, on: bool) -> Result<()> {
        if !on {
            self.link.b().set_transmit_offloads(false)?;
        }
        self.link.b().set_checksum_offload(on)?;
        if on { self.link.b().set_transmit_offloads(true) } else { Ok(()) }
    }
}

trait BothEnds {
    fn set_receive_offloads(&self, on: bool) -> Result<()>;
}

impl BothEnds for Link {
    fn set_receive_offloads(&self, on: bool) -> Result<()> {
        self.a().set_receive_offloads(on)?;
        self.b().set_receive_offloads(on)
    }
}

/// What a verifier has seen.
#[derive(Debug, Default)]
struct Verified {
    tcp: u32,
    udp: u32,
    fragments: u32,
}

/// The ones' complement sum of RFC 1071: 0xffff over bytes with a right checksum among them.
fn sum<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> u16 {
    let bytes: Vec<u8> = pieces.into_iter().flatten().copied().collect();
    let mut sum: u64 = 0;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Verifies a packet's transport, whole: TCP or UDP behind these addresses.
fn verify_transport(addresses: &[u8], protocol: u8, segment: &[u8], verified: &mut Verified) -> Result<()> {
    let least = match protocol {
        6 => 20,
        17 => 8,
        _ => return Ok(()),
    };
    ensure!(segment.len() >= least, "{} bytes of protocol {protocol}", segment.len());
    let pseudo = [addresses, &(segment.len() as u32).to_be_bytes()[..], &[0, 0, 0, protocol][..], segment];
    let sum = sum(pseudo);
    ensure!(sum == 0xffff, "protocol {protocol}, {} bytes: the sum is {sum:#06x}", segment.len());
    if protocol == 17 {
        ensure!(segment[6..8] != [0, 0], "a datagram without a checksum");
        verified.udp += 1;
    } else {
        verified.tcp += 1;
    }
    Ok(())
}

/// Pieces of a packet with their places, by the packet's addresses, protocol and number.
type Pieces = BTreeMap<Vec<u8>, BTreeMap<usize, (Vec<u8>, bool)>>;

/// Adds a fragment. All of the packet, once it is there.
fn reassemble(pieces: &mut Pieces, key: Vec<u8>, at: usize, more: bool, bytes: &[u8]) -> Option<Vec<u8>> {
    let own = pieces.entry(key.clone()).or_default();
    own.insert(at, (bytes.to_vec(), more));
    let mut whole = Vec::new();
    let mut ended = false;
    for (at, (bytes, more)) in own.iter() {
        if *at != whole.len() {
            return None;
        }
        whole.extend_from_slice(bytes);
        ended = !more;
    }
    ended.then(|| {
        pieces.remove(&key);
        whole
    })
}

/// Verifies a frame of an Ethernet.
fn verify(bytes: &[u8], pieces: &mut Pieces, verified: &mut Verified) -> Result<()> {
    let (ether, packet) = bytes.split_at_checked(14).context("a short frame")?;
    let word = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    match ether[12..] {
        [0x08, 0x00] => {
            let header = usize::from(packet[0] & 15) * 4;
            ensure!(sum([&packet[..header]]) == 0xffff, "the checksum of an IPv4 header");
            ensure!(word(2) <= MTU as usize, "{} bytes in a packet", word(2));
            let (addresses, protocol, body) = (&packet[12..20], packet[9], &packet[header..word(2)]);
            let (at, more) = ((word(6) & 0x1fff) * 8, word(6) & 0x2000 != 0);
            if at == 0 && !more {
                return verify_transport(addresses, protocol, body, verified);
            }
            verified.fragments += 1;
            let key = [addresses, &packet[4..6], &[protocol]].concat();
            match reassemble(pieces, key, at, more, body) {
                Some(whole) => verify_transport(addresses, protocol, &whole, verified),
                None => Ok(()),
            }
        }
        [0x86, 0xdd] => {
            ensure!(40 + word(4) <= MTU as usize, "{} bytes in a packet", 40 + word(4));
            let (addresses, body) = (&packet[8..40], &packet[40..40 + word(4)]);
            if packet[6] != 44 {
                return verify_transport(addresses, packet[6], body, verified);
            }
            verified.fragments += 1;
            let (place, body) = body.split_at_checked(8).context("a short fragment header")?;
            let at = usize::from(u16::from_be_bytes([place[2], place[3]]));
            let key = [addresses, &place[4..8], &place[..1]].concat();
            match reassemble(pieces, key, at & 0xfff8, at & 1 != 0, body) {
                Some(whole) => verify_transport(addresses, place[0], &whole, verified),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// Verifies all that a host was sent.
fn verify_all<'a>(frames: impl Iterator<Item = &'a Frame>) -> Result<Verified> {
    let (mut pieces, mut verified) = (Pieces::new(), Verified::default());
    for (number, frame) in frames.enumerate() {
        verify(&frame.bytes, &mut pieces, &mut verified).with_context(|| {
            let start = &frame.bytes[..frame.bytes.len().min(80)];
            format!("frame {number} of {} bytes: {start:02x?}", frame.bytes.len())
        })?;
    }
    ensure!(pieces.is_empty(), "{} packets lack fragments", pieces.len());
    Ok(verified)
}

fn right_behind(offload: [&str; 2]) -> Result<()> {
    let [first, second] = offload.map(|offload| ["-offload", offload]);
    let name = format!("behind_{}_{}", offload[0], offload[1]);
    let pair = Pair::new(&name, "lan", [&first, &second])?;
    let behind = [Behind::new(&pair, 0)?, Behind::new(&pair, 1)?];
    for trains in [true, false] {
        let mut captures = Vec::new();
        for one in &behind {
            one.send_trains(trains)?;
            captures.push(one.host.capture(one.link.b().name())?);
        }
        let mut targets = Vec::new();
        for (family, address) in pair.addresses[1].into_iter().enumerate() {
            targets.push([address, behind[1].addresses[family]]);
            Copy::new(BYTES, family == 0).run(&behind[0].host, &behind[1].host, targets[family])?;
        }
        udp::all_flows(&name, &behind[0].host, &behind[1].host, [targets[0], targets[1]], MTU as usize)?;
        let mut seen = Vec::new();
        for (number, capture) in captures.into_iter().enumerate() {
            let recording = capture.stop()?;
            ensure!(recording.lost == 0, "{} frames were not seen", recording.lost);
            let to_host = recording.frames.iter().filter(|frame| !frame.outgoing);
            let verified = verify_all(to_host).with_context(|| format!("{name}, trains {trains}, host {number}"))?;
            ensure!(verified.tcp > 5_000, "too little was seen: {verified:?}");
            seen.push(verified);
        }
        ensure!(seen[1].udp > 10_000 && seen[1].fragments > 1_000, "too little was seen: {seen:?}");
        println!("{name}, hosts that send {}: right are {seen:?}", if trains { "trains" } else { "packets" });
    }
    pair.assert_healthy(offload)
}

#[test]
fn right_behind_two_gateways_with_offloads() {
    isolated(|| right_behind(COMBINATIONS[0]));
}

#[test]
fn right_behind_a_sender_with_offloads() {
    isolated(|| right_behind(COMBINATIONS[1]));
}

#[test]
fn right_behind_a_receiver_with_offloads() {
    isolated(|| right_behind(COMBINATIONS[2]));
}

#[test]
fn right_without_offloads() {
    isolated(|| right_behind(COMBINATIONS[3]));
}

#[test]
fn the_verifier_sees_what_is_wrong() {
    // A datagram of two bytes over IPv4, as RFC 768 and RFC 791 have it.
    let mut frame = vec![0; 12];
    frame.extend([0x08, 0x00]);
    frame.extend([0x45, 0, 0, 30, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0, 9, 0, 9, 0, 10, 0, 0, 0xab, 0xcd]);
    let header = !sum([&frame[14..34]]);
    frame[24..26].copy_from_slice(&header.to_be_bytes());
    let datagram = !sum([&frame[26..34], &[0, 0, 0, 10, 0, 0, 0, 17], &frame[34..]]);
    frame[40..42].copy_from_slice(&datagram.to_be_bytes());
    let check = |frame: &[u8]| verify(frame, &mut Pieces::new(), &mut Verified::default());
    check(&frame).expect("it is right");
    for at in 14..frame.len() {
        let mut wrong = frame.clone();
        wrong[at] ^= 0x10;
        assert!(check(&wrong).is_err(), "byte {at}");
    }
}
