//! How our NAT maps, asked of the transfer: a second port of it is asked where it sees us. Where that differs from what the first one
//! sees, each destination has a mapping of its own.

use std::net::SocketAddr;
use std::time::Duration;

use mesh_wire::observe::{NONCE_BYTES, Observe, Observed, mac_input};

use super::{Event, Gateway, Outgoing};
use crate::drops::DropReason;
use crate::seam::{Endpoint, Moment};
use crate::session::mac::ObserverKey;

/// Questions until one is answered, and the pause after each.
const TRIES: u32 = 3;
const TRY_INTERVAL: Duration = Duration::from_millis(500);
/// Between two answers: what was seen is asked for anew before it counts no more.
const INTERVAL: Duration = Duration::from_secs(290);

/// The second port, and the question at hand.
#[derive(Debug, Default)]
pub(super) struct Observer {
    /// Which port, and the key of its namespace once the program has handed it over.
    port: Option<u16>,
    key: Option<ObserverKey>,
    nonce: Option<[u8; NONCE_BYTES]>,
    sent: u32,
    next_at: Option<Moment>,
}

impl Observer {
    pub(super) fn next_timeout(&self) -> Option<Moment> {
        self.next_at
    }
}

impl Gateway {
    /// The key of questions to another port of the transfer, which [`Event::ObserverKeyWanted`] asked for.
    pub fn set_observer_key(&mut self, now: Moment, port: u16, key: ObserverKey) {
        if self.observer.port == Some(port) {
            self.observer.key = Some(key);
            self.observe(now);
        }
    }

    /// The transfer names another port of its own.
    pub(super) fn observer_named(&mut self, now: Moment, port: Option<u16>) {
        if self.observer.port == port {
            return self.observe(now);
        }
        self.observer = Observer { port, ..Observer::default() };
        if let Some(port) = port {
            self.tell(Event::ObserverKeyWanted { port });
        }
    }

    /// Asks anew: what the port saw before counts no more.
    pub(super) fn observe(&mut self, now: Moment) {
        if let Some(observer) = self.observer_at() {
            self.candidates.forget_seen_by(observer.remote);
        }
        let key = self.observer.key.is_some();
        self.observer.nonce = None;
        self.observer.sent = 0;
        self.observer.next_at = key.then_some(now);
    }

    /// Where the second port is: IPv4 alone, others are rarely translated.
    fn observer_at(&self) -> Option<Endpoint> {
        let (transfer, _) = self.relay.place().filter(|_| !self.relay.is_over_stream())?;
        let remote = SocketAddr::new(transfer.remote.ip(), self.observer.port?);
        self.sockets.endpoint(remote).filter(|_| remote.is_ipv4())
    }

    /// Asks, or asks again.
    pub(super) fn tend_observer(&mut self, now: Moment) {
        if self.observer.next_at.is_none_or(|at| at > now) {
            return;
        }
        let to = self.observer_at().filter(|_| self.relay.registration().is_some());
        let (Some(to), Some(key)) = (to, &self.observer.key) else {
            self.observer.next_at = Some(now + INTERVAL);
            return;
        };
        if self.observer.sent >= TRIES {
            // It may not be open to us, or have another token: nothing is known then.
            (self.observer.sent, self.observer.nonce) = (0, None);
            self.observer.next_at = Some(now + INTERVAL);
            return;
        }
        let nonce = *self.observer.nonce.get_or_insert_with(|| self.rng.bytes());
        let bytes = Observe::emit(&nonce, |covered| key.mac(covered)).to_vec();
        self.observer.sent += 1;
        self.observer.next_at = Some(now + TRY_INTERVAL * self.observer.sent);
        self.push(Outgoing::Send { bytes, to });
    }

    /// The second port tells where it sees us.
    pub(super) fn receive_observed(&mut self, now: Moment, from: &Endpoint, datagram: &[u8]) -> Result<(), DropReason> {
        if !super::outside::is_from(from, self.observer_at().as_ref()) {
            return Err(DropReason::UnknownEndpoint);
        }
        let seen = Observed::parse(datagram).map_err(super::outside::reason)?;
        let key = self.observer.key.as_ref().ok_or(DropReason::UnknownEndpoint)?;
        if !key.verify(mac_input(datagram), &seen.mac) {
            return Err(DropReason::WrongToken);
        }
        if self.observer.nonce.take_if(|nonce| *nonce == seen.nonce).is_none() {
            return Err(DropReason::Outdated);
        }
        self.observer.sent = 0;
        self.observer.next_at = Some(now + INTERVAL);
        if self.candidates.note_seen(now, seen.endpoint, from.remote) {
            self.collect_candidates(now);
        }
        Ok(())
    }
}
