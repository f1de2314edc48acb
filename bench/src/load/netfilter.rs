//! As much of nf_tables over netlink as a counter needs: one table that its socket owns, one chain at the ingress of an interface, a
//! few rules. The kernel removes them when the socket is closed.
//!
//! A message is a header, then attributes of length, type and value, padded to four bytes; attributes nest. What belongs together is
//! a batch, which is carried out as a whole (`linux/netfilter/nf_tables.h`).

use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail};
use mesh_lab::Host;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

/// Seconds the kernel may take to answer.
const PATIENCE: i64 = 5;
/// Room for one answer: the kernel sends dumps in parts of at most 32 KiB.
const ANSWER_BYTES: usize = 64 * 1024;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_APPEND: u16 = 0x800;
const NLMSG_ERROR: u16 = 0x2;
const NLMSG_DONE: u16 = 0x3;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFPROTO_NETDEV: u8 = 5;
const NEW_TABLE: u16 = NFNL_SUBSYS_NFTABLES << 8;
const NEW_CHAIN: u16 = NFNL_SUBSYS_NFTABLES << 8 | 3;
const NEW_RULE: u16 = NFNL_SUBSYS_NFTABLES << 8 | 6;
const GET_RULE: u16 = NFNL_SUBSYS_NFTABLES << 8 | 7;
/// `NFT_TABLE_F_OWNER`: the table goes with the socket that made it.
const TABLE_OWNER: u32 = 2;

const REGISTER: u32 = 1;
const VERDICT_REGISTER: u32 = 0;
const DROP: u32 = 0;
const META_L4PROTO: u32 = 16;
const META_PROTOCOL: u32 = 1;
const PAYLOAD_TRANSPORT: u32 = 2;
const EQUAL: u32 = 0;

/// The only chain of a table.
const CHAIN: &str = "ingress";

const HEADER_BYTES: usize = 16 + 4;

/// A table whose rules count and drop some UDP over IPv4.
#[derive(Debug)]
pub(super) struct DropRules {
    socket: OwnedFd,
    table: String,
    sequence: u32,
}

impl DropRules {
    /// Counts and drops what arrives on an interface for these UDP ports and begins with one of these bytes. There is a rule for each
    /// range, looked at in this order: what matches the first costs the same however many there are.
    pub(super) fn new(
        host: &Host,
        interface: &str,
        table: &str,
        ports: RangeInclusive<u16>,
        first: &[RangeInclusive<u8>],
    ) -> Result<Self> {
        let socket = host.run(|| {
            let socket =
                socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)
                    .context("open a netlink socket to nf_tables")?;
            bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).context("bind a netlink socket")?;
            setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE, 0)).context("limit the wait")?;
            Ok(socket)
        })?;
        let mut rules = Self { socket, table: table.to_owned(), sequence: 0 };
        let mut batch = Batch { bytes: Vec::new(), sequence: 0 };
        batch.edge(NFNL_MSG_BATCH_BEGIN);
        batch.message(NEW_TABLE, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK, |message| {
            message.text(1, table);
            message.number(2, TABLE_OWNER);
        });
        batch.message(NEW_CHAIN, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK, |message| {
            message.text(1, table);
            message.text(3, CHAIN);
            message.nest(4, |hook| {
                hook.number(1, 0); // ingress
                hook.number(2, 0); // priority
                hook.text(3, interface);
            });
            message.text(7, "filter");
        });
        for first in first {
            batch.message(NEW_RULE, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_APPEND | NLM_F_ACK, |message| {
                message.text(1, table);
                message.text(2, CHAIN);
                message.nest(4, |list| expressions(list, &ports, first));
            });
        }
        batch.edge(NFNL_MSG_BATCH_END);
        rules.sequence = batch.sequence;
        rules.send(&batch.bytes)?;
        let table = ["a table", "a chain at the ingress (needs CONFIG_NETFILTER_INGRESS and nf_tables)"];
        for what in table.into_iter().chain(first.iter().map(|_| "a rule")) {
            rules.acknowledged().with_context(|| format!("make {what} on {interface}"))?;
        }
        Ok(rules)
    }

    /// Packets and bytes so far, of all rules.
    pub(super) fn read(&mut self) -> Result<(u64, u64)> {
        self.sequence += 1;
        let mut batch = Batch { bytes: Vec::new(), sequence: self.sequence };
        let table = self.table.clone();
        batch.message(GET_RULE, NLM_F_REQUEST | NLM_F_DUMP, |message| {
            message.text(1, &table);
            message.text(2, CHAIN);
        });
        self.send(&batch.bytes)?;
        let mut found: Option<(u64, u64)> = None;
        loop {
            let answer = self.receive()?;
            for message in messages(&answer) {
                match message.kind {
                    NLMSG_DONE => return found.context("the rules of the counter are gone"),
                    NLMSG_ERROR => error_of(message)?,
                    NEW_RULE => {
                        if let Some((packets, bytes)) = counter_of(message) {
                            let before = found.unwrap_or_default();
                            found = Some((before.0 + packets, before.1 + bytes));
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<()> {
        send(self.socket.as_raw_fd(), bytes, MsgFlags::empty()).context("ask nf_tables")?;
        Ok(())
    }

    fn receive(&self) -> Result<Vec<u8>> {
        let mut answer = vec![0; ANSWER_BYTES];
        let length = loop {
            match recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                received => break received.context("hear from nf_tables")?,
            }
        };
        answer.truncate(length);
        Ok(answer)
    }

    /// Takes the answer to one message of a batch.
    fn acknowledged(&self) -> Result<()> {
        let answer = self.receive()?;
        for message in messages(&answer) {
            if message.kind == NLMSG_ERROR {
                error_of(message)?;
            }
        }
        Ok(())
    }
}

/// What a rule does, in order; each must hold for the next to be looked at.
fn expressions(list: &mut Attributes<'_>, ports: &RangeInclusive<u16>, first: &RangeInclusive<u8>) {
    let equals = |list: &mut Attributes<'_>, value: &[u8]| {
        list.expression("cmp", |data| {
            data.number(1, REGISTER);
            data.number(2, EQUAL);
            data.nest(3, |value_of| value_of.bytes(1, value));
        });
    };
    let within = |list: &mut Attributes<'_>, from: &[u8], to: &[u8]| {
        list.expression("range", |data| {
            data.number(1, REGISTER);
            data.number(2, EQUAL);
            data.nest(3, |value_of| value_of.bytes(1, from));
            data.nest(4, |value_of| value_of.bytes(1, to));
        });
    };
    let load = |list: &mut Attributes<'_>, offset: u32, length: u32| {
        list.expression("payload", |data| {
            data.number(1, REGISTER);
            data.number(2, PAYLOAD_TRANSPORT);
            data.number(3, offset);
            data.number(4, length);
        });
    };
    for (key, value) in [(META_PROTOCOL, &[0x08, 0x00][..]), (META_L4PROTO, &[17])] {
        list.expression("meta", |data| {
            data.number(1, REGISTER);
            data.number(2, key);
        });
        equals(list, value);
    }
    load(list, 2, 2);
    within(list, &ports.start().to_be_bytes(), &ports.end().to_be_bytes());
    load(list, 8, 1);
    if first.start() == first.end() {
        equals(list, &[*first.start()]);
    } else {
        within(list, &[*first.start()], &[*first.end()]);
    }
    list.expression("counter", |_| {});
    list.expression("immediate", |data| {
        data.number(1, VERDICT_REGISTER);
        data.nest(2, |verdict| verdict.nest(2, |code| code.number(1, DROP)));
    });
}

/// Packets and bytes of the counter in a rule.
fn counter_of(message: Message<'_>) -> Option<(u64, u64)> {
    let expressions = find(message.attributes()?, 4)?;
    attributes(expressions).find_map(|(_, expression)| {
        let data = find(expression, 2).filter(|_| find(expression, 1) == Some(b"counter\0"))?;
        let number = |kind| Some(u64::from_be_bytes(*find(data, kind)?.first_chunk()?));
        Some((number(2)?, number(1)?))
    })
}

/// The error that a message carries, if it is one; 0 is an acknowledgement.
fn error_of(message: Message<'_>) -> Result<()> {
    let Some(code) = message.body.first_chunk() else { bail!("nf_tables answers with half a message") };
    match i32::from_ne_bytes(*code) {
        0 => Ok(()),
        code => Err(Errno::from_raw(-code)).context("nf_tables refuses"),
    }
}

/// Messages to be sent.
struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
}

impl Batch {
    /// The message before or after those of a batch.
    fn edge(&mut self, kind: u16) {
        self.header(kind, NLM_F_REQUEST, 0, NFNL_SUBSYS_NFTABLES, HEADER_BYTES);
    }

    fn message(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.bytes.len();
        self.header(kind, flags, NFPROTO_NETDEV, 0, 0);
        fill(&mut Attributes(&mut self.bytes));
        let length = u32::try_from(self.bytes.len() - start).expect("a message is short");
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    fn header(&mut self, kind: u16, flags: u16, family: u8, resource: u16, length: usize) {
        self.sequence += 1;
        let length = u32::try_from(length).expect("a message is short");
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
    }
}

/// Attributes of a message, being written.
struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).expect("an attribute is short");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn text(&mut self, kind: u16, text: &str) {
        self.bytes(kind, &[text.as_bytes(), &[0]].concat());
    }

    fn number(&mut self, kind: u16, number: u32) {
        self.bytes(kind, &number.to_be_bytes());
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.0.len();
        self.bytes(kind | NLA_F_NESTED, &[]);
        fill(&mut Attributes(self.0));
        let length = u16::try_from(self.0.len() - start).expect("an attribute is short");
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Attributes<'_>)) {
        self.nest(1, |element| {
            element.text(1, name);
            element.nest(2, fill);
        });
    }
}

/// A received message.
#[derive(Clone, Copy)]
struct Message<'a> {
    kind: u16,
    /// What follows the netlink header.
    body: &'a [u8],
}

impl<'a> Message<'a> {
    fn attributes(self) -> Option<&'a [u8]> {
        self.body.get(4..)
    }
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
        let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
        let body = bytes.get(16..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, body })
    })
}

fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) & NLA_TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_nest_and_are_padded() {
        let mut bytes = Vec::new();
        let mut written = Attributes(&mut bytes);
        written.text(1, "abcd");
        written.nest(2, |inner| inner.number(3, 0x0102_0304));
        assert_eq!(bytes.len(), 12 + 4 + 8);
        assert_eq!(find(&bytes, 1), Some(&b"abcd\0"[..]));
        assert_eq!(find(&bytes, 2).and_then(|inner| find(inner, 3)), Some(&[1, 2, 3, 4][..]));
        assert_eq!(find(&bytes, 4), None);
    }

    #[test]
    fn broken_answers_end_the_reading() {
        for bytes in [&[][..], &[1], &[0; 16], &[0xff; 20], &[4, 0, 0, 0, 2, 0, 0, 0]] {
            assert_eq!(messages(bytes).count(), 0, "{bytes:?}");
        }
        for bytes in [&[][..], &[3, 0, 1, 0], &[0xff; 5]] {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
        }
    }

    #[test]
    fn the_counter_of_a_rule_is_found() {
        let mut bytes = vec![0; 4];
        Attributes(&mut bytes).nest(4, |list| {
            list.expression("cmp", |_| {});
            list.expression("counter", |data| {
                data.bytes(1, &1_500_u64.to_be_bytes());
                data.bytes(2, &3_u64.to_be_bytes());
            });
        });
        assert_eq!(counter_of(Message { kind: NEW_RULE, body: &bytes }), Some((3, 1_500)));
        assert_eq!(counter_of(Message { kind: NEW_RULE, body: &bytes[..2] }), None);
    }
}
