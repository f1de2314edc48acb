//! From outside to inside: neighbours of one flow become one packet.
//!
//! What Linux does when it gathers what it receives (`tcp_gro_receive`, `udp_gro_receive_segment`, `inet_gro_flush`) is
//! done here with the packets of one train, where they lie: the first one's headers are rewritten for all, and of the
//! others the payload is named. One rule stands above: cut again, by this module or by Linux, each packet comes out as
//! it was offered, with every byte of its headers, and a checksum that was partial is complete and right. So a packet
//! joins only if
//!
//! - all that a cut copies is equal: addresses, ports, traffic class and flow label, time to live, DF, and of TCP the
//!   acknowledgement, window, urgent pointer, flags and options, timestamps included;
//! - all that a cut counts is next in order: the sequence number of TCP, and the identification of IPv4. Equal
//!   identifications, which unconnected UDP sockets of Linux have, do not join: a virtio-net header cannot ask for
//!   them;
//! - all that a cut computes is as it would be computed: the IPv4 header's checksum, and the transport's unless it is
//!   partial. A packet whose checksum is wrong is passed on alone and unchanged, for whoever receives it to see;
//! - the packet before was neither shorter than the first, nor had PSH or FIN, which a cut leaves to the last; it has
//!   no CWR, which a cut leaves to the first; it has payload; it is no SYN, RST, fragment or urgent data, and has no
//!   IPv4 options.
//!
//! Several runs are open at a time, since several flows share a train. Within a flow, nothing overtakes: what does not
//! join ends the run of its flow first, and what is no TCP or UDP packet ends all runs. Between flows there is no order
//! to keep.

use std::ops::Range;

use super::layout::{Layout, Transport, double_word, ipv4_checksum, put_word, tcp, word};
use super::single::arrive_as;
use super::virtio::{Cut, VirtioHeader};
use crate::drops::DropReason;
use crate::gateway::ip::{IPV4_BYTES, IPV6_BYTES};
use crate::seam::{Action, Offloads, VIRTIO_BYTES};

/// Runs that are open at a time: flows of one train that do not cut each other short.
const RUNS_OPEN: usize = 4;
/// Bytes of the longest packet that an interface takes, with its headers.
const PACKET_BYTES_MAX: usize = 65_535;
/// The only bit that may be set beside the fragment offset: DF.
const DONT_FRAGMENT: u16 = 0x4000;

/// Joins packets of one train at a time.
///
/// [`Coalescer::offer`] takes each packet in the order in which they came, and [`Coalescer::finish`] must be called
/// after the last one, before the train's buffer is used for anything else.
#[derive(Debug)]
pub(in crate::gateway) struct Coalescer {
    offloads: Offloads,
    runs: [Run; RUNS_OPEN],
    /// Runs opened in this train.
    opened: u32,
}

/// Packets that are to be delivered as one.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Which one it was to be opened; zero if it is not open. Runs are delivered in this order.
    number: u32,
    /// The first packet: where it starts, and its length.
    start: usize,
    bytes: usize,
    layout: Layout,
    /// The first packet's checksum is partial.
    partial: bool,
    /// The first packet's checksums were found right.
    verified: bool,
    /// Bytes of all, with one set of headers.
    total_bytes: usize,
    /// What the next packet has to have: sequence number of TCP, identification of IPv4.
    next_sequence: u32,
    next_id: u16,
    /// FIN and PSH of the last packet.
    last_flags: u8,
    /// Payloads after the first: where they start, and their lengths.
    more: [(u32, u32); Action::MORE_MAX],
    more_count: usize,
}

/// What a packet is to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    /// It joins.
    Joins,
    /// It joins, and is the last to do so.
    JoinsLast,
    /// It does not join, but may begin a run of its own.
    Begins,
    /// A checksum of it is wrong.
    Broken,
}

/// A packet at hand.
struct Packet<'a> {
    bytes: &'a [u8],
    layout: Layout,
    partial: bool,
}

impl Coalescer {
    /// For an interface with `offloads`: what it does not take joined is delivered singly, and a partial checksum is
    /// completed for one that takes none.
    pub(in crate::gateway) const fn new(offloads: Offloads) -> Self {
        Self { offloads, runs: [Run::CLOSED; RUNS_OPEN], opened: 0 }
    }

    /// Takes the inner packet that lies at `packet` in the train. `partial` tells whether it came with
    /// [`CHECKSUM_PARTIAL`](mesh_wire::sealed::flags::CHECKSUM_PARTIAL). Where the interface has offloads, the
    /// [`VIRTIO_BYTES`] in front of the packet are used for its header: nothing that is still needed may lie there.
    ///
    /// What is to be done is appended to `actions`, now or at a later call.
    ///
    /// # Errors
    /// [`DropReason::BadOffload`]: marked partial, and not a whole TCP or UDP packet, or a fragment, or with IPv6
    /// extension headers.
    pub(in crate::gateway) fn offer(
        &mut self,
        train: &mut [u8],
        packet: Range<usize>,
        partial: bool,
        actions: &mut Vec<Action>,
    ) -> Result<(), DropReason> {
        let Some(layout) = Layout::read(&train[packet.clone()]) else {
            if partial {
                return Err(DropReason::BadOffload);
            }
            self.end_all(train, actions);
            self.deliver_alone(train, packet, None, actions);
            return Ok(());
        };
        let left_partial = partial.then_some(layout);
        let joins = self.offloads.checksum
            && match layout.transport {
                Transport::Tcp => self.offloads.tcp,
                Transport::Udp => self.offloads.udp,
            };
        if !joins {
            // No run is open of such a flow.
            self.deliver_alone(train, packet, left_partial, actions);
            return Ok(());
        }
        let at_hand = Packet { bytes: &train[packet.clone()], layout, partial };
        let found = self.runs.iter_mut().position(|run| run.is_of_flow(train, &at_hand));
        let mut begins = at_hand.begins();
        if let Some(found) = found {
            let run = &mut self.runs[found];
            match if at_hand.joins() { run.fit(train, &at_hand) } else { Fit::Begins } {
                Fit::Joins => {
                    run.append(&at_hand, packet.start);
                    return Ok(());
                }
                Fit::JoinsLast => {
                    run.append(&at_hand, packet.start);
                    run.end(train, actions);
                    return Ok(());
                }
                Fit::Begins => {}
                Fit::Broken => begins = false,
            }
            run.end(train, actions);
        }
        if begins {
            self.begin(train, packet, layout, partial, actions);
        } else {
            self.deliver_alone(train, packet, left_partial, actions);
        }
        Ok(())
    }

    /// Ends the train: delivers what is still held back.
    pub(in crate::gateway) fn finish(&mut self, train: &mut [u8], actions: &mut Vec<Action>) {
        self.end_all(train, actions);
        self.opened = 0;
    }

    /// Opens a run with its first packet; where all are open, the oldest ends.
    fn begin(
        &mut self,
        train: &mut [u8],
        packet: Range<usize>,
        layout: Layout,
        partial: bool,
        actions: &mut Vec<Action>,
    ) {
        let run = self.runs.iter_mut().min_by_key(|run| run.number).expect("there are several");
        run.end(train, actions);
        self.opened += 1;
        let bytes = &train[packet.clone()];
        let payload = u32::try_from(packet.len() - layout.header_bytes).expect("a payload of a packet");
        run.number = self.opened;
        run.start = packet.start;
        run.bytes = packet.len();
        run.layout = layout;
        run.partial = partial;
        run.verified = false;
        run.total_bytes = packet.len();
        run.next_sequence = match layout.transport {
            Transport::Tcp => double_word(bytes, layout.transport_at + 4).wrapping_add(payload),
            Transport::Udp => 0,
        };
        run.next_id = if layout.v6 { 0 } else { word(bytes, 4).wrapping_add(1) };
        run.last_flags = 0;
        run.more_count = 0;
    }

    /// Ends all runs, in the order in which they were opened.
    fn end_all(&mut self, train: &mut [u8], actions: &mut Vec<Action>) {
        while let Some(run) = self.runs.iter_mut().filter(|run| run.is_open()).min_by_key(|run| run.number) {
            run.end(train, actions);
        }
    }

    fn deliver_alone(
        &self,
        train: &mut [u8],
        packet: Range<usize>,
        partial: Option<Layout>,
        actions: &mut Vec<Action>,
    ) {
        let header = match partial {
            Some(layout) => arrive_as(&mut train[packet.clone()], &layout, self.offloads),
            None => VirtioHeader::default(),
        };
        let bytes = if self.offloads.checksum { put_header(train, packet, &header) } else { packet };
        actions.push(Action::Deliver { bytes });
    }
}

impl Packet<'_> {
    fn payload_bytes(&self) -> usize {
        self.bytes.len() - self.layout.header_bytes
    }

    /// TCP's flags; none for UDP.
    fn flags(&self) -> u8 {
        match self.layout.transport {
            Transport::Tcp => self.bytes[self.layout.transport_at + 13],
            Transport::Udp => 0,
        }
    }

    /// Whether others may join it: it may join others, and is not the last by its own word.
    fn begins(&self) -> bool {
        self.flags() & (tcp::FIN | tcp::PSH) == 0 && self.is_plain()
    }

    /// Whether it may join others.
    fn joins(&self) -> bool {
        self.flags() & tcp::CWR == 0 && self.is_plain()
    }

    /// Whether it is a packet of data such as a cut makes.
    fn is_plain(&self) -> bool {
        let Layout { v6, transport, transport_at, .. } = self.layout;
        let ip = v6 || (transport_at == IPV4_BYTES && word(self.bytes, 6) & !DONT_FRAGMENT == 0);
        let transport = match transport {
            Transport::Tcp => self.flags() & (tcp::SYN | tcp::RST | tcp::URG) == 0,
            // A cut gives each a checksum.
            Transport::Udp => self.partial || word(self.bytes, transport_at + 6) != 0,
        };
        ip && transport && self.payload_bytes() > 0
    }

    /// Whether its checksums are as a cut computes them. Spelled otherwise (TCP's 0xffff for 0) they are not wrong, but
    /// they would not come out again.
    fn is_verified(&self) -> bool {
        let header = self.layout.v6 || word(self.bytes, 10) == ipv4_checksum(&self.bytes[..IPV4_BYTES]);
        header && (self.partial || word(self.bytes, self.layout.checksum_at()) == self.layout.checksum(self.bytes))
    }
}

impl Run {
    const CLOSED: Self = Self {
        number: 0,
        start: 0,
        bytes: 0,
        layout: Layout { v6: false, transport: Transport::Tcp, transport_at: 0, header_bytes: 0 },
        partial: false,
        verified: false,
        total_bytes: 0,
        next_sequence: 0,
        next_id: 0,
        last_flags: 0,
        more: [(0, 0); Action::MORE_MAX],
        more_count: 0,
    };

    const fn is_open(&self) -> bool {
        self.number != 0
    }

    fn first<'a>(&self, train: &'a [u8]) -> Packet<'a> {
        Packet { bytes: &train[self.start..self.start + self.bytes], layout: self.layout, partial: self.partial }
    }

    /// Whether it is open and of the packet's addresses, protocol and ports.
    fn is_of_flow(&self, train: &[u8], packet: &Packet<'_>) -> bool {
        if !self.is_open() || self.layout.v6 != packet.layout.v6 || self.layout.transport != packet.layout.transport {
            return false;
        }
        let first = self.first(train).bytes;
        self.layout.ports(first) == packet.layout.ports(packet.bytes)
            && self.layout.addresses(first) == packet.layout.addresses(packet.bytes)
    }

    /// What a packet of the same flow that may join others is to this run.
    fn fit(&mut self, train: &[u8], packet: &Packet<'_>) -> Fit {
        let first = self.first(train);
        let payload_bytes = packet.payload_bytes();
        let longest = first.payload_bytes();
        if payload_bytes > longest
            || self.total_bytes + payload_bytes > PACKET_BYTES_MAX
            || self.layout != packet.layout
            || !self.continues(first.bytes, packet)
        {
            return Fit::Begins;
        }
        if !self.verified {
            if !first.is_verified() {
                return Fit::Begins;
            }
            self.verified = true;
        }
        if !packet.is_verified() {
            return Fit::Broken;
        }
        let last = payload_bytes < longest
            || packet.flags() & (tcp::FIN | tcp::PSH) != 0
            || self.more_count + 1 == Action::MORE_MAX;
        if last { Fit::JoinsLast } else { Fit::Joins }
    }

    /// Whether the headers of a packet of the same flow and layout are those that a cut gives the next one.
    fn continues(&self, first: &[u8], packet: &Packet<'_>) -> bool {
        let Layout { v6, transport, transport_at, header_bytes } = self.layout;
        let next = packet.bytes;
        let same = |range: Range<usize>| first[range.clone()] == next[range];
        let ip = if v6 {
            // Traffic class and flow label; next header and hop limit.
            same(0..4) && same(6..8)
        } else {
            // Traffic class; DF, time to live and protocol.
            same(0..2) && same(6..10) && word(next, 4) == self.next_id
        };
        ip && match transport {
            Transport::Udp => true,
            Transport::Tcp => {
                let tcp_first = &first[transport_at..header_bytes];
                let tcp_next = &next[transport_at..header_bytes];
                let same = |range: Range<usize>| tcp_first[range.clone()] == tcp_next[range];
                // Acknowledgement and header length; flags; window; urgent pointer and options.
                double_word(tcp_next, 4) == self.next_sequence
                    && same(8..13)
                    && (tcp_first[13] ^ tcp_next[13]) & !(tcp::FIN | tcp::PSH | tcp::CWR) == 0
                    && same(14..16)
                    && same(18..header_bytes - transport_at)
            }
        }
    }

    /// Takes a packet that [fits](Run::fit), which lies at `start`.
    fn append(&mut self, packet: &Packet<'_>, start: usize) {
        let payload = u32::try_from(packet.payload_bytes()).expect("a payload of a packet");
        let at = u32::try_from(start + self.layout.header_bytes).expect("a train is no longer than 64 KiB");
        self.more[self.more_count] = (at, payload);
        self.more_count += 1;
        self.total_bytes += packet.payload_bytes();
        self.next_sequence = self.next_sequence.wrapping_add(payload);
        self.next_id = self.next_id.wrapping_add(1);
        self.last_flags = packet.flags() & (tcp::FIN | tcp::PSH);
    }

    /// Delivers what was gathered, if the run is open, and closes it.
    fn end(&mut self, train: &mut [u8], actions: &mut Vec<Action>) {
        if !self.is_open() {
            return;
        }
        self.number = 0;
        let packet = self.start..self.start + self.bytes;
        let header = self.rewrite(&mut train[packet.clone()]);
        actions.push(Action::Deliver { bytes: put_header(train, packet, &header) });
        actions.extend(self.more[..self.more_count].iter().map(|&(at, bytes)| {
            let at = usize::try_from(at).expect("a place in the train");
            Action::DeliverMore { bytes: at..at + usize::try_from(bytes).expect("a payload of a packet") }
        }));
    }

    /// Makes the first packet's headers those of all, and says which header goes in front of it.
    fn rewrite(&self, packet: &mut [u8]) -> VirtioHeader {
        let Layout { v6, transport, transport_at, header_bytes } = self.layout;
        let length = |bytes: usize| u16::try_from(bytes).expect("at most 65,535");
        let transport_bytes = self.total_bytes - transport_at;
        if self.more_count == 0 && !self.partial {
            return VirtioHeader::default();
        }
        put_word(packet, self.layout.checksum_at(), self.layout.pseudo_sum(packet, transport_bytes));
        let checksum = Some(self.layout.partial());
        if self.more_count == 0 {
            return VirtioHeader { checksum, cut: None };
        }
        if v6 {
            put_word(packet, 4, length(self.total_bytes - IPV6_BYTES));
        } else {
            put_word(packet, 2, length(self.total_bytes));
            put_word(packet, 10, ipv4_checksum(&packet[..IPV4_BYTES]));
        }
        let mut ecn = false;
        match transport {
            Transport::Tcp => {
                packet[transport_at + 13] |= self.last_flags;
                ecn = packet[transport_at + 13] & tcp::CWR != 0;
            }
            Transport::Udp => put_word(packet, transport_at + 4, length(transport_bytes)),
        }
        let payload_bytes = length(self.bytes - header_bytes);
        let cut = Cut { kind: self.layout.kind(), ecn, header_bytes: length(header_bytes), payload_bytes };
        VirtioHeader { checksum, cut: Some(cut) }
    }
}

/// Writes the header right in front of a packet, and says where both lie.
fn put_header(train: &mut [u8], packet: Range<usize>, header: &VirtioHeader) -> Range<usize> {
    let start = packet.start.checked_sub(VIRTIO_BYTES).expect("a sealed frame's header lies in front of its packet");
    train[start..packet.start].copy_from_slice(&header.emit());
    start..packet.end
}
