//! A transfer, gateways 172.168.0.1 and up, and the words to speak of them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::LazyLock;
use std::time::Duration;

use mesh_core::gateway::{Gateway, GatewayConfig, OuterSize, PathChoice, Sockets};
use mesh_core::seam::{Moment, Offloads, SocketId};
use mesh_core::session::cipher::Ciphers;
use mesh_core::session::handshake::StaticKey;
use mesh_core::session::token::{NamespaceKeys, StretchedToken};
use mesh_core::transfer::{Transfer, TransferConfig};
use mesh_sim::{Link, NodeId, Place, World};

/// The token of the deployment walkthrough. Stretching takes a while: once for all tests of this process.
pub(crate) static TOKEN: LazyLock<StretchedToken> =
    LazyLock::new(|| StretchedToken::stretch(b"s^I^ghGjkB7Zm$q14NWhxfQdS5E&FG7R"));

pub(crate) const TRANSFER_NAME: &str = "you.domain.com:8000";
pub(crate) const PORT: u16 = 8000;

/// What a gateway sends by: one socket for IPv4, or one for each family.
pub(crate) const ONE_SOCKET: Sockets = Sockets { ipv4: Some(SocketId(0)), ipv6: None, ports: (0, 0), stream: None };
pub(crate) const BOTH_FAMILIES: Sockets =
    Sockets { ipv4: Some(SocketId(0)), ipv6: Some(SocketId(1)), ports: (0, 0), stream: None };

/// What survives a restart of a transfer: its state folder.
pub(crate) struct TransferState {
    pub(crate) key: [u8; 32],
    pub(crate) ticket_key: [u8; 32],
}

/// What survives a restart of a gateway.
#[derive(Clone, Copy)]
pub(crate) struct Identity {
    pub(crate) key: [u8; 32],
}

pub(crate) struct Mesh {
    pub(crate) world: World,
    pub(crate) transfer: NodeId,
    pub(crate) state: TransferState,
    pub(crate) gateways: Vec<NodeId>,
    pub(crate) identities: Vec<Identity>,
    /// Which paths gateways that join from here on may take.
    pub(crate) path: PathChoice,
}

pub(crate) fn ip(number: usize) -> Ipv4Addr {
    let number = u16::try_from(number + 1).unwrap();
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(172, 168, high, low)
}

pub(crate) fn transfer_address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], PORT))
}

pub(crate) fn gateway_address(number: usize) -> SocketAddr {
    let number = u16::try_from(number + 1).unwrap();
    let [high, low] = number.to_be_bytes();
    SocketAddr::from(([198, 51, high, low], 40_000))
}

pub(crate) fn new_transfer(
    world: &mut World,
    state: &TransferState,
    ports: &[u16],
    token: &StretchedToken,
) -> Transfer {
    let seed = world.random();
    let boot = u64::from_le_bytes(world.random()[..8].try_into().unwrap());
    let config =
        TransferConfig { static_key: StaticKey::from_seed(state.key), boot, ticket_key: state.ticket_key, seed };
    let mut transfer = Transfer::new(config, world.now());
    for (number, port) in ports.iter().enumerate() {
        let socket = SocketId(u16::try_from(number).unwrap());
        transfer.add_namespace(socket, *port, NamespaceKeys::derive(token, *port, None));
        transfer.set_other_port(socket, ports.iter().copied().find(|other| other != port));
    }
    transfer
}

pub(crate) fn new_gateway(
    world: &mut World,
    identity: Identity,
    ip4: Ipv4Addr,
    port: u16,
    token: &StretchedToken,
) -> Gateway {
    new_gateway_with(world, identity, ip4, port, token, ONE_SOCKET, PathChoice::Relay)
}

fn new_gateway_with(
    world: &mut World,
    identity: Identity,
    ip4: Ipv4Addr,
    port: u16,
    token: &StretchedToken,
    sockets: Sockets,
    path: PathChoice,
) -> Gateway {
    let seed = world.random();
    let boot = u64::from_le_bytes(world.random()[..8].try_into().unwrap());
    let config = GatewayConfig {
        ip4,
        prefix: 16,
        static_key: StaticKey::from_seed(identity.key),
        boot,
        keys: NamespaceKeys::derive(token, port, None),
        name: String::new(),
        sockets,
        offloads: Offloads::NONE,
        outer_bytes: OuterSize::Assumed,
        path,
        pins: Vec::new(),
        ciphers: Ciphers::detected(),
        pinned_transfer_key: None,
        seed,
    };
    Gateway::new(config, world.now())
}

impl Mesh {
    /// A transfer that is up and `count` gateways that have just started.
    pub(crate) fn new(seed: u64, count: usize, link: Link) -> Self {
        Self::on(&[PORT], seed, count, link)
    }

    /// The same with a transfer that has these ports, of which gateways use the first.
    pub(crate) fn on(ports: &[u16], seed: u64, count: usize, link: Link) -> Self {
        let mut world = World::new(seed);
        world.token = Some(TOKEN.clone());
        let state = TransferState { key: world.random(), ticket_key: world.random() };
        let transfer = new_transfer(&mut world, &state, ports, &TOKEN);
        let transfer = world.add_transfer(transfer, transfer_address(), ports, link);
        world.name(TRANSFER_NAME, transfer_address());
        let mut mesh =
            Self { world, transfer, state, gateways: Vec::new(), identities: Vec::new(), path: PathChoice::Relay };
        for _ in 0..count {
            mesh.join(link);
        }
        mesh
    }

    /// Starts one more gateway.
    pub(crate) fn join(&mut self, link: Link) -> NodeId {
        let address = gateway_address(self.gateways.len());
        self.join_at(Place::public(address.ip(), link), address.port())
    }

    /// Starts one more gateway, with a socket on `port` of a host that is attached at `place`.
    pub(crate) fn join_at(&mut self, place: Place, port: u16) -> NodeId {
        self.join_of(ONE_SOCKET, place, port)
    }

    /// The same, which sends by `sockets`; of these number 0 is open, on `port`.
    pub(crate) fn join_of(&mut self, sockets: Sockets, place: Place, port: u16) -> NodeId {
        let number = self.gateways.len();
        let identity = Identity { key: self.world.random() };
        let gateway = new_gateway_with(&mut self.world, identity, ip(number), PORT, &TOKEN, sockets, self.path);
        let node = self.world.add_gateway_at(gateway, place, port, TRANSFER_NAME);
        self.gateways.push(node);
        self.identities.push(identity);
        node
    }

    /// Time for everybody to register.
    pub(crate) fn settle(&mut self) {
        self.world.run_for(Duration::from_secs(2));
    }

    /// One ping from gateway to gateway.
    pub(crate) fn ping(&mut self, from: usize, to: usize, sequence: u16, timeout: Duration) -> Option<Duration> {
        self.world.ping(self.gateways[from], ip(from), ip(to), sequence, timeout)
    }

    /// Pings every 100 ms until one is answered; how long that took since `start`.
    pub(crate) fn ping_until_answered(
        &mut self,
        from: usize,
        to: usize,
        start: Moment,
        limit: Duration,
    ) -> Option<Duration> {
        let mut sequence = 1000;
        while self.world.now().since(start) < limit {
            sequence += 1;
            if self.ping(from, to, sequence, Duration::from_millis(100)).is_some() {
                return Some(self.world.now().since(start));
            }
        }
        None
    }

    /// Kills the transfer.
    pub(crate) fn kill_transfer(&mut self) {
        self.world.kill(self.transfer);
    }

    /// Starts it again with the state it left, at `address`.
    pub(crate) fn revive_transfer(&mut self, address: SocketAddr) {
        let transfer = new_transfer(&mut self.world, &self.state, &[PORT], &TOKEN);
        self.world.revive_transfer(self.transfer, transfer, address);
    }
}
