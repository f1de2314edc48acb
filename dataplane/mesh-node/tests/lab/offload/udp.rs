//! UDP bursts of all sizes: every datagram arrives once, unchanged and in order.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use mesh_lab::{Host, isolated};
use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};

use super::stream::bytes;
use super::{COMBINATIONS, Pair};

/// Datagrams of one test, per socket.
const DATAGRAMS: u32 = 12_000;
/// Nothing was lost if the next one is there within this time.
const WAIT: Duration = Duration::from_secs(5);
/// After the last one nothing else comes within this time.
const QUIET: Duration = Duration::from_millis(200);
/// What may be on its way of one flow by the kernel's accounts, which for a datagram are its bytes and up to this many
/// more.
const UNDER_WAY_MAX: usize = 400_000;
const ACCOUNT_BYTES: usize = 2_304;
/// Room for all that is on its way at the receiver.
const RECEIVE_BUFFER: usize = 4_000_000;
/// The longest datagrams here, which the kernel sends as fragments.
const FRAGMENTED_MAX: usize = 20_000;
/// Datagrams in one send, and their bytes.
const TRAIN_MAX: usize = 64;
const TRAIN_BYTES_MAX: usize = 65_000;

/// How one socket sends, and another one receives.
#[derive(Clone, Copy, Debug)]
struct Flow {
    /// With `UDP_SEGMENT`.
    segments: bool,
    /// With `UDP_GRO`.
    gathers: bool,
    /// Sends by a connected socket, whose packets are numbered one after the other in IPv4.
    connected: bool,
    /// Some are too long for a packet.
    fragments: bool,
    /// The longest payload of a packet.
    fits: usize,
    /// Where its bytes and sizes begin in the stream.
    seed: u64,
    /// How many.
    datagrams: u32,
}

/// The `number`-th datagram of a flow of single ones.
fn size(flow: Flow, number: u32) -> usize {
    let dice = bytes(flow.seed + u64::from(number) * 5, 4);
    let number = u32::from_le_bytes([dice[0], dice[1], dice[2], dice[3]]) as usize;
    match number % 16 {
        0 => 0,
        1 => 1,
        2..5 => flow.fits,
        5 => flow.fits - 1,
        6 if flow.fragments => flow.fits + 1 + number / 16 % (FRAGMENTED_MAX - flow.fits),
        7..10 => number / 16 % 64,
        _ => number / 16 % flow.fits,
    }
}

/// What it consists of.
fn content(flow: Flow, number: u32, size: usize) -> &'static [u8] {
    bytes(flow.seed + u64::from(number) * 1_009, size)
}

/// Datagrams that are sent together: all of the same size, but the last one, which may be shorter.
struct Train {
    segment: usize,
    last: usize,
    count: usize,
}

/// The train that begins with the `number`-th datagram.
fn train(flow: Flow, number: u32) -> Train {
    let left = (flow.datagrams - number) as usize;
    let first = size(flow, number);
    if !flow.segments || first == 0 || first > flow.fits {
        return Train { segment: first, last: first, count: 1 };
    }
    let dice = bytes(flow.seed + u64::from(number) * 5 + 2, 4);
    let most = TRAIN_MAX.min(TRAIN_BYTES_MAX / first).min(left);
    // Often as many as there may be.
    let count = if dice[0] < 64 { most } else { 1 + usize::from(dice[1]) % most };
    let last = if dice[2] < 128 || count == 1 { first } else { 1 + usize::from(dice[3]) % first };
    Train { segment: first, last, count }
}

/// Sends and receives a flow. `address` is where it is sent to, `listen` where that arrives. How often several
/// datagrams were received at once.
fn run(flow: Flow, from: &Host, to: &Host, [address, listen]: [IpAddr; 2]) -> Result<u32> {
    let receiver = to.udp(SocketAddr::new(listen, 0))?;
    let unspecified: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    let sender = from.udp(SocketAddr::new(unspecified, 0))?;
    let destination = SocketAddr::new(address, receiver.local_addr()?.port());
    setsockopt(&receiver, sockopt::RcvBufForce, &RECEIVE_BUFFER).context("a larger buffer")?;
    if flow.gathers {
        setsockopt(&receiver, sockopt::UdpGroSegment, &true).context("UDP_GRO")?;
    }
    if flow.connected {
        sender.connect(destination)?;
    }
    let (arrived, arrivals) = channel();
    thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(flow, &receiver, arrived));
        let sent = send(flow, &sender, destination, &arrivals);
        drop(arrivals);
        let received = receiver.join().map_err(|_| anyhow!("the receiver panicked")).and_then(|result| result);
        // A receiver says more than the sender that fails in consequence.
        received.and_then(|gathered| sent.map(|()| gathered))
    })
    .with_context(|| format!("{flow:?}"))
}

fn send(flow: Flow, socket: &UdpSocket, to: SocketAddr, arrivals: &Receiver<usize>) -> Result<()> {
    let (mut number, mut under_way) = (0, 0);
    let destination = SockaddrStorage::from(to);
    let destination = (!flow.connected).then_some(&destination);
    while number < flow.datagrams {
        let Train { segment, last, count } = train(flow, number);
        let mut payload = Vec::with_capacity(segment * count);
        for place in 0..count {
            let size = if place + 1 == count { last } else { segment };
            payload.extend_from_slice(content(flow, number + place as u32, size));
        }
        let cost = payload.len() + count * ACCOUNT_BYTES;
        while under_way > 0 && under_way + cost > UNDER_WAY_MAX {
            under_way -= arrivals.recv_timeout(WAIT).with_context(|| format!("before datagram {number}"))?;
        }
        under_way += cost;
        let segment_bytes = u16::try_from(segment).expect("a datagram");
        let control = [ControlMessage::UdpGsoSegments(&segment_bytes)];
        let control = if count > 1 { &control[..] } else { &[] };
        let parts = [IoSlice::new(&payload)];
        let sent = sendmsg(socket.as_raw_fd(), &parts, control, MsgFlags::empty(), destination)
            .with_context(|| format!("send {count} datagrams of {segment} bytes from {number} on"))?;
        ensure!(sent == payload.len(), "{sent} of {} bytes were sent", payload.len());
        number += count as u32;
    }
    Ok(())
}

fn receive(flow: Flow, socket: &UdpSocket, arrived: Sender<usize>) -> Result<u32> {
    let (mut buffer, mut expected) = (vec![0; 66_000], Expected { flow, number: 0, place: 0 });
    socket.set_read_timeout(Some(WAIT))?;
    let mut gathered = 0;
    while expected.number < flow.datagrams {
        let (length, segment) = receive_one(socket, &mut buffer).with_context(|| expected.text())?;
        let datagrams: Vec<&[u8]> = match segment {
            Some(segment) => buffer[..length].chunks(segment).collect(),
            None => vec![&buffer[..length]],
        };
        gathered += u32::from(datagrams.len() > 1);
        for datagram in datagrams {
            expected.check(datagram).with_context(|| late(socket, &expected))?;
            // The sender has ended if it has sent all.
            _ = arrived.send(datagram.len() + ACCOUNT_BYTES);
        }
    }
    socket.set_read_timeout(Some(QUIET))?;
    if let Ok((length, _)) = receive_one(socket, &mut buffer) {
        bail!("{length} bytes more than were sent");
    }
    Ok(gathered)
}

/// Whether the datagram that was to come comes later.
fn late(socket: &UdpSocket, expected: &Expected) -> String {
    let (mut buffer, mut others) = (vec![0; 66_000], 0);
    _ = socket.set_read_timeout(Some(QUIET));
    let (size, number) = expected.next();
    let wanted = content(expected.flow, number, size);
    while let Ok((length, segment)) = receive_one(socket, &mut buffer) {
        if buffer[..length].chunks(segment.unwrap_or(length).max(1)).any(|datagram| datagram == wanted) {
            return format!("overtaken: it comes {others} reads later");
        }
        others += 1;
    }
    format!("lost: it is not among {others} reads more")
}

/// Reads once: the bytes, and how many each datagram has where there are several.
fn receive_one(socket: &UdpSocket, buffer: &mut [u8]) -> Result<(usize, Option<usize>)> {
    let mut control = cmsg_space!(i32);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
    ensure!(!message.flags.contains(MsgFlags::MSG_TRUNC), "cut off");
    let mut segment = None;
    for message in message.cmsgs()? {
        if let ControlMessageOwned::UdpGroSegments(bytes) = message {
            segment = Some(usize::try_from(bytes)?).filter(|bytes| *bytes > 0);
        }
    }
    Ok((message.bytes, segment))
}

/// What is to come next.
struct Expected {
    flow: Flow,
    /// The first datagram of its train, and its place there.
    number: u32,
    place: usize,
}

impl Expected {
    fn text(&self) -> String {
        format!("datagram {} of {} of the train of {}", self.place, self.flow.datagrams, self.number)
    }

    /// Its bytes, and its number.
    fn next(&self) -> (usize, u32) {
        let Train { segment, last, count } = train(self.flow, self.number);
        (if self.place + 1 == count { last } else { segment }, self.number + self.place as u32)
    }

    fn check(&mut self, found: &[u8]) -> Result<()> {
        ensure!(self.number < self.flow.datagrams, "{} bytes more than were sent", found.len());
        let (size, number) = self.next();
        if found != content(self.flow, number, size) {
            let near = number.saturating_sub(500)..number + 500;
            let other = near.clone().find(|other| found == content(self.flow, *other, found.len()));
            bail!(
                "{}: {} bytes instead of {size}; by their content they are {other:?}, and it is {number}",
                self.text(),
                found.len()
            );
        }
        self.place += 1;
        let count = train(self.flow, self.number).count;
        if self.place == count {
            (self.number, self.place) = (self.number + count as u32, 0);
        }
        Ok(())
    }
}

/// Several flows at once, in all ways of sending and receiving, over IPv4 and IPv6. How often several datagrams were
/// received at once.
pub(super) fn all_flows(name: &str, from: &Host, to: &Host, addresses: [[IpAddr; 2]; 2], mtu: usize) -> Result<u32> {
    let mut gathered = 0;
    for [address, listen] in addresses {
        let headers = if address.is_ipv4() { 28 } else { 48 };
        gathered += thread::scope(|scope| {
            let mut threads = Vec::new();
            for number in 0..4_u8 {
                let [segments, gathers] = [number & 1 != 0, number & 2 != 0];
                let flow = Flow {
                    segments,
                    gathers,
                    connected: segments ^ gathers,
                    fragments: true,
                    fits: mtu - headers,
                    seed: u64::from(number) * 3_000_017,
                    datagrams: DATAGRAMS / 4,
                };
                threads.push(scope.spawn(move || run(flow, from, to, [address, listen])));
            }
            let results: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
            results.into_iter().sum::<Result<u32>>()
        })
        .with_context(|| format!("{name}, to {address}"))?;
    }
    Ok(gathered)
}

fn bursts(engine: &str, path: &str) -> Result<()> {
    for offload in COMBINATIONS {
        let [first, second] = offload.map(|offload| ["-engine", engine, "-offload", offload]);
        let name = format!("{engine}_{path}_{}_{}", offload[0], offload[1]);
        let pair = Pair::new(&name, path, [&first, &second])?;
        let offices = &pair.site.offices;
        for (from, to) in [(0, 1), (1, 0)] {
            let addresses = pair.addresses[to].map(|address| [address, address]);
            let gathered = all_flows(&name, &offices[from], &offices[to], addresses, pair.mtu()?)?;
            println!("{name}, {from} to {to}: intact, {gathered} times several datagrams at once");
            ensure!((gathered > 0) == (offload[to] == "auto"), "{name}: {gathered} times several at once");
        }
        pair.assert_healthy(offload)?;
    }
    Ok(())
}

#[test]
fn bursts_on_uring_and_direct() {
    isolated(|| bursts("uring", "lan"));
}

#[test]
fn bursts_on_uring_and_relayed() {
    isolated(|| bursts("uring", "relay"));
}

#[test]
fn bursts_on_mmsg_and_direct() {
    isolated(|| bursts("mmsg", "lan"));
}

#[test]
fn bursts_on_mmsg_and_relayed() {
    isolated(|| bursts("mmsg", "relay"));
}
