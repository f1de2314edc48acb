//! Quiet sockets first: what a flooded one received does not stand before what few others did.
//!
//! The kernel hands out a bounded number of trains of one socket in a turn, so that no socket starves another. But the turn's sends
//! leave in the order in which its trains were handed out, and a train of a quiet socket that arrived last would wait for all of
//! them. Within a socket the order is kept.

use crate::{Origin, Train};

/// A socket with more trains in one batch than this is busy, if others have at most a quarter of its number.
const BUSY: u32 = 8;

/// Counts and spare memory of one engine.
#[derive(Debug)]
pub struct Fair {
    /// Trains in the batch at hand, by socket.
    counts: Vec<u32>,
    spare: Vec<Train>,
}

impl Fair {
    /// For batches of at most so many trains.
    pub fn new(batch_max: usize) -> Self {
        Self { counts: Vec::new(), spare: Vec::with_capacity(batch_max) }
    }

    /// Sorts a batch: trains of quiet sockets and of the interface, then those of busy ones.
    pub fn sort(&mut self, batch: &mut Vec<Train>, from: usize) {
        let most = self.count(&batch[from..]);
        if most > BUSY && most as usize != batch.len() - from {
            let limit = most / 4;
            let (counts, busy) = (&self.counts, &mut self.spare);
            let is_busy = |train: &mut Train| place(train).is_some_and(|socket| counts[socket] > limit);
            busy.extend(batch.extract_if(from.., is_busy));
            batch.append(busy);
        }
        self.forget(&batch[from..]);
    }

    /// Counts, and returns the most of one socket.
    fn count(&mut self, batch: &[Train]) -> u32 {
        let mut most = 0;
        for socket in batch.iter().filter_map(place) {
            if self.counts.len() <= socket {
                self.counts.resize(socket + 1, 0);
            }
            self.counts[socket] += 1;
            most = most.max(self.counts[socket]);
        }
        most
    }

    fn forget(&mut self, batch: &[Train]) {
        for socket in batch.iter().filter_map(place) {
            self.counts[socket] = 0;
        }
    }
}

fn place(train: &Train) -> Option<usize> {
    match train.origin() {
        Origin::Outside(from) => Some(usize::from(from.socket.0)),
        Origin::Inside => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::Fair;
    use crate::{BufferId, Endpoint, Origin, Owner, SocketId, Train};

    /// Sockets of a batch, after it was sorted; the number of a train within its socket must only grow.
    fn sorted(sockets: &[u16]) -> Vec<u16> {
        let owner = Owner::new();
        let remote = SocketAddr::from(([192, 0, 2, 1], 1));
        let train = |(index, &socket): (usize, &u16)| {
            let from = Endpoint { socket: SocketId(socket), remote, local: None };
            Train::new(&owner, BufferId::mint(index as u16), 0..10, 10, Origin::Outside(from), 0)
        };
        let mut batch: Vec<Train> = sockets.iter().enumerate().map(train).collect();
        Fair::new(64).sort(&mut batch, 0);
        let mut last = [None; 16];
        let mut order = Vec::new();
        for train in batch {
            let Origin::Outside(from) = train.origin() else { panic!("all are from sockets") };
            let number = train.take(&owner).index();
            let before = last[usize::from(from.socket.0)].replace(number);
            assert!(before < Some(number), "order within a socket");
            order.push(from.socket.0);
        }
        order
    }

    #[test]
    fn a_quiet_socket_goes_before_a_flooded_one() {
        let mut batch = vec![3; 30];
        batch.extend([7, 3, 7, 3]);
        let mut expect = vec![7, 7];
        expect.extend([3; 32]);
        assert_eq!(sorted(&batch), expect);
    }

    #[test]
    fn sockets_alike_stay_as_they_are() {
        for batch in [&[1, 2, 1, 2, 1, 2][..], &[5; 40], &[]] {
            assert_eq!(sorted(batch), batch);
        }
        let alike: Vec<u16> = (0..60).map(|index| index % 2).collect();
        assert_eq!(sorted(&alike), alike);
    }

    #[test]
    fn what_was_in_the_batch_before_is_not_touched() {
        let owner = Owner::new();
        let train = |socket: u16, index: u16| {
            let remote = SocketAddr::from(([192, 0, 2, 1], 1));
            let from = Endpoint { socket: SocketId(socket), remote, local: None };
            Train::new(&owner, BufferId::mint(index), 0..10, 10, Origin::Outside(from), 0)
        };
        let mut batch: Vec<Train> = (0..20).map(|index| train(0, index)).collect();
        batch.push(train(1, 20));
        Fair::new(64).sort(&mut batch, 5);
        let order: Vec<u16> = batch.into_iter().map(|train| train.take(&owner).index()).collect();
        assert_eq!(order[..6], [0, 1, 2, 3, 4, 20]);
    }
}
