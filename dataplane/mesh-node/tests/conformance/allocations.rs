//! The path of a datagram allocates nothing.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use crate::counting::allocations;
use crate::support::{Conforms, Patience, Rig, SOON, echo, peer, send_train};

const TRAIN: [u8; 20 * 700] = [7; 20 * 700];

pub(crate) fn forwarding_allocates_nothing<E: Conforms>() {
    let (mut rig, _, address) = Rig::<E>::with_socket();
    let (single, train) = (peer(), peer());
    let mut run = |rounds| (0..rounds).map(|_| round(&mut rig, &single, &train, address)).sum::<u64>();
    run(200);
    assert_eq!(run(1000), 0, "allocations while 36,000 datagrams were forwarded");
}

/// 16 single datagrams and a train of 20, there and back, with a wait that has to sleep in between; what the engine allocated.
fn round<E: Conforms>(rig: &mut Rig<E>, single: &UdpSocket, train: &UdpSocket, address: SocketAddr) -> u64 {
    for _ in 0..16 {
        single.send_to(&TRAIN[..900], address).unwrap();
    }
    // Composing a train may cost the peer an allocation; only the engine's are counted.
    send_train(train, address, &TRAIN, 700);
    let before = allocations();
    let patience = Patience::new("datagrams to echo");
    let mut echoed = 0;
    while echoed < 36 {
        patience.check(rig.engine.counters());
        rig.open_turn(SOON, |engine, train, arrival| echoed += echo(engine, train, arrival));
    }
    rig.turn(Duration::from_millis(1), |_, _, _| {});
    let spent = allocations() - before;
    let mut buffer = [0; 1000];
    for _ in 0..16 {
        assert_eq!(single.recv(&mut buffer).unwrap(), 900);
    }
    for _ in 0..20 {
        assert_eq!(train.recv(&mut buffer).unwrap(), 700);
    }
    spent
}
