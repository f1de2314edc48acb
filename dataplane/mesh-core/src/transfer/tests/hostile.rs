//! Members that do whatever they please, in any order and from anywhere.

use std::net::Ipv4Addr;
use std::time::Duration;

use mesh_wire::frame::FrameType;
use mesh_wire::message::{CloseReason, Message, Target};
use mesh_wire::route::Slot;
use proptest::prelude::*;

use super::world::*;
use crate::node::Node;
use crate::seam::Endpoint;

#[derive(Clone, Debug)]
enum Step {
    /// A handshake; its final is sent at once, or kept.
    Handshake {
        who: usize,
        elsewhere: bool,
        boot: u64,
        ip: u8,
        at_once: bool,
    },
    /// A message under one of the last sessions.
    Say {
        who: usize,
        session: usize,
        kind: u8,
        ip: u8,
        elsewhere: bool,
        boot: u64,
    },
    /// Something that was kept, from the home of `who`.
    Late {
        which: usize,
        who: usize,
    },
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let handshake = (0_usize..5, any::<bool>(), 0_u64..3, 1_u8..6, prop::bool::weighted(0.9))
        .prop_map(|(who, elsewhere, boot, ip, at_once)| Step::Handshake { who, elsewhere, boot, ip, at_once });
    let say = (0_usize..5, any::<usize>(), 0_u8..8, 1_u8..6, any::<bool>(), 0_u64..3)
        .prop_map(|(who, session, kind, ip, elsewhere, boot)| Step::Say { who, session, kind, ip, elsewhere, boot });
    let late = (any::<usize>(), 0_usize..5).prop_map(|(which, who)| Step::Late { which, who });
    let pass = prop_oneof![0_u64..700, 0_u64..12_000, 0_u64..150_000].prop_map(Step::Pass);
    prop::collection::vec(prop_oneof![3 => handshake, 6 => say, 1 => late, 2 => pass], 1..60)
}

/// The members, their homes, and what was kept.
struct Members {
    world: World,
    all: Vec<Gateway>,
    homes: Vec<Endpoint>,
    kept: Vec<Vec<u8>>,
}

impl Members {
    fn new() -> Self {
        let member = |n| Gateway::new(if n == 5 { SECOND } else { FIRST }, n);
        let mut all: Vec<Gateway> = (1..=5).map(member).collect();
        // A machine and its clone.
        all[1].key = all[0].key.clone();
        let homes = all.iter().map(|gateway| gateway.endpoint).collect();
        Self { world: World::new(), all, homes, kept: Vec::new() }
    }

    fn place(&self, who: usize, elsewhere: bool) -> Endpoint {
        let home = self.homes[who];
        if elsewhere { at(home.socket, "198.51.100.9:1234") } else { home }
    }

    fn handshake(&mut self, who: usize, elsewhere: bool, boot: u64, ip: u8, at_once: bool) {
        let endpoint = self.place(who, elsewhere);
        let gateway = &mut self.all[who];
        gateway.endpoint = endpoint;
        gateway.boot = boot;
        gateway.ip4 = Ipv4Addr::new(10, 0, 0, ip);
        let started = gateway.start();
        let bare = gateway.init(&started, None);
        let sent = self.world.deliver(endpoint, &bare);
        let Some((_, reply)) = sent.iter().find(|(_, sent)| sent[0] == FrameType::CookieReply.byte()) else { return };
        let proven = gateway.init(&started, Some(&gateway.cookie(&bare, reply)));
        let sent = self.world.deliver(endpoint, &proven);
        let response = sent.iter().find(|(_, sent)| sent[0] == FrameType::HandshakeResponse.byte());
        let Some((to, response)) = response else { return };
        assert_eq!(to.remote, endpoint.remote);
        let last = gateway.last(started, response);
        if at_once {
            let sent = self.world.deliver(endpoint, &last);
            gateway.take_registered(&sent);
        } else {
            self.kept.push(last);
        }
    }

    fn say(&mut self, who: usize, session: usize, message: &Message, from: Endpoint, keep: bool, lives: bool) {
        let gateway = &mut self.all[who];
        if gateway.sessions.is_empty() {
            return;
        }
        let session = gateway.sessions.len() - 1 - session % gateway.sessions.len().min(3);
        let datagram = gateway.seal_with(session, message);
        if keep {
            return self.kept.push(datagram);
        }
        let sent = self.world.deliver(from, &datagram);
        assert!(sent.iter().all(|(to, _)| to.socket == from.socket), "nothing crosses");
        for message in gateway.read(&sent) {
            if let (Message::Probe { seq }, true) = (message, lives) {
                let datagram = gateway.seal_with(session, &Message::ProbeReply { seq });
                self.world.deliver(from, &datagram);
            }
        }
        gateway.take_registered(&sent);
    }

    fn carry_out(&mut self, step: Step) {
        match step {
            Step::Handshake { who, elsewhere, boot, ip, at_once } => self.handshake(who, elsewhere, boot, ip, at_once),
            Step::Say { who, session, kind, ip, elsewhere, boot } => {
                let ip4 = Ipv4Addr::new(10, 0, 0, ip);
                let slot = Slot { index: u32::from(ip), generation: boot as u16 };
                let message = match kind {
                    0 => Message::Register {
                        request: 1,
                        boot,
                        ip4,
                        name: "x".to_owned(),
                        ticket: self.all[who].ticket.clone().into(),
                    },
                    1 => Message::Keepalive { seq: 1, change: 0 },
                    2 => Message::Lookup { request: 1, target: Target::Address(ip4) },
                    3 => Message::Lookup { request: 1, target: Target::Slot(slot) },
                    4 => Message::Goodbye,
                    5 => Message::Probe { seq: 1 },
                    6 => Message::ProbeReply { seq: 1 },
                    _ => Message::Close { reason: CloseReason::Idle },
                };
                let from = self.place(who, elsewhere);
                self.say(who, session, &message, from, ip == 5, boot == 1);
            }
            Step::Late { which, who } => {
                if !self.kept.is_empty() {
                    let datagram = self.kept[which % self.kept.len()].clone();
                    self.world.deliver(self.homes[who], &datagram);
                }
            }
            Step::Pass(millis) => {
                self.world.pass(Duration::from_millis(millis));
            }
        }
        // All tables agree, and so do the counts that bound them.
        self.world.members();
        for (socket, space) in [FIRST, SECOND].map(|socket| (socket, self.world.transfer.spaces.get(socket).unwrap())) {
            assert!(space.guests.values().all(|guest| guest.endpoint.socket == socket));
            let watching: usize = space.watching.values().map(|watching| watching.until.len()).sum();
            assert_eq!(space.watchers.len(), watching);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hostile_members_break_nothing(steps in steps()) {
        let mut members = Members::new();
        for step in steps {
            members.carry_out(step);
            let status = members.world.transfer.status(members.world.now);
            prop_assert!(status.control_sessions < 200);
        }
        let world = &mut members.world;
        world.pass(Duration::from_secs(400));
        let status = world.transfer.status(world.now);
        prop_assert_eq!((status.control_sessions, status.handshakes_pending), (0, 0), "all ends in the end");
        prop_assert!(world.transfer.poll_timeout().is_none());
        let space = world.transfer.spaces.get(FIRST).unwrap();
        prop_assert!(space.watchers.is_empty() && space.announced.is_empty());
        prop_assert_eq!((space.handshakes, space.guests.len()), (0, 0));
    }
}
