use super::*;

const LOW: PublicKey = [1; 32];
const HIGH: PublicKey = [2; 32];

fn at(milliseconds: u64) -> Moment {
    Moment::default() + Duration::from_millis(milliseconds)
}

/// Both ends of the session `number`: the initiator's first.
fn pair(number: u8, now: Moment) -> (Established, Established) {
    let keys = |sealing, opening| RawKeys::derive(Cipher::ChaCha20Poly1305, sealing, opening);
    let (forth, back) = ([number; 32], [number + 100; 32]);
    let (here, there) = (100 + u32::from(number), 200 + u32::from(number));
    (
        Established::new(here, there, true, &keys(&forth, &back), now),
        Established::new(there, here, false, &keys(&back, &forth), now),
    )
}

/// A packet on its way.
#[derive(Clone)]
struct Packet {
    index: u32,
    counter: u64,
    bytes: Vec<u8>,
}

fn seal(session: &mut Established) -> Packet {
    let counter = session.reserve(1).unwrap();
    let mut bytes = b"packet".to_vec();
    let tag = session.seal(counter, b"header", &mut bytes);
    bytes.extend(tag);
    Packet { index: session.remote_index(), counter, bytes }
}

/// A packet of the session in use.
fn send(ring: &mut Keyring) -> Packet {
    seal(ring.sealing().expect("a session to send with"))
}

/// Takes a packet as a gateway does.
fn receive(ring: &mut Keyring, packet: &Packet, now: Moment) -> Option<Slot> {
    let (session, slot) = ring.opening(packet.index)?;
    assert_eq!(session.open(packet.counter, b"header", &mut packet.bytes.clone()), Ok(6));
    if slot == Slot::Next {
        ring.promote(now);
    }
    Some(slot)
}

/// Sends there and back until nothing changes any more, and says which session each then sends with.
fn settle(low: &mut Keyring, high: &mut Keyring, now: Moment) -> (u32, u32) {
    for _ in 0..4 {
        let packet = send(low);
        assert!(receive(high, &packet, now).is_some(), "lost on the way up");
        let packet = send(high);
        assert!(receive(low, &packet, now).is_some(), "lost on the way down");
    }
    (low.sealing().unwrap().remote_index(), high.sealing().unwrap().local_index())
}

/// Two keyrings that share a first session, begun by the lower key at 0.
fn connected() -> (Keyring, Keyring) {
    let (mut low, mut high) = (Keyring::new(&LOW, &HIGH), Keyring::new(&HIGH, &LOW));
    let (initiator, responder) = pair(1, at(0));
    assert_eq!(low.install_initiator(initiator, at(0)), (Installed::Current, Released::default()));
    assert_eq!(high.install_responder(responder, at(0)), (Installed::Current, Released::default()));
    (low, high)
}

#[test]
fn first_session_is_used_at_once_by_both() {
    let (mut low, mut high) = connected();
    let packet = send(&mut low);
    assert_eq!(receive(&mut high, &packet, at(1)), Some(Slot::Current));
    let packet = send(&mut high);
    assert_eq!(receive(&mut low, &packet, at(1)), Some(Slot::Current));
}

#[test]
fn packets_that_overtake_the_final_are_not_lost() {
    let (mut low, mut high) = connected();
    let (initiator, responder) = pair(2, at(120_000));
    assert_eq!(low.install_initiator(initiator, at(120_000)).0, Installed::Next);
    // The Final is still being computed over there.
    let packet = send(&mut low);
    assert_eq!(receive(&mut high, &packet, at(120_001)), Some(Slot::Current));
    assert_eq!(high.install_responder(responder, at(120_002)).0, Installed::Next);
    // Neither has heard of the other yet, and both can still be understood.
    let (up, down) = (send(&mut low), send(&mut high));
    assert_eq!(receive(&mut high, &up, at(120_003)), Some(Slot::Current));
    assert_eq!(receive(&mut low, &down, at(120_003)), Some(Slot::Current));
}

#[test]
fn confirm_changes_the_initiator_and_its_packet_the_responder() {
    let (mut low, mut high) = connected();
    let (initiator, responder) = pair(2, at(120_000));
    low.install_initiator(initiator, at(120_000));
    high.install_responder(responder, at(120_001));
    // What is on its way under the old session is late.
    let (up, down) = (send(&mut low), send(&mut high));
    let confirm = seal(high.pending().unwrap());
    assert_eq!(receive(&mut low, &confirm, at(120_002)), Some(Slot::Next));
    let first = send(&mut low);
    assert_eq!(first.index, 202);
    assert_eq!(receive(&mut high, &first, at(120_003)), Some(Slot::Next));
    assert_eq!(send(&mut high).index, 102);
    assert_eq!(receive(&mut high, &up, at(120_004)), Some(Slot::Previous));
    assert_eq!(receive(&mut low, &down, at(120_004)), Some(Slot::Previous));
}

#[test]
fn either_side_may_begin_the_change() {
    let (mut low, mut high) = connected();
    let (initiator, responder) = pair(2, at(130_000));
    assert_eq!(high.install_initiator(initiator, at(130_000)).0, Installed::Next);
    assert_eq!(low.install_responder(responder, at(130_000)).0, Installed::Next);
    let confirm = seal(low.pending().unwrap());
    assert_eq!(receive(&mut high, &confirm, at(130_001)), Some(Slot::Next));
    assert_eq!(settle(&mut low, &mut high, at(130_002)), (102, 102));
}

#[test]
fn previous_session_is_released_after_its_term() {
    let (mut low, mut high) = connected();
    let (initiator, _) = pair(2, at(120_000));
    low.install_initiator(initiator, at(120_000));
    let late = send(&mut high);
    assert_eq!(low.next_timeout(), Some(at(130_000)), "the Confirm is waited for");
    low.promote(at(121_000));
    assert_eq!(low.next_timeout(), Some(at(131_000)));
    assert_eq!(low.expire(at(130_999)), Released::default());
    assert_eq!(receive(&mut low, &late, at(130_999)), Some(Slot::Previous));
    assert_eq!(low.expire(at(131_000)).into_iter().collect::<Vec<_>>(), [101]);
    assert!(low.opening(101).is_none());
    assert_eq!(low.next_timeout(), None);
}

/// A flow in one direction only, and the initiator's answer to the Confirm was lost: the responder must have changed before the
/// initiator drops the old session.
#[test]
fn responder_changes_by_itself_while_the_old_session_still_opens() {
    let (mut low, mut high) = connected();
    let (initiator, responder) = pair(2, at(120_000));
    low.install_initiator(initiator, at(120_000));
    high.install_responder(responder, at(120_000));
    let confirm = seal(high.pending().unwrap());
    receive(&mut low, &confirm, at(120_001));
    for seconds in 121..200 {
        let now = at(seconds * 1000);
        low.expire(now);
        high.expire(now);
        let packet = send(&mut high);
        assert!(receive(&mut low, &packet, now).is_some(), "lost at {seconds} s");
    }
}

#[test]
fn initiator_gives_up_a_session_that_is_not_confirmed() {
    let (mut low, _) = connected();
    let (initiator, _) = pair(2, at(120_000));
    low.install_initiator(initiator, at(120_000));
    assert!(!low.needs_rekey(at(129_999)), "one is on its way");
    assert_eq!(low.expire(at(130_000)).into_iter().collect::<Vec<_>>(), [102]);
    assert!(low.needs_rekey(at(130_000)));
    assert_eq!(send(&mut low).index, 201, "the old one is still in use");
}

#[test]
fn unconfirmed_session_displaces_nothing() {
    let (mut low, mut high) = connected();
    for number in 2..5 {
        let now = at(10_000 * u64::from(number));
        let (_, responder) = pair(number, now);
        assert_eq!(high.install_responder(responder, now).0, Installed::Next);
        assert_eq!(send(&mut high).index, 101);
        let packet = send(&mut low);
        assert_eq!(receive(&mut high, &packet, now), Some(Slot::Current));
    }
}

/// The peer was told by a Confirm that its session stands, and has begun to use it, when it makes another one.
#[test]
fn displaced_session_still_opens() {
    let (mut low, mut high) = connected();
    let (mut initiator, responder) = pair(2, at(10_000));
    let displaced = responder.local_index();
    high.install_responder(responder, at(10_000));
    let packet = seal(&mut initiator);
    let (initiator, responder) = pair(3, at(11_000));
    low.install_initiator(initiator, at(11_000));
    let (installed, released) = high.install_responder(responder, at(11_000));
    assert_eq!((installed, released), (Installed::Next, Released::default()));
    assert_eq!(receive(&mut high, &packet, at(11_001)), Some(Slot::Previous));
    assert_eq!(send(&mut high).index, 101, "it is not taken up again");
    let confirm = seal(high.pending().unwrap());
    assert_eq!(receive(&mut low, &confirm, at(11_002)), Some(Slot::Next));
    assert_eq!(settle(&mut low, &mut high, at(11_003)), (203, 203));
    assert_eq!(high.expire(at(21_003)).into_iter().collect::<Vec<_>>(), [displaced, 201]);
}

#[test]
fn a_keyring_never_holds_more_than_four_sessions() {
    let (_, mut high) = connected();
    let mut held: std::collections::BTreeSet<u32> = [201].into();
    for number in 2..50 {
        let now = at(100 * u64::from(number));
        let (_, responder) = pair(number, now);
        held.insert(responder.local_index());
        for index in high.install_responder(responder, now).1 {
            assert!(held.remove(&index), "released what was not held");
        }
        assert!(held.len() <= 4);
        for index in &held {
            assert!(high.opening(*index).is_some(), "{index} is held but not found");
        }
    }
    for index in high.clear() {
        assert!(held.remove(&index));
    }
    assert!(held.is_empty() && high.is_empty());
}

/// All orders in which the four ends of two simultaneous handshakes can be installed, with or without an older session, with
/// traffic from the first moment: nothing is lost, and both sides settle on the session of the lower key.
#[test]
fn simultaneous_handshakes_settle_on_the_lower_key() {
    const ORDERS: usize = 24;
    for older in [false, true] {
        for order in 0..ORDERS {
            simultaneous(older, order);
        }
    }
}

fn simultaneous(older: bool, order: usize) {
    let (mut low, mut high) = if older { connected() } else { (Keyring::new(&LOW, &HIGH), Keyring::new(&HIGH, &LOW)) };
    let start = 120_000;
    let (low_initiator, high_responder) = pair(2, at(start));
    let (high_initiator, low_responder) = pair(3, at(start));
    let mut ends = vec![(true, low_initiator), (false, high_responder), (false, high_initiator), (true, low_responder)];
    let (mut left, mut sequence) = (order, Vec::new());
    for choices in (1..=4).rev() {
        sequence.push(ends.remove(left % choices));
        left /= choices;
    }
    // A Final exists only when its initiator has installed the session and was not told to discard it.
    let mut finals = Vec::new();
    let mut waiting = Vec::new();
    let mut step = 0;
    for (is_low, end) in sequence {
        if end.initiator() {
            finals.extend(install(is_low, end, &mut low, &mut high, at(start + step)));
        } else {
            waiting.push((is_low, end));
        }
        let (ready, rest) = waiting.into_iter().partition::<Vec<_>, _>(|(_, end)| finals.contains(&end.remote_index()));
        waiting = rest;
        for (is_low, end) in ready {
            install(is_low, end, &mut low, &mut high, at(start + step));
        }
        step += 1;
    }
    // The Finals and Confirms have arrived, and so has the empty packet that answers a Confirm; three seconds later at most
    // both send with what they settled on, and a minute later they still do.
    for later in [1, 3_500, 20_000, 60_000] {
        let now = at(start + step + later);
        low.expire(now);
        high.expire(now);
        let (up, down) = settle(&mut low, &mut high, now);
        let name = format!("older {older}, order {order}, {later} ms later");
        assert_eq!(up, 202, "{name}");
        assert_eq!(down, 202, "{name}");
    }
}

/// Installs one end; a responder confirms where it should. Returns the index that names the Final of an initiator.
fn install(is_low: bool, end: Established, low: &mut Keyring, high: &mut Keyring, now: Moment) -> Option<u32> {
    let (ring, other) = if is_low { (low, high) } else { (high, low) };
    let index = end.local_index();
    if end.initiator() {
        return (ring.install_initiator(end, now).0 != Installed::Discarded).then_some(index);
    }
    let installed = ring.install_responder(end, now).0;
    if installed != Installed::ReceiveOnly {
        let confirm = seal(ring.opening(index).unwrap().0);
        if receive(other, &confirm, now) == Some(Slot::Next) {
            let answer = send(other);
            receive(ring, &answer, now);
        }
    }
    None
}

#[test]
fn initiator_renews_first_and_the_responder_later() {
    let (mut low, mut high) = connected();
    assert!(!low.needs_rekey(at(119_999)));
    assert!(low.needs_rekey(at(120_000)));
    assert_eq!(low.rekey_at(), Some(at(120_000)));
    assert!(!high.needs_rekey(at(129_999)));
    assert!(high.needs_rekey(at(130_000)));
    assert_eq!(high.rekey_at(), Some(at(130_000)));
    low.sealing().unwrap().reserve(REKEY_PACKETS - 1).unwrap();
    assert!(!low.needs_rekey(at(0)));
    let packet = send(&mut low);
    assert!(low.needs_rekey(at(0)));
    receive(&mut high, &packet, at(0));
    assert!(!high.needs_rekey(at(0)));
    high.sealing().unwrap().reserve(RESPONDER_REKEY_PACKETS).unwrap();
    assert!(high.needs_rekey(at(0)));
}

#[test]
fn initiator_also_counts_what_it_receives() {
    let (mut low, mut high) = connected();
    high.sealing().unwrap().reserve(REKEY_PACKETS - 1).unwrap();
    let packet = send(&mut high);
    receive(&mut low, &packet, at(0));
    assert!(low.needs_rekey(at(0)));
}

#[test]
fn counters_are_handed_out_once_and_end() {
    let (session, _) = pair(1, at(0));
    assert_eq!(session.reserve(64), Some(0));
    assert_eq!(session.reserve(1), Some(64));
    assert_eq!(session.reserve(0), Some(65));
    assert_eq!(session.reserve(u64::MAX), None);
    assert_eq!(session.reserve(PACKETS_MAX - 65), Some(65));
    assert_eq!(session.reserve(1), None);
    assert_eq!(session.sent(), PACKETS_MAX);
}

#[test]
fn used_up_session_is_not_offered() {
    let (mut low, _) = connected();
    low.sealing().unwrap().reserve(PACKETS_MAX).unwrap();
    assert!(low.sealing().is_none());
    assert!(low.needs_rekey(at(0)));
}

#[test]
fn packets_are_taken_once_and_forgeries_move_nothing() {
    let (mut here, mut there) = pair(1, at(0));
    let packet = seal(&mut here);
    let mut open = |counter, bytes: &[u8]| there.open(counter, b"header", &mut bytes.to_vec());
    // A forged packet far ahead must not close the window to the true ones.
    assert_eq!(open(1_000_000, &packet.bytes), Err(Refused::Unopened(OpenError::Forged)));
    assert_eq!(open(0, &packet.bytes[..10]), Err(Refused::Unopened(OpenError::TooShort)));
    assert_eq!(open(PACKETS_MAX, &packet.bytes), Err(Refused::PastLimit));
    assert_eq!(open(u64::MAX, &packet.bytes), Err(Refused::PastLimit));
    assert_eq!(open(0, &packet.bytes), Ok(6));
    assert_eq!(open(0, &packet.bytes), Err(Refused::Replayed(Replayed::Seen)));
    assert_eq!(there.newest(), 1);
}

#[test]
fn unknown_index_opens_nothing() {
    let (mut low, _) = connected();
    assert!(low.opening(999).is_none());
    assert!(Keyring::new(&LOW, &HIGH).opening(101).is_none());
}
