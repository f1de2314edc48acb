//! A NAT box's table, of any of the kinds that RFC 4787 tells apart.
//!
//! A *mapping* gives an inside address and port an outside one; an *entry* is one remote that a mapping is used with,
//! what a router's connection tracking counts. Filtering is by the entries of the mapping that a datagram from outside
//! meets. What is due to be forgotten is forgotten before anything else is looked at, so the figures are those of that
//! moment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use mesh_core::seam::Moment;
use rand::RngExt;
use rand_chacha::ChaCha12Rng;

use super::ports::Ports;
use super::timeouts::Timeouts;

/// What of a remote makes a difference: the three behaviours of RFC 4787, sections 4.1 (mapping) and 5 (filtering).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependence {
    /// "Endpoint-independent": nothing.
    Nothing,
    /// "Address-dependent": its address.
    Address,
    /// "Address and port-dependent": both.
    AddressAndPort,
}

impl Dependence {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Nothing, Self::Address, Self::AddressAndPort];
}

/// What becomes of a datagram from inside to an outside address of the same box (RFC 4787, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hairpin {
    /// It is lost.
    None,
    /// It is turned round and keeps its sender's inside address. No mapping is made for it, and none is asked whether
    /// it may in.
    InternalSource,
    /// It is turned round and comes from its sender's outside address, as from anyone outside: what RFC 4787 asks for.
    ExternalSource,
}

/// What a NAT is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatConfig {
    /// Which remotes have the same mapping.
    pub mapping: Dependence,
    /// Which remotes may answer.
    pub filtering: Dependence,
    /// Which port a new mapping gets.
    pub ports: Ports,
    /// Whether mappings that are used with different remotes may have the same outside port, as Linux has it: a port is
    /// taken only for the remote it is used with. Needs both dependences to be [`Dependence::AddressAndPort`] and no
    /// hairpinning, as Linux has none for what it maps by itself.
    pub shared_ports: bool,
    /// Of several outside addresses, whether an inside host has always the same (RFC 4787, "paired"), or each mapping
    /// any.
    pub paired: bool,
    /// What becomes of datagrams from inside to its own outside addresses.
    pub hairpin: Hairpin,
    /// How long it remembers.
    pub timeouts: Timeouts,
    /// Whether a datagram from outside that is let in by nothing takes the port it was sent to, for its sender and the
    /// time of an unanswered entry. So does a Linux router that does not drop what comes in unasked: it remembers the
    /// flow as one to itself, and a mapping that is made meanwhile gets another port.
    pub inbound_takes_ports: bool,
    /// Most mappings; new ones are refused when there are so many.
    pub mappings_max: usize,
    /// Most entries, as a router's connection tracking has a limit; new ones are refused when there are so many.
    pub entries_max: usize,
}

impl NatConfig {
    /// A NAT of these behaviours that preserves ports, does not hairpin and forgets after 2 minutes, the least that RFC
    /// 4787 allows.
    pub const fn new(mapping: Dependence, filtering: Dependence) -> Self {
        Self {
            mapping,
            filtering,
            ports: Ports::Preserved,
            shared_ports: false,
            paired: true,
            hairpin: Hairpin::None,
            timeouts: Timeouts::outbound_only(std::time::Duration::from_secs(120)),
            inbound_takes_ports: false,
            mappings_max: usize::MAX,
            entries_max: 16_384,
        }
    }

    /// `masquerade` on Linux. To one inside host it looks like a port-restricted cone, as each of its mappings keeps
    /// its port.
    pub const LINUX: Self = Self {
        shared_ports: true,
        timeouts: Timeouts::LINUX,
        ..Self::new(Dependence::AddressAndPort, Dependence::AddressAndPort)
    };

    /// `masquerade fully-random` on Linux.
    pub const LINUX_FULLY_RANDOM: Self = Self { ports: Ports::FullyRandom, ..Self::LINUX };

    /// One of each: every mapping with every filtering and every choice of ports, and the two of Linux.
    pub fn every_kind() -> Vec<Self> {
        let ports = [Ports::Preserved, Ports::Sequential { step: 1 }, Ports::Random, Ports::FullyRandom];
        let mut kinds = vec![Self::LINUX, Self::LINUX_FULLY_RANDOM];
        for mapping in Dependence::ALL {
            for filtering in Dependence::ALL {
                kinds.extend(ports.map(|ports| Self { ports, ..Self::new(mapping, filtering) }));
            }
        }
        kinds
    }
}

/// How full a NAT is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatStatus {
    /// Mappings it has.
    pub mappings: usize,
    /// Most it had at a time.
    pub mappings_peak: usize,
    /// Entries it has: remotes of mappings, and ports taken from outside.
    pub entries: usize,
    /// Most it had at a time.
    pub entries_peak: usize,
    /// Datagrams from inside refused for want of a place or a port.
    pub refused: u64,
}

/// Which remotes a mapping is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    All,
    Address(Ipv4Addr),
    Endpoint(SocketAddrV4),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    inside: SocketAddrV4,
    scope: Scope,
}

/// How long something is remembered.
struct Life {
    expires: Moment,
    answered: bool,
}

struct Mapping {
    claim: Claim,
    life: Life,
    entries: BTreeMap<SocketAddrV4, Life>,
}

/// What is to be forgotten. Entries end before their mapping when both end at the same moment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Taken(SocketAddrV4, SocketAddrV4),
    Entry(Key, SocketAddrV4),
    Mapping(Key),
}

/// An outside address and port, and the remote for which it is taken where ports are shared.
type Claim = (SocketAddrV4, Option<SocketAddrV4>);

/// The table of one box.
pub(super) struct Nat {
    config: NatConfig,
    pool: Vec<Ipv4Addr>,
    /// Makes ports that are drawn by hash differ from box to box.
    secret: [u8; 16],
    /// The port given last.
    last_port: u16,
    mappings: BTreeMap<Key, Mapping>,
    claims: BTreeMap<Claim, Key>,
    /// Ports taken from outside, for a remote.
    taken: BTreeMap<(SocketAddrV4, SocketAddrV4), Moment>,
    /// Ports not to be given again, as they were before the last rebinding.
    burnt: BTreeSet<SocketAddrV4>,
    pairs: BTreeMap<Ipv4Addr, usize>,
    due: BTreeSet<(Moment, Due)>,
    status: NatStatus,
}

impl Nat {
    /// # Panics
    /// When there is no outside address, ports are shared though more than one remote uses a mapping, or a sequence
    /// stands still.
    pub(super) fn new(config: NatConfig, pool: Vec<Ipv4Addr>, rng: &mut ChaCha12Rng) -> Self {
        let strict = Dependence::AddressAndPort;
        assert!(!pool.is_empty(), "a NAT needs an outside address");
        let one_remote_each = (config.mapping, config.filtering, config.hairpin) == (strict, strict, Hairpin::None);
        assert!(!config.shared_ports || one_remote_each, "ports are shared only by mappings that have one remote each");
        assert!(config.ports != Ports::Sequential { step: 0 }, "a sequence of ports has to go on");
        Self {
            config,
            pool,
            secret: rng.random(),
            last_port: rng.random_range(Ports::RANGE),
            mappings: BTreeMap::new(),
            claims: BTreeMap::new(),
            taken: BTreeMap::new(),
            burnt: BTreeSet::new(),
            pairs: BTreeMap::new(),
            due: BTreeSet::new(),
            status: NatStatus::default(),
        }
    }

    pub(super) fn config(&self) -> &NatConfig {
        &self.config
    }

    pub(super) fn pool(&self) -> &[Ipv4Addr] {
        &self.pool
    }

    /// Where a datagram from `inside` to `remote` goes out; `None` when there is no place for it.
    pub(super) fn outbound(
        &mut self,
        now: Moment,
        rng: &mut ChaCha12Rng,
        inside: SocketAddrV4,
        remote: SocketAddrV4,
    ) -> Option<SocketAddrV4> {
        self.expire(now);
        let key = self.key(inside, remote);
        let mapping = self.mappings.get(&key);
        let new_mapping = mapping.is_none();
        let new_entry = mapping.is_none_or(|mapping| !mapping.entries.contains_key(&remote));
        let full = (new_mapping && self.mappings.len() >= self.config.mappings_max)
            || (new_entry && self.status.entries >= self.config.entries_max);
        let outside = match mapping {
            _ if full => None,
            Some(mapping) => Some(mapping.claim.0),
            None => self.assign(rng, key, remote),
        };
        let Some(outside) = outside else {
            self.status.refused += 1;
            return None;
        };
        if new_mapping {
            let claim = self.claim(outside, remote);
            self.claims.insert(claim, key);
            let life = Life { expires: now, answered: false };
            self.mappings.insert(key, Mapping { claim, life, entries: BTreeMap::new() });
        }
        let mapping = self.mappings.get_mut(&key).expect("found or made above");
        mapping.entries.entry(remote).or_insert_with(|| {
            self.status.entries += 1;
            Life { expires: now, answered: false }
        });
        self.refresh(now, key, remote);
        self.status.entries_peak = self.status.entries_peak.max(self.status.entries);
        self.status.mappings_peak = self.status.mappings_peak.max(self.mappings.len());
        Some(outside)
    }

    /// Which inside address and port a datagram from `remote` to `outside` is for; `None` when it is not let in.
    pub(super) fn inbound(&mut self, now: Moment, outside: SocketAddrV4, remote: SocketAddrV4) -> Option<SocketAddrV4> {
        self.expire(now);
        let admitted = self.claims.get(&self.claim(outside, remote)).copied().filter(|key| {
            let entries = &self.mappings[key].entries;
            let host = SocketAddrV4::new(*remote.ip(), 0)..=SocketAddrV4::new(*remote.ip(), u16::MAX);
            match self.config.filtering {
                Dependence::Nothing => true,
                Dependence::Address => entries.range(host).next().is_some(),
                Dependence::AddressAndPort => entries.contains_key(&remote),
            }
        });
        let Some(key) = admitted else {
            if self.config.inbound_takes_ports {
                self.take(now, outside, remote);
            }
            return None;
        };
        let mapping = self.mappings.get_mut(&key).expect("claimed by it");
        mapping.life.answered = true;
        if let Some(entry) = mapping.entries.get_mut(&remote) {
            entry.answered = true;
        }
        if self.config.timeouts.inbound_refreshes {
            self.refresh(now, key, remote);
        }
        Some(key.inside)
    }

    /// Whose mapping has `outside`, whoever may use it. Nobody's, where ports are shared.
    pub(super) fn owner(&mut self, now: Moment, outside: SocketAddrV4) -> Option<SocketAddrV4> {
        self.expire(now);
        self.claims.get(&(outside, None)).map(|key| key.inside)
    }

    /// The outside address and port that `inside` has for `remote`, if it has.
    pub(super) fn find(&mut self, now: Moment, inside: SocketAddrV4, remote: SocketAddrV4) -> Option<SocketAddrV4> {
        self.expire(now);
        self.mappings.get(&self.key(inside, remote)).map(|mapping| mapping.claim.0)
    }

    /// How full it is.
    pub(super) fn status(&mut self, now: Moment) -> NatStatus {
        self.expire(now);
        NatStatus { mappings: self.mappings.len(), ..self.status }
    }

    /// Forgets everything, as at a restart of the box; ports may be given again.
    pub(super) fn flush(&mut self) {
        self.mappings.clear();
        self.claims.clear();
        self.taken.clear();
        self.burnt.clear();
        self.pairs.clear();
        self.due.clear();
        self.status.entries = 0;
    }

    /// Forgets everything, and gives none of the outside addresses and ports in use to anyone until the next flush or
    /// rebinding.
    pub(super) fn rebind(&mut self) {
        let burnt = self.mappings.values().map(|mapping| mapping.claim.0).collect();
        self.flush();
        self.burnt = burnt;
    }

    /// Has other outside addresses from here on; forgets everything.
    pub(super) fn set_pool(&mut self, pool: Vec<Ipv4Addr>) {
        assert!(!pool.is_empty(), "a NAT needs an outside address");
        self.flush();
        self.pool = pool;
    }

    fn key(&self, inside: SocketAddrV4, remote: SocketAddrV4) -> Key {
        let scope = match self.config.mapping {
            Dependence::Nothing => Scope::All,
            Dependence::Address => Scope::Address(*remote.ip()),
            Dependence::AddressAndPort => Scope::Endpoint(remote),
        };
        Key { inside, scope }
    }

    fn claim(&self, outside: SocketAddrV4, remote: SocketAddrV4) -> Claim {
        (outside, self.config.shared_ports.then_some(remote))
    }

    fn is_free(&self, outside: SocketAddrV4, remote: SocketAddrV4) -> bool {
        let taken = if self.config.shared_ports {
            self.taken.contains_key(&(outside, remote))
        } else {
            let first = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
            let last = SocketAddrV4::new(Ipv4Addr::BROADCAST, u16::MAX);
            self.taken.range((outside, first)..=(outside, last)).next().is_some()
        };
        !taken && !self.burnt.contains(&outside) && !self.claims.contains_key(&self.claim(outside, remote))
    }

    /// An outside address and port for a new mapping.
    fn assign(&mut self, rng: &mut ChaCha12Rng, key: Key, remote: SocketAddrV4) -> Option<SocketAddrV4> {
        let places = self.pool.len();
        if self.config.paired {
            let next = self.pairs.len() % places;
            let ip = self.pool[*self.pairs.entry(*key.inside.ip()).or_insert(next)];
            return self.assign_on(ip, rng, key, remote);
        }
        let first = rng.random_range(0..places);
        (first..first + places).find_map(|place| self.assign_on(self.pool[place % places], rng, key, remote))
    }

    fn assign_on(
        &mut self,
        ip: Ipv4Addr,
        rng: &mut ChaCha12Rng,
        key: Key,
        remote: SocketAddrV4,
    ) -> Option<SocketAddrV4> {
        let (remote_ip, remote_port) = match key.scope {
            Scope::All => (Ipv4Addr::UNSPECIFIED, 0),
            Scope::Address(ip) => (ip, 0),
            Scope::Endpoint(remote) => (*remote.ip(), remote.port()),
        };
        let mut seed = [0; 32];
        seed[..16].copy_from_slice(&self.secret);
        seed[16..20].copy_from_slice(&key.inside.ip().octets());
        seed[20..22].copy_from_slice(&key.inside.port().to_be_bytes());
        seed[22..26].copy_from_slice(&remote_ip.octets());
        seed[26..28].copy_from_slice(&remote_port.to_be_bytes());
        let candidates = self.config.ports.candidates(key.inside.port(), self.last_port, seed, rng);
        let outside =
            candidates.map(|port| SocketAddrV4::new(ip, port)).find(|outside| self.is_free(*outside, remote))?;
        self.last_port = outside.port();
        Some(outside)
    }

    /// Starts the time of a mapping anew, and of its entry for `remote` if it has one.
    fn refresh(&mut self, now: Moment, key: Key, remote: SocketAddrV4) {
        let timeouts = self.config.timeouts;
        let mapping = self.mappings.get_mut(&key).expect("the caller found it");
        let mut expires = timeouts.end(now, mapping.life.answered);
        if let Some(entry) = mapping.entries.get_mut(&remote) {
            self.due.remove(&(entry.expires, Due::Entry(key, remote)));
            entry.expires = timeouts.end(now, entry.answered);
            self.due.insert((entry.expires, Due::Entry(key, remote)));
            expires = expires.max(entry.expires);
        }
        self.due.remove(&(mapping.life.expires, Due::Mapping(key)));
        // A mapping lives at least as long as each of its entries.
        mapping.life.expires = mapping.life.expires.max(expires);
        self.due.insert((mapping.life.expires, Due::Mapping(key)));
    }

    /// A datagram that nobody inside wants takes its port.
    fn take(&mut self, now: Moment, outside: SocketAddrV4, remote: SocketAddrV4) {
        let flow = (outside, remote);
        let expires = self.config.timeouts.end(now, false);
        if let Some(old) = self.taken.get(&flow) {
            self.due.remove(&(*old, Due::Taken(outside, remote)));
        } else if self.status.entries >= self.config.entries_max {
            return;
        } else {
            self.status.entries += 1;
            self.status.entries_peak = self.status.entries_peak.max(self.status.entries);
        }
        self.taken.insert(flow, expires);
        self.due.insert((expires, Due::Taken(outside, remote)));
    }

    fn expire(&mut self, now: Moment) {
        while let Some(&(at, due)) = self.due.first().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, due));
            match due {
                Due::Taken(outside, remote) => {
                    self.taken.remove(&(outside, remote));
                    self.status.entries -= 1;
                }
                Due::Entry(key, remote) => {
                    let mapping = self.mappings.get_mut(&key).expect("a mapping outlives its entries");
                    mapping.entries.remove(&remote);
                    self.status.entries -= 1;
                }
                Due::Mapping(key) => {
                    let mapping = self.mappings.remove(&key).expect("it is due once");
                    self.claims.remove(&mapping.claim);
                }
            }
        }
    }
}
