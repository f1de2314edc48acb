//! The members of a namespace: gateways that hold an address, each with its control session.
//!
//! There may be very many, all of them quiet. So a member is one record of 192 bytes (a test holds it), in chunks that never move
//! and go when they are empty, found by its slot, its address, its key or its link. The tables for the latter three hold slots
//! and nothing twice. Their hash is keyed, as keys and addresses are strangers' choice; nothing ever goes through them in order.
//!
//! Members are also in the order of their last words: the one that has been silent for longest is the next whose lease may run out.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashTable;

use super::LEASE;
use super::compact::{Name, Seconds, Stamp};
use super::links::{Link, LinkState};
use crate::seam::Moment;
use crate::session::PublicKey;
use crate::session::aead::RawKeys;

/// A gateway that holds an address.
#[derive(Debug)]
pub(super) struct Member {
    /// What it is told things on: a [`Link`] in two parts, so that there is no gap between it and the rest.
    link: LinkState,
    link_keys: RawKeys,
    key: PublicKey,
    ip4: Ipv4Addr,
    pub(super) name: Name,
    /// Random number of its start.
    pub(super) boot: u64,
    /// Number of its last request to register.
    pub(super) request: u32,
    /// Number of the last change it was told.
    pub(super) change: u32,
    /// How long it had held its address before it registered here, by its ticket; nothing: it came without one.
    pub(super) before: Seconds,
    /// When it registered here.
    pub(super) since: Stamp,
    /// Its last authenticated word.
    heard: Stamp,
    order: Neighbours,
}

/// Who was heard just before a member and who just after it: indexes of slots, zero where there is none.
#[derive(Clone, Copy, Debug, Default)]
struct Neighbours {
    before: u16,
    after: u16,
}

impl Member {
    pub(super) fn new(now: Moment, link: Link, key: PublicKey, ip4: Ipv4Addr) -> Self {
        Self {
            link: link.state,
            link_keys: link.keys,
            key,
            ip4,
            name: Name::from(String::new()),
            boot: 0,
            request: 0,
            change: 0,
            before: Seconds::new(None),
            since: Stamp::new(now),
            heard: Stamp::new(now),
            order: Neighbours::default(),
        }
    }

    /// Index of the link that it is told things on.
    pub(super) fn link(&self) -> u32 {
        self.link.index
    }

    /// That link, to seal and open with.
    pub(super) fn link_mut(&mut self) -> (&mut LinkState, &RawKeys) {
        (&mut self.link, &self.link_keys)
    }

    /// Its link, when it is a member no more.
    pub(super) fn into_link(self) -> Link {
        Link { state: self.link, keys: self.link_keys }
    }

    pub(super) fn key(&self) -> &PublicKey {
        &self.key
    }

    pub(super) fn ip4(&self) -> Ipv4Addr {
        self.ip4
    }

    /// Its last authenticated word.
    pub(super) fn heard(&self) -> Moment {
        self.heard.moment()
    }

    /// When its lease runs out, if it says nothing more.
    pub(super) fn lease_ends(&self) -> Moment {
        self.heard.moment() + LEASE
    }

    /// How long it has held its address.
    pub(super) fn age(&self, now: Moment) -> Duration {
        now.since(self.since.moment()) + self.before.get().unwrap_or_default()
    }
}

/// All members of a namespace. Before the first one: no memory.
#[derive(Debug)]
pub(super) struct Members {
    records: Records,
    hasher: Arc<ahash::RandomState>,
    /// Who holds an address.
    by_ip4: HashTable<u16>,
    /// Who has a key.
    by_key: HashTable<u16>,
    /// Whose link has an index.
    by_link: HashTable<u16>,
    /// The ends of the order of last words.
    ends: Neighbours,
}

impl Members {
    /// None yet. `hasher` has secret keys.
    pub(super) fn new(hasher: Arc<ahash::RandomState>) -> Self {
        Self {
            records: Records::default(),
            hasher,
            by_ip4: HashTable::new(),
            by_key: HashTable::new(),
            by_link: HashTable::new(),
            ends: Neighbours::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// The member that holds the slot of this index.
    pub(super) fn get(&self, index: u32) -> Option<&Member> {
        self.records.get(u16::try_from(index).ok()?)
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Member> {
        self.records.get_mut(u16::try_from(index).ok()?)
    }

    /// All, by the index of their slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Member)> {
        self.records.iter()
    }

    /// Who holds an address.
    pub(super) fn by_ip4(&self, ip4: Ipv4Addr) -> Option<u32> {
        let is = |index: &u16| self.records.get(*index).is_some_and(|member| member.ip4 == ip4);
        self.by_ip4.find(self.hasher.hash_one(ip4), is).copied().map(u32::from)
    }

    /// Who has a key.
    pub(super) fn by_key(&self, key: &PublicKey) -> Option<u32> {
        let is = |index: &u16| self.records.get(*index).is_some_and(|member| member.key == *key);
        self.by_key.find(self.hasher.hash_one(key), is).copied().map(u32::from)
    }

    /// Whose link has this index.
    pub(super) fn by_link(&self, link: u32) -> Option<u32> {
        let is = |index: &u16| self.records.get(*index).is_some_and(|member| member.link() == link);
        self.by_link.find(self.hasher.hash_one(link), is).copied().map(u32::from)
    }

    /// Lets `member` hold the vacant slot of this index; nobody has its address, its key or its link. It was heard last.
    pub(super) fn insert(&mut self, index: u32, member: Member) {
        let index = u16::try_from(index).expect("no more slots than that");
        let (ip4, key, link) = (member.ip4, member.key, member.link());
        self.records.insert(index, member);
        self.append(index);
        let Self { records, hasher, by_ip4, by_key, by_link, .. } = self;
        enter(by_ip4, records, index, hasher.hash_one(ip4), |member| hasher.hash_one(member.ip4));
        enter(by_key, records, index, hasher.hash_one(key), |member| hasher.hash_one(member.key));
        enter(by_link, records, index, hasher.hash_one(link), |member| hasher.hash_one(member.link()));
    }

    /// Takes the member of this slot out.
    pub(super) fn remove(&mut self, index: u32) -> Option<Member> {
        let index = u16::try_from(index).ok()?;
        self.unlink(index);
        let member = self.records.remove(index)?;
        strike(&mut self.by_ip4, index, self.hasher.hash_one(member.ip4));
        strike(&mut self.by_key, index, self.hasher.hash_one(member.key));
        strike(&mut self.by_link, index, self.hasher.hash_one(member.link()));
        Some(member)
    }

    /// Lets a member hold another address, which nobody has.
    pub(super) fn give_address(&mut self, index: u32, ip4: Ipv4Addr) {
        let Self { records, hasher, by_ip4, .. } = self;
        let Ok(index) = u16::try_from(index) else { return };
        let Some(member) = records.get_mut(index) else { return };
        let before = std::mem::replace(&mut member.ip4, ip4);
        strike(by_ip4, index, hasher.hash_one(before));
        enter(by_ip4, records, index, hasher.hash_one(ip4), |member| hasher.hash_one(member.ip4));
    }

    /// Lets a member be told things on another link. Returns the one before.
    pub(super) fn give_link(&mut self, index: u32, link: Link) -> Option<Link> {
        let Self { records, hasher, by_link, .. } = self;
        let index = u16::try_from(index).ok()?;
        let number = link.state.index;
        let member = records.get_mut(index)?;
        let state = std::mem::replace(&mut member.link, link.state);
        let before = Link { state, keys: member.link_keys.take() };
        member.link_keys = link.keys;
        strike(by_link, index, hasher.hash_one(before.state.index));
        enter(by_link, records, index, hasher.hash_one(number), |member| hasher.hash_one(member.link()));
        Some(before)
    }

    /// A member said something.
    pub(super) fn note_heard(&mut self, index: u32, now: Moment) {
        let Ok(index) = u16::try_from(index) else { return };
        let Some(member) = self.records.get_mut(index) else { return };
        member.heard = Stamp::new(now);
        if self.ends.after != index {
            self.unlink(index);
            self.append(index);
        }
    }

    /// The member that has been silent for longest, and when its lease runs out.
    pub(super) fn quietest(&self) -> Option<(u32, Moment)> {
        let member = self.records.get(self.ends.before)?;
        Some((self.ends.before.into(), member.lease_ends()))
    }

    /// All tables and the order of last words must agree.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let (mut index, mut before, mut count) = (self.ends.before, 0, 0);
        while let Some(member) = self.records.get(index) {
            assert_eq!(member.order.before, before);
            assert!(self.records.get(before).is_none_or(|earlier| earlier.heard() <= member.heard()));
            (before, index, count) = (index, member.order.after, count + 1);
        }
        assert_eq!((self.ends.after, index, count), (before, 0, self.len()));
        for (index, member) in self.iter() {
            assert_eq!(self.by_ip4(member.ip4), Some(index));
            assert_eq!(self.by_key(&member.key), Some(index));
            assert_eq!(self.by_link(member.link()), Some(index));
        }
        let tables = [&self.by_ip4, &self.by_key, &self.by_link].map(HashTable::len);
        assert_eq!((tables, self.iter().count()), ([count; 3], count));
        assert_eq!(self.records.0.iter().flatten().map(|chunk| chunk.count).sum::<usize>(), count);
    }

    /// Puts a member at the end of the order of last words.
    fn append(&mut self, index: u16) {
        let last = self.ends.after;
        self.ends.after = index;
        match self.records.get_mut(last) {
            Some(last) => last.order.after = index,
            None => self.ends.before = index,
        }
        if let Some(member) = self.records.get_mut(index) {
            member.order = Neighbours { before: last, after: 0 };
        }
    }

    /// Takes a member out of the order of last words.
    fn unlink(&mut self, index: u16) {
        let Some(Neighbours { before, after }) = self.records.get(index).map(|member| member.order) else { return };
        match self.records.get_mut(before) {
            Some(earlier) => earlier.order.after = after,
            None => self.ends.before = after,
        }
        match self.records.get_mut(after) {
            Some(later) => later.order.before = before,
            None => self.ends.after = before,
        }
    }
}

/// Enters a member into a table by the hash of what it is to be found by.
fn enter(table: &mut HashTable<u16>, records: &Records, index: u16, hash: u64, rehash: impl Fn(&Member) -> u64) {
    let rehash = |index: &u16| records.get(*index).map(&rehash).expect("tables name members that are there");
    table.insert_unique(hash, index, rehash);
}

/// Strikes a member out of a table.
fn strike(table: &mut HashTable<u16>, index: u16, hash: u64) {
    let entry = table.find_entry(hash, |other| *other == index);
    entry.expect("every member is in every table").remove();
}

/// Records of a chunk: 12 KiB.
const CHUNK_RECORDS: usize = 64;

/// The records of members by the index of their slots, in chunks.
#[derive(Debug, Default)]
struct Records(Vec<Option<Box<Chunk>>>);

#[derive(Debug)]
struct Chunk {
    count: usize,
    records: [Option<Member>; CHUNK_RECORDS],
}

impl Records {
    fn get(&self, index: u16) -> Option<&Member> {
        let (chunk, place) = place(index);
        self.0.get(chunk)?.as_ref()?.records[place].as_ref()
    }

    fn get_mut(&mut self, index: u16) -> Option<&mut Member> {
        let (chunk, place) = place(index);
        self.0.get_mut(chunk)?.as_mut()?.records[place].as_mut()
    }

    fn insert(&mut self, index: u16, member: Member) {
        let (chunk, place) = place(index);
        if self.0.len() <= chunk {
            self.0.resize_with(chunk + 1, || None);
        }
        let empty = || Box::new(Chunk { count: 0, records: [const { None }; CHUNK_RECORDS] });
        let chunk = self.0[chunk].get_or_insert_with(empty);
        chunk.count += 1;
        let before = chunk.records[place].replace(member);
        debug_assert!(before.is_none(), "one slot has one holder");
    }

    fn remove(&mut self, index: u16) -> Option<Member> {
        let (chunk, place) = place(index);
        let chunk = self.0.get_mut(chunk)?;
        let record = &mut chunk.as_mut()?.records[place];
        let keys = record.as_mut()?.link_keys.take();
        let mut member = record.take()?;
        member.link_keys = keys;
        if let Some(there) = chunk {
            there.count -= 1;
            if there.count == 0 {
                *chunk = None;
            }
        }
        Some(member)
    }

    fn iter(&self) -> impl Iterator<Item = (u32, &Member)> {
        let chunks = (0..).step_by(CHUNK_RECORDS).zip(&self.0);
        let records =
            chunks.flat_map(|(first, chunk)| chunk.iter().flat_map(move |chunk| (first..).zip(&chunk.records)));
        records.filter_map(|(index, record)| Some((index, record.as_ref()?)))
    }
}

fn place(index: u16) -> (usize, usize) {
    (usize::from(index) / CHUNK_RECORDS, usize::from(index) % CHUNK_RECORDS)
}
