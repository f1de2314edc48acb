//! Gateways behind NATs of all kinds leave the relay wherever there is a way: by names they tell each other, or by a search. Budgets hold
//! meanwhile, and no packet is lost.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use mesh_core::gateway::{MappingStatus, PathChoice, PathKind, SearchState, Sockets};
use mesh_core::seam::{Moment, SocketId};
use mesh_sim::net::{Dependence, NatConfig, Ports};
use mesh_sim::{Link, Place, SiteConfig, SiteId, seeds};

use crate::fixture::{Mesh, PORT, ip};

const SECOND: Duration = Duration::from_secs(1);
const INSIDE_PORT: u16 = 61_400;
const SOCKETS: Sockets = Sockets { ipv4: Some(SocketId(0)), ipv6: None, ports: (INSIDE_PORT, 0), stream: None };
/// Both ports of the transfer are in use: so gateways learn how their NATs map.
const PORTS: [u16; 2] = [PORT, PORT + 1];

/// What the search may cost at most.
const PORTS_MAX: usize = 1024;
const SOCKETS_MAX: usize = 256;
const PACKETS_PER_SECOND: usize = 200;
/// Places that were named, and the transfer's two ports.
const OTHER_REMOTES: usize = 24;

fn outside(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, 100 + u8::try_from(number).unwrap())
}

fn inside(number: u8) -> IpAddr {
    Ipv4Addr::new(192, 168, 1, 10 + number).into()
}

/// A gateway behind each of these.
struct Scene {
    mesh: Mesh,
    sites: Vec<SiteId>,
}

impl Scene {
    fn on(ports: &[u16], seed: u64, kinds: &[NatConfig]) -> Self {
        let mut mesh = Mesh::on(ports, seed, 0, Link::CLEAN);
        mesh.path = PathChoice::Auto;
        let sites: Vec<SiteId> = (0..kinds.len())
            .map(|number| mesh.world.net.add_site(SiteConfig::home(kinds[number], outside(number))))
            .collect();
        for site in &sites {
            mesh.join_of(SOCKETS, Place::inside(*site, inside(0)), INSIDE_PORT);
        }
        mesh.settle();
        mesh.world.wiretap.record();
        Self { mesh, sites }
    }

    fn new(seed: u64, one: NatConfig, other: NatConfig) -> Self {
        Self::on(&PORTS, seed, &[one, other])
    }

    fn path(&self, from: usize, to: usize) -> Option<PathKind> {
        let status = self.mesh.world.gateway(self.mesh.gateways[from]).status(self.mesh.world.now());
        status.peers.iter().find(|peer| peer.ip4 == ip(to)).and_then(|peer| peer.path)
    }

    fn search(&self, from: usize, to: usize) -> Option<SearchState> {
        let status = self.mesh.world.gateway(self.mesh.gateways[from]).status(self.mesh.world.now());
        status.peers.iter().find(|peer| peer.ip4 == ip(to)).and_then(|peer| peer.search)
    }

    fn mapping(&self, number: usize) -> MappingStatus {
        self.mesh.world.gateway(self.mesh.gateways[number]).status(self.mesh.world.now()).transfer.mapping
    }

    fn is_direct(&self) -> bool {
        [(0, 1), (1, 0)].iter().all(|(from, to)| self.path(*from, *to) == Some(PathKind::Direct))
    }

    /// Pings each way ten times a second until both go direct, at most for `limit`; none may be lost. How long it took.
    fn ping_until_direct(&mut self, limit: Duration) -> Option<Duration> {
        let start = self.mesh.world.now();
        for sequence in 1.. {
            let round = self.mesh.world.now();
            for (from, to) in [(0, 1), (1, 0)] {
                assert!(self.mesh.ping(from, to, sequence, SECOND).is_some(), "ping {sequence} from {from} to {to}");
            }
            if self.is_direct() {
                return Some(self.mesh.world.now().since(start));
            }
            if self.mesh.world.now().since(start) >= limit {
                return None;
            }
            self.mesh.world.run_until(round + SECOND / 10);
        }
        None
    }

    /// Most datagrams to the address of the site `to` that the gateway `from` sent within any second.
    fn packets_per_second(&self, from: usize, to: usize) -> usize {
        let times: Vec<Moment> = self.sent(from, to).map(|(at, ..)| at).collect();
        let within =
            |(first, at): (usize, &Moment)| times[first..].iter().take_while(|t| t.since(*at) < SECOND).count();
        times.iter().enumerate().map(within).max().unwrap_or(0)
    }

    /// When and where to, from which port, a gateway sent what went to the site `to`.
    fn sent(&self, from: usize, to: usize) -> impl Iterator<Item = (Moment, SocketAddr, u16)> {
        let (sender, target) = (self.mesh.gateways[from], IpAddr::V4(outside(to)));
        let seen = self.mesh.world.wiretap.seen().iter();
        seen.filter(move |seen| seen.sender == sender && seen.to.ip() == target)
            .map(|seen| (seen.at, seen.to, seen.from.port()))
    }

    /// What the search cost so far is within its budgets, on both sides.
    fn check_budgets(&mut self, attempts: usize, context: &str) {
        let now = self.mesh.world.now();
        for (from, to) in [(0, 1), (1, 0)] {
            let ports: BTreeSet<u16> = self.sent(from, to).map(|(_, to, _)| to.port()).collect();
            let sockets: BTreeSet<u16> = self.sent(from, to).map(|(.., port)| port).collect();
            assert!(ports.len() <= attempts * PORTS_MAX + OTHER_REMOTES, "{} ports, {context}", ports.len());
            assert!(sockets.len() <= attempts * SOCKETS_MAX + 1, "{} sockets, {context}", sockets.len());
            // Ordinary probes and pings on the new path come on top.
            let rate = self.packets_per_second(from, to);
            assert!(rate <= PACKETS_PER_SECOND + 80, "{rate} packets in a second, {context}");
            let nat = self.mesh.world.net.nat_status(self.sites[from], now);
            assert!(nat.entries_peak <= PORTS_MAX + SOCKETS_MAX + OTHER_REMOTES, "{nat:?}, {context}");
            assert_eq!(nat.refused, 0, "{context}");
        }
        assert!(self.mesh.world.extra_sockets_peak <= SOCKETS_MAX + 64);
    }

    /// Sockets that are open beside the first ones.
    fn extra_sockets(&self) -> usize {
        self.mesh.gateways.iter().map(|node| self.mesh.world.extra_sockets(*node)).sum()
    }
}

/// One of each mapping with each filtering, with ports as `seed` chooses.
fn kinds(seed: u64) -> Vec<NatConfig> {
    let ports = [Ports::FullyRandom, Ports::Sequential { step: 1 }, Ports::Preserved, Ports::Random];
    let pairs = Dependence::ALL.into_iter().flat_map(|mapping| Dependence::ALL.map(|filtering| (mapping, filtering)));
    let kind = |(number, (mapping, filtering))| NatConfig {
        ports: ports[(seed as usize + number) % ports.len()],
        ..NatConfig::new(mapping, filtering)
    };
    pairs.enumerate().map(kind).collect()
}

const SYMMETRIC: NatConfig = NatConfig::LINUX_FULLY_RANDOM;
const RESTRICTED: NatConfig = NatConfig::LINUX;

/// Whether a pair has a way that gateways can know of, with a transfer that has one address.
fn has_way(one: &NatConfig, other: &NatConfig) -> bool {
    let cone = |kind: &NatConfig| kind.mapping == Dependence::Nothing;
    let known = |kind: &NatConfig| kind.mapping != Dependence::Address;
    cone(one) && known(other) || cone(other) && known(one)
}

#[test]
fn every_pair_that_has_a_way_goes_direct_within_15_s_and_budgets_hold() {
    let (mut pairs, mut late) = (0, 0);
    let (pairs, late) = {
        let counts = std::cell::RefCell::new((&mut pairs, &mut late));
        seeds::each(2, |seed| {
            let kinds = kinds(seed);
            for (number, (one, other)) in kinds.iter().flat_map(|one| kinds.iter().map(move |o| (one, o))).enumerate() {
                // Each unordered pair once; which side begins is told by the seed.
                let (row, column) = (number / 9, number % 9);
                if (row + column + seed as usize) % 2 == 1 && row != column {
                    continue;
                }
                let context = format!("{one:?} with {other:?}");
                let mut scene = Scene::new(seed, *one, *other);
                if !has_way(one, other) {
                    scene.ping_until_direct(6 * SECOND);
                    scene.check_budgets(1, &context);
                    continue;
                }
                let took = scene.ping_until_direct(15 * SECOND);
                scene.check_budgets(1, &context);
                let mut counts = counts.borrow_mut();
                *counts.0 += 1;
                if took.is_none() {
                    *counts.1 += 1;
                    assert!(scene.ping_until_direct(75 * SECOND).is_some(), "not even later: {context}");
                    scene.check_budgets(3, &context);
                }
                scene.mesh.world.run_for(2 * SECOND);
                assert!(scene.extra_sockets() <= 3, "{} sockets stay, {context}", scene.extra_sockets());
                assert_eq!(scene.search(0, 1), None, "{context}");
            }
        });
        (pairs, late)
    };
    assert!(pairs >= 10 && late * 10 <= pairs, "{late} of {pairs} pairs were late");
}

#[test]
fn cones_meet_within_5_s_without_a_search() {
    seeds::each(10, |seed| {
        let mut scene = Scene::new(seed, RESTRICTED, RESTRICTED);
        assert_eq!(scene.mapping(0), MappingStatus::PortIndependent, "two ports say so and no more");
        assert!(scene.ping_until_direct(5 * SECOND).is_some());
        assert_eq!(scene.mesh.world.extra_sockets_peak, 0);
    });
}

#[test]
fn a_symmetric_nat_and_a_restricted_one_meet_within_15_s_nine_times_of_ten() {
    let mut took = Vec::new();
    let times = std::cell::RefCell::new(&mut took);
    let first_won = std::cell::RefCell::new(0_usize);
    seeds::each(50, |seed| {
        // Either may be the one that speaks first.
        let pair = if seed % 2 == 0 { (SYMMETRIC, RESTRICTED) } else { (RESTRICTED, SYMMETRIC) };
        let mut scene = Scene::new(seed, pair.0, pair.1);
        let hard = usize::from(seed % 2 == 1);
        assert_eq!(scene.mapping(hard), MappingStatus::EndpointDependent);
        assert_eq!(scene.mapping(1 - hard), MappingStatus::PortIndependent);
        let direct = scene.ping_until_direct(15 * SECOND);
        scene.check_budgets(1, "symmetric and restricted");
        times.borrow_mut().push(direct);
        scene.mesh.world.run_for(SECOND);
        let extra = scene.extra_sockets();
        assert!(extra <= 3, "unused sockets are gone after a second: {extra}");
        if direct.is_some() {
            // A port of the search may be that of the first socket, which is there anyhow.
            *first_won.borrow_mut() += usize::from(extra == 0);
            // It keeps while it is used, and goes with the session.
            for sequence in 0..200 {
                assert!(scene.mesh.ping(0, 1, sequence, SECOND).is_some());
                scene.mesh.world.run_for(SECOND / 5);
            }
            assert!(scene.is_direct());
            scene.mesh.world.run_for(400 * SECOND);
            assert_eq!(scene.extra_sockets(), 0, "the session has ended");
        }
    });
    let first_won = first_won.into_inner();
    assert!(first_won <= 3, "else the one that won stays: {first_won} times there was none");
    let found = took.iter().flatten().count();
    assert!(took.len() < 50 || found >= 45, "{found} of {} within 15 s: {took:?}", took.len());
}

#[test]
fn two_symmetric_nats_stay_with_the_relay_and_do_not_search() {
    seeds::each(5, |seed| {
        let mut scene = Scene::new(seed, SYMMETRIC, SYMMETRIC);
        assert_eq!(scene.ping_until_direct(60 * SECOND), None);
        assert_eq!([scene.search(0, 1), scene.search(1, 0)], [Some(SearchState::Hopeless); 2]);
        assert_eq!([scene.path(0, 1), scene.path(1, 0)], [Some(PathKind::Relay); 2]);
        assert_eq!(scene.mesh.world.extra_sockets_peak, 0);
        for (from, to) in [(0, 1), (1, 0)] {
            let ports: BTreeSet<SocketAddr> = scene.sent(from, to).map(|(_, to, _)| to).collect();
            assert!(ports.len() <= OTHER_REMOTES, "{ports:?}");
        }
    });
}

#[test]
fn whoever_is_pinned_to_the_relay_is_not_searched_for() {
    seeds::each(3, |seed| {
        let mut mesh = Mesh::on(&PORTS, seed, 0, Link::CLEAN);
        let kinds = [(RESTRICTED, PathChoice::Auto), (SYMMETRIC, PathChoice::Relay)];
        let mut sites = Vec::new();
        for (number, (kind, path)) in kinds.into_iter().enumerate() {
            let site = mesh.world.net.add_site(SiteConfig::home(kind, outside(number)));
            mesh.path = path;
            mesh.join_of(SOCKETS, Place::inside(site, inside(0)), INSIDE_PORT);
            sites.push(site);
        }
        mesh.settle();
        mesh.world.wiretap.record();
        let mut scene = Scene { mesh, sites };
        assert_eq!(scene.ping_until_direct(20 * SECOND), None);
        assert_eq!((scene.sent(0, 1).count(), scene.sent(1, 0).count()), (0, 0));
    });
}

#[test]
fn with_one_port_nothing_is_known_and_nothing_is_searched() {
    seeds::each(3, |seed| {
        let mut scene = Scene::on(&[PORT], seed, &[RESTRICTED, SYMMETRIC]);
        assert_eq!([scene.mapping(0), scene.mapping(1)], [MappingStatus::Unknown; 2]);
        assert_eq!(scene.ping_until_direct(20 * SECOND), None);
        assert_eq!((scene.mesh.world.extra_sockets_peak, scene.search(0, 1)), (0, None));
    });
}

#[test]
fn a_nat_that_forgets_everything_is_asked_anew_how_it_maps() {
    seeds::each(5, |seed| {
        // Linux itself would map by destination afterwards, as the port that it kept is not to be had.
        let cone = NatConfig::new(Dependence::Nothing, Dependence::AddressAndPort);
        let mut scene = Scene::new(seed, cone, cone);
        for _ in 0..3 {
            scene.mesh.world.net.rebind(scene.sites[0]);
            for sequence in 0..40 {
                scene.mesh.ping(0, 1, sequence, SECOND / 5);
                scene.mesh.world.run_for(SECOND / 10);
            }
            assert_ne!(scene.mapping(0), MappingStatus::EndpointDependent, "another port is another mapping");
        }
    });
}

#[test]
fn eight_gateways_behind_one_box_search_in_turn_and_do_not_fill_it() {
    seeds::each(2, |seed| {
        // Eight cones behind one box, which each want a peer of their own behind a symmetric NAT; and the other way round.
        for (shared, single) in [(RESTRICTED, SYMMETRIC), (SYMMETRIC, RESTRICTED)] {
            let mut mesh = Mesh::on(&PORTS, seed, 0, Link::CLEAN);
            mesh.path = PathChoice::Auto;
            let office = mesh.world.net.add_site(SiteConfig::home(shared, outside(0)));
            for number in 0..8 {
                let port = INSIDE_PORT + u16::from(number);
                let sockets = Sockets { ports: (port, 0), ..SOCKETS };
                mesh.join_of(sockets, Place::inside(office, inside(number)), port);
            }
            for number in 1..9 {
                let home = mesh.world.net.add_site(SiteConfig::home(single, outside(number)));
                mesh.join_of(SOCKETS, Place::inside(home, inside(0)), INSIDE_PORT);
            }
            mesh.settle();
            let mut peak = 0;
            for sequence in 0..1100 {
                for number in 0..8 {
                    let answered = mesh.ping(number, number + 8, sequence, SECOND);
                    assert!(answered.is_some(), "ping {sequence} of {number}");
                }
                mesh.world.run_for(SECOND / 2);
                let now = mesh.world.now();
                peak = peak.max(mesh.world.net.nat_status(office, now).entries);
            }
            let now = mesh.world.now();
            let nat = mesh.world.net.nat_status(office, now);
            assert!(nat.entries_peak <= 2048, "{nat:?}");
            let direct = |number: &usize| {
                let status = mesh.world.gateway(mesh.gateways[*number]).status(now);
                status.peers.iter().any(|peer| peer.ip4 == ip(number + 8) && peer.path == Some(PathKind::Direct))
            };
            let found = (0..8).filter(direct).count();
            assert!(found >= 6, "{found} of 8 have found their way after nine minutes; {peak} entries at most");
        }
    });
}
