//! A transfer with its time and its network in the test's hand, and gateways that speak to it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mesh_wire::cookie::CookieReply;
use mesh_wire::frame::FrameType;
use mesh_wire::handshake::{Final, INIT_BYTES, Init, Kind, Response};
use mesh_wire::message::{Message, RefusedReason};
use mesh_wire::route::{Destination, Route, Slot};
use mesh_wire::sealed::{HEADER_BYTES, SealedHeader};

use crate::node::Node;
use crate::seam::{Action, Arrival, Endpoint, Moment, Origin, Slab, SocketId};
use crate::session::aead::RawKeys;
use crate::session::cipher::{Cipher, CipherSet};
use crate::session::handshake::{Initiator, Kind as SessionKind, Params, StaticKey};
use crate::session::mac::{self, Cookie};
use crate::session::token::{NamespaceKeys, StretchedToken};
use crate::transfer::{Event, Transfer, TransferConfig};

pub(super) const FIRST: SocketId = SocketId(0);
pub(super) const SECOND: SocketId = SocketId(1);
pub(super) const PORT: u16 = 8000;

pub(super) type Sent = (Endpoint, Vec<u8>);

pub(super) fn token(byte: u8) -> StretchedToken {
    StretchedToken::from_bytes([byte; 32])
}

pub(super) fn keys(token_byte: u8, port: u16) -> NamespaceKeys {
    NamespaceKeys::derive(&token(token_byte), port, None)
}

pub(super) fn at(socket: SocketId, remote: &str) -> Endpoint {
    let remote: SocketAddr = remote.parse().unwrap();
    Endpoint { socket, remote, local: None }
}

pub(super) struct World {
    pub(super) transfer: Transfer,
    pub(super) now: Moment,
    memory: Vec<u8>,
}

impl World {
    /// A transfer with two namespaces of one token, started at second 1000 of the machine.
    pub(super) fn new() -> Self {
        Self::started(1, Moment::from_nanos(1_000_000_000_000))
    }

    pub(super) fn started(start: u8, now: Moment) -> Self {
        let config = TransferConfig {
            static_key: StaticKey::from_seed([1; 32]),
            boot: u64::from(start),
            ticket_key: [9; 32],
            seed: [start; 32],
        };
        let mut transfer = Transfer::new(config, now);
        transfer.add_namespace(FIRST, PORT, keys(7, PORT));
        transfer.add_namespace(SECOND, PORT + 1, keys(7, PORT + 1));
        Self { transfer, now, memory: vec![0; Slab::ROOM_BYTES] }
    }

    /// The actions for one train, and nothing after it.
    pub(super) fn train(&mut self, from: Endpoint, stride: usize, bytes: &mut [u8]) -> Vec<Action> {
        let arrival = Arrival { origin: Origin::Outside(from), segment_bytes: stride, tos: 0xb8 };
        let mut actions = Vec::new();
        self.transfer.handle(self.now, &arrival, bytes, &mut Slab::new(&mut self.memory, 0), &mut actions);
        actions
    }

    /// Hands in one datagram, runs all jobs, and returns all that is sent.
    pub(super) fn deliver(&mut self, from: Endpoint, datagram: &[u8]) -> Vec<Sent> {
        let mut sent = self.answers(from, datagram);
        sent.extend(self.pump());
        sent
    }

    /// Hands in one datagram and returns what is answered at once.
    pub(super) fn answers(&mut self, from: Endpoint, datagram: &[u8]) -> Vec<Sent> {
        let mut bytes = datagram.to_vec();
        let actions = self.train(from, datagram.len().max(1), &mut bytes);
        let send = |action| match action {
            Action::Forward { bytes: range, to, .. } => (to, bytes[range].to_vec()),
            Action::Send { slab, to, .. } => (to, self.memory[slab].to_vec()),
            other @ (Action::Deliver { .. } | Action::DeliverMore { .. } | Action::DeliverSlab { .. }) => {
                panic!("a transfer delivers nothing: {other:?}")
            }
        };
        actions.into_iter().map(send).collect()
    }

    /// Runs jobs and collects messages until there are none.
    pub(super) fn pump(&mut self) -> Vec<Sent> {
        while let Some(job) = self.transfer.poll_job() {
            self.transfer.handle_job(self.now, job.run());
        }
        let mut sent = Vec::new();
        loop {
            let mut slab = Slab::new(&mut self.memory, 0);
            match self.transfer.poll_transmit(self.now, &mut slab) {
                Some(Action::Send { slab, to, segment_bytes, .. }) => {
                    assert_eq!(segment_bytes, slab.len());
                    sent.push((to, self.memory[slab].to_vec()));
                }
                Some(other) => panic!("not a message: {other:?}"),
                None => return sent,
            }
        }
    }

    /// Lets time pass, stopping wherever something is due.
    pub(super) fn pass(&mut self, time: Duration) -> Vec<Sent> {
        let end = self.now + time;
        let mut sent = Vec::new();
        while let Some(due) = self.transfer.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.transfer.handle_timeout(self.now);
            assert!(self.transfer.poll_timeout().is_none_or(|next| next > self.now), "what is due is done");
            sent.extend(self.pump());
        }
        self.now = end;
        sent
    }

    pub(super) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.transfer.poll_event()).collect()
    }

    /// The addresses that are held. All indexes must agree about them.
    pub(super) fn members(&self) -> Vec<Ipv4Addr> {
        for space in self.transfer.spaces.iter() {
            space.members.check();
            for (index, member) in space.members.iter() {
                assert!(space.slots.holder(index).is_some_and(|slot| space.holder(member.ip4()) == Some(slot)));
                assert!(!space.guests.contains_key(&member.link()));
            }
            assert_eq!(
                space.slots.places().filter(|(index, _)| space.slots.holder(*index).is_some()).count(),
                space.members.len()
            );
            for index in space.rivals.keys().chain(space.challenges.keys()).chain(space.watching.keys()) {
                assert!(space.members.get(*index).is_some(), "what is kept of a member goes with it");
            }
            assert_eq!(space.leases_due.is_some(), space.members.len() > 0);
        }
        for &(socket, index) in self.transfer.moves.keys() {
            assert!(self.transfer.spaces.get(socket).is_some_and(|space| space.members.get(index).is_some()));
        }
        let status = self.transfer.status(self.now);
        status.namespaces.iter().flat_map(|space| &space.members).map(|member| member.ip).collect()
    }
}

pub(super) struct Session {
    index: u32,
    remote_index: u32,
    keys: RawKeys,
    sent: u64,
}

pub(super) struct Gateway {
    pub(super) endpoint: Endpoint,
    pub(super) keys: NamespaceKeys,
    pub(super) key: StaticKey,
    pub(super) boot: u64,
    pub(super) ip4: Ipv4Addr,
    pub(super) slot: Slot,
    pub(super) ticket: Vec<u8>,
    pub(super) sessions: Vec<Session>,
    /// Counts handshakes, for fresh randomness.
    tries: u8,
}

/// A handshake whose init was made.
pub(super) struct Started {
    initiator: Initiator,
    noise: Vec<u8>,
    index: u32,
}

impl Gateway {
    /// The gateway number `n`, at its own address: virtual 10.0.0.n, outside 192.0.2.n.
    pub(super) fn new(socket: SocketId, n: u8) -> Self {
        Self {
            endpoint: at(socket, &format!("192.0.2.{n}:5000")),
            keys: keys(7, PORT + socket.0),
            key: StaticKey::from_seed([n; 32]),
            boot: u64::from(n),
            ip4: Ipv4Addr::new(10, 0, 0, n),
            slot: Slot::NONE,
            ticket: Vec::new(),
            sessions: Vec::new(),
            tries: 0,
        }
    }

    pub(super) fn start(&mut self) -> Started {
        self.tries += 1;
        let mut seed = [self.tries; 32];
        seed[..16].copy_from_slice(&self.key.public()[..16]);
        seed[16..24].copy_from_slice(&self.boot.to_be_bytes());
        let params = Params::new(SessionKind::GatewayToTransfer, &self.keys, &self.key, seed);
        let (boot, number) = (self.boot, u64::from(self.tries));
        let hello = Message::Hello { ciphers: CipherSet::supported().bits(), features: 0, boot, number };
        let (initiator, noise) = Initiator::start(&params, &hello.to_vec()).unwrap();
        Started { initiator, noise, index: 77 + u32::from(self.tries) }
    }

    pub(super) fn init(&self, started: &Started, cookie: Option<&Cookie>) -> [u8; INIT_BYTES] {
        let route = Route { destination: Destination::RECEIVER, source: self.slot };
        let mac1 = |bytes: &[u8]| mac::mac1(&self.keys, bytes);
        let mac2 = |bytes: &[u8]| cookie.map_or([0; 16], |cookie| mac::mac2(cookie, bytes));
        Init::emit(&route, started.index, Kind::GatewayToTransfer, &started.noise, mac1, mac2)
    }

    /// Opens the cookie of an answer to `init`.
    pub(super) fn cookie(&self, init: &[u8], answer: &[u8]) -> Cookie {
        let asked = Init::parse(init).unwrap().mac1;
        let reply = CookieReply::parse(answer).unwrap();
        Cookie::open(&self.keys, reply.nonce, &asked, &reply.sealed).unwrap()
    }

    /// Makes the final that answers a response, and the session.
    pub(super) fn last(&mut self, started: Started, response: &[u8]) -> Vec<u8> {
        let register = self.register_message().to_padded_vec();
        self.last_with(started, response, &register)
    }

    pub(super) fn register_message(&self) -> Message {
        Message::Register {
            request: 5,
            boot: self.boot,
            ip4: self.ip4,
            name: format!("gateway {}", self.ip4),
            ticket: self.ticket.clone().into(),
        }
    }

    /// The same with any payload.
    pub(super) fn last_with(&mut self, started: Started, response: &[u8], payload: &[u8]) -> Vec<u8> {
        let parsed = Response::parse(response).unwrap();
        assert_eq!(parsed.receiver_index, started.index);
        let finished = started.initiator.finish(parsed.noise, payload, None);
        let finished = finished.map_err(|(error, _)| error).unwrap();
        let Ok(Some(Message::Welcome { cipher, .. })) = Message::decode(&finished.welcome) else {
            panic!("no welcome")
        };
        self.sessions.push(Session {
            index: started.index,
            remote_index: parsed.sender_index,
            keys: finished.split.keys(Cipher::from_bit(cipher).unwrap()),
            sent: 0,
        });
        let mut last = Vec::new();
        let mac1 = |bytes: &[u8]| mac::mac1(&self.keys, bytes);
        Final::emit(&mut last, &Route::DIRECT, parsed.sender_index, Kind::GatewayToTransfer, &finished.noise, mac1);
        last
    }

    /// A whole handshake up to its final; the final itself is not sent.
    pub(super) fn up_to_final(&mut self, world: &mut World) -> Vec<u8> {
        let (started, response) = self.up_to_response(world);
        self.last(started, &response)
    }

    /// A handshake up to its response.
    pub(super) fn up_to_response(&mut self, world: &mut World) -> (Started, Vec<u8>) {
        let started = self.start();
        let init = self.init(&started, None);
        let mut answer = only(world.deliver(self.endpoint, &init), self.endpoint);
        if answer[0] == FrameType::CookieReply.byte() {
            let cookie = self.cookie(&init, &answer);
            answer = only(world.deliver(self.endpoint, &self.init(&started, Some(&cookie))), self.endpoint);
        }
        (started, answer)
    }

    /// Registers, and returns all that was sent by the transfer after the final.
    pub(super) fn register(&mut self, world: &mut World) -> Vec<Sent> {
        let last = self.up_to_final(world);
        let sent = world.deliver(self.endpoint, &last);
        self.take_registered(&sent);
        sent
    }

    /// Registers, and must be accepted.
    pub(super) fn join(mut self, world: &mut World) -> Self {
        self.register(world);
        assert!(!self.slot.is_none(), "{} was not accepted", self.ip4);
        self
    }

    pub(super) fn take_registered(&mut self, sent: &[Sent]) {
        for message in self.read(sent) {
            if let Message::Registered { slot, ticket, .. } = message {
                self.slot = slot;
                self.ticket = ticket.to_vec();
            }
        }
    }

    /// What is in the datagrams that went to this gateway.
    pub(super) fn read(&self, sent: &[Sent]) -> Vec<Message> {
        let mine = sent.iter().filter(|(to, _)| to.remote == self.endpoint.remote && to.socket == self.endpoint.socket);
        mine.filter_map(|(_, datagram)| self.open(datagram)).collect()
    }

    /// Opens a control datagram with whichever session it is for.
    pub(super) fn open(&self, datagram: &[u8]) -> Option<Message> {
        let header = SealedHeader::parse(datagram).ok()?;
        let session = self.sessions.iter().find(|session| session.index == header.receiver_index)?;
        let mut bytes = datagram.to_vec();
        let (head, body) = bytes.split_at_mut(HEADER_BYTES);
        let length = session.keys.open(header.counter, head, body).ok()?;
        Message::decode(&body[..length]).unwrap()
    }

    /// Seals a message under the newest session.
    pub(super) fn seal(&mut self, message: &Message) -> Vec<u8> {
        let last = self.sessions.len() - 1;
        self.seal_with(last, message)
    }

    pub(super) fn seal_with(&mut self, session: usize, message: &Message) -> Vec<u8> {
        self.seal_plaintext(session, message.to_padded_vec())
    }

    /// Seals any bytes as a message.
    pub(super) fn seal_plaintext(&mut self, session: usize, mut body: Vec<u8>) -> Vec<u8> {
        let session = &mut self.sessions[session];
        let route = Route { destination: Destination::RECEIVER, source: self.slot };
        let (frame, receiver_index, counter) = (FrameType::Control, session.remote_index, session.sent);
        session.sent += 1;
        let header = SealedHeader { frame, flags: 0, route, receiver_index, counter }.emit();
        let tag = session.keys.seal(counter, &header, &mut body);
        [&header[..], &body, &tag].concat()
    }

    /// Says something and returns what comes back to this gateway.
    pub(super) fn ask(&mut self, world: &mut World, message: &Message) -> Vec<Message> {
        let datagram = self.seal(message);
        let sent = world.deliver(self.endpoint, &datagram);
        self.read(&sent)
    }

    /// A data frame for `to`, of `bytes` in all.
    pub(super) fn data(&self, to: Slot, bytes: usize) -> Vec<u8> {
        let route = Route { destination: Destination::here(to), source: self.slot };
        let header = SealedHeader { frame: FrameType::Data, flags: 0, route, receiver_index: 3, counter: 4 }.emit();
        let mut datagram = header.to_vec();
        datagram.resize(bytes.max(16), 0xda);
        datagram.truncate(bytes);
        datagram
    }
}

/// The one datagram that was sent, which must go to `to`.
#[track_caller]
pub(super) fn only(sent: Vec<Sent>, to: Endpoint) -> Vec<u8> {
    assert_eq!(sent.len(), 1, "one datagram");
    let (endpoint, datagram) = sent.into_iter().next().unwrap();
    assert_eq!(endpoint, to);
    datagram
}

/// The reason for which a gateway was refused, if it was.
pub(super) fn refused(messages: &[Message]) -> Option<RefusedReason> {
    messages.iter().find_map(|message| if let Message::Refused { reason, .. } = message { Some(*reason) } else { None })
}
