//! Packets for the virtual interface that wait for the next submission. One may lie in several pieces: what was gathered from a train is
//! written where it lies.

use crate::gather::{Piece, SEGMENTS_MAX};

/// Pieces of one packet, at most: one of each datagram of a train.
pub const PIECES_MAX: usize = SEGMENTS_MAX;

/// Packets in the order in which they are to be written.
#[derive(Debug, Default)]
pub struct Writes {
    pieces: Vec<Piece>,
    /// Where in `pieces` each packet ends.
    ends: Vec<u32>,
    /// The packet begun last was refused: so is the rest of it.
    refused: bool,
}

impl Writes {
    /// None, with room for so many, of four pieces each.
    pub fn with_capacity(packets: usize) -> Self {
        Self { pieces: Vec::with_capacity(4 * packets), ends: Vec::with_capacity(packets), refused: false }
    }

    /// How many packets there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All pieces of all packets.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Begins a packet.
    pub fn push(&mut self, piece: Piece) {
        self.refused = false;
        self.pieces.push(piece);
        self.ends.push(self.pieces.len() as u32);
    }

    /// A packet is not begun, and what [`Writes::extend`] would add to it is left out.
    pub fn refuse(&mut self) {
        self.refused = true;
    }

    /// Goes on with the packet begun last.
    ///
    /// # Panics
    /// When there is none, or it has [`PIECES_MAX`] pieces.
    pub fn extend(&mut self, piece: Piece) {
        if self.refused {
            return;
        }
        let begins = self.ends.iter().rev().nth(1).map_or(0, |end| *end as usize);
        let end = self.ends.last_mut().expect("a packet to go on with");
        let last = self.pieces.last_mut().expect("a packet has a piece");
        if last.memory == piece.memory && last.offset + last.length == piece.offset {
            last.length += piece.length;
            return;
        }
        assert!(self.pieces.len() - begins < PIECES_MAX, "a packet of too many pieces");
        self.pieces.push(piece);
        *end = self.pieces.len() as u32;
    }

    /// The places of the pieces of a packet in [`Writes::pieces`].
    ///
    /// # Panics
    /// On a number that there is not.
    pub fn places(&self, packet: usize) -> std::ops::Range<usize> {
        let begins = if packet == 0 { 0 } else { self.ends[packet - 1] as usize };
        begins..self.ends[packet] as usize
    }

    /// Forgets all, keeps the memory.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.ends.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::{PIECES_MAX, Writes};
    use crate::gather::{Memory, Piece};

    fn piece(start: usize) -> Piece {
        Piece::new(Memory::Outside(1), start..start + 10)
    }

    #[test]
    fn packets_have_their_pieces_and_neighbours_are_one() {
        let mut writes = Writes::with_capacity(4);
        writes.push(piece(0));
        writes.push(piece(100));
        writes.extend(piece(110));
        writes.extend(piece(200));
        writes.extend(Piece::new(Memory::Slab, 210..220));
        writes.push(piece(220));
        assert_eq!((writes.len(), writes.pieces().len()), (3, 5));
        assert_eq!([0, 1, 2].map(|packet| writes.places(packet)), [0..1, 1..4, 4..5]);
        assert_eq!(writes.pieces()[1].range(), 100..120);
        writes.clear();
        assert!(writes.is_empty() && writes.pieces().is_empty());
    }

    #[test]
    #[should_panic(expected = "too many pieces")]
    fn a_packet_has_as_many_pieces_as_a_train_has_datagrams() {
        let mut writes = Writes::default();
        writes.push(piece(0));
        for number in 1..=PIECES_MAX {
            writes.extend(piece(number * 100));
        }
    }
}
