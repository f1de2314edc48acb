//! The size of one path: which lengths are asked for, and when.
//!
//! A *search* goes in rounds. The first asks for what is known to pass and for the longest there may be: mostly that is all. Each of
//! the next [`ROUNDS`] asks at once for all between what has been answered and the longest, so that the size is known after one
//! round trip and a moment, and a probe lost by chance costs nothing. What is not answered in any round does not pass.
//!
//! Afterwards the path is *settled*. While packets go that are longer than what every path carries, the size is confirmed again and
//! again; when that is not answered, those packets vanish, and nobody may say so: the size falls to what every path carries, and a
//! search begins. Every ten minutes, while the path is in use, it is looked whether it carries more (`PMTU_RAISE_TIMER` of RFC 8899);
//! sooner after a fall, which may have had another cause.

use std::time::Duration;

use super::OUTER_BYTES_ASSUMED;
use crate::gateway::paths::Path;
use crate::seam::Moment;

/// Lengths that are asked for, in bytes of the outer packet: tunnels, PPPoE and Ethernet; and networks of clouds beyond it.
pub const PROBED_BYTES: [u16; 11] =
    [OUTER_BYTES_ASSUMED, 1350, 1400, 1420, 1452, 1480, 1492, 1500, 3900, 8896, OUTER_BYTES_MAX];
/// The longest of them.
pub(in crate::gateway) const OUTER_BYTES_MAX: u16 = 9000;
/// What is asked for at most where nothing is known of our own network: Ethernet's.
pub(in crate::gateway) const OUTER_BYTES_USUAL: u16 = 1500;

/// Rounds after the first, in each of which what is not answered is asked again (`MAX_PROBES`).
const ROUNDS: u8 = 3;
/// A round lasts for two usual answers, within these.
const ROUND_LEAST: Duration = Duration::from_millis(200);
const ROUND_MOST: Duration = Duration::from_secs(1);
/// When not even the least length is answered, the path does not carry now, or the peer knows of no sizes: it is asked for that
/// alone; a few times in [`UNHEARD_FIRST`], as a session's beginning may be on its way again, then the pause doubles.
const UNHEARD_SOON: u32 = 4;
const UNHEARD_FIRST: Duration = Duration::from_secs(1);
const UNHEARD_MOST: Duration = RAISE;

/// It is looked for more this often.
const RAISE: Duration = Duration::from_secs(600);
/// After a fall so soon; the pause doubles.
const RAISE_FALLEN: Duration = Duration::from_secs(10);

/// A size is confirmed this often, while longer packets go; and asked this often until there is an answer.
const CONFIRM: Duration = Duration::from_millis(600);
const CONFIRM_AGAIN: Duration = Duration::from_millis(300);
/// So much earlier where the path loses packets: it may be the long ones that it loses.
const CONFIRM_EARLIER: Duration = Duration::from_millis(400);
/// It has fallen when so many are not answered, the first of them for four usual answers, within these.
const MISSED: usize = 4;
const MISSED_LEAST: Duration = Duration::from_millis(1200);
const MISSED_MOST: Duration = Duration::from_millis(1900);

/// What was going on so long ago is not waited for any more: the path did not carry meanwhile, or nothing did.
const RESTED: Duration = Duration::from_secs(4);

/// Probes that are waited for, at most.
const OUTSTANDING_MAX: usize = 40;

/// A probe that was not answered yet.
#[derive(Clone, Copy, Debug)]
struct Outstanding {
    seq: u32,
    outer: u16,
    /// What UDP carries of it.
    payload: usize,
    at: Moment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing was asked yet.
    New,
    /// So many rounds were asked, the last of which is over then.
    Searching { rounds: u8, next_at: Moment },
    /// Nothing is answered: asked so often for the least length, and then again.
    Unheard { asked: u32, next_at: Moment },
    /// The size is known. When it is confirmed, at the earliest, and when it is looked for more.
    Settled { confirm_at: Moment, raise_at: Moment },
}

/// What is known of the size of one path.
#[derive(Debug)]
pub(in crate::gateway) struct Size {
    /// Of this path: the relay's may lead elsewhere from one moment to the next.
    path: Option<Path>,
    stage: Stage,
    /// The longest outer packet that was answered, in bytes, or what every path is assumed to carry.
    proven: u16,
    /// The longest that was answered in this search; 0: none.
    best: u16,
    /// The longest of the peer's own probes, as an outer packet of ours would be. The peer may have lied, so it serves for hints alone.
    heard: u16,
    outstanding: Vec<Outstanding>,
    /// A packet went that is longer than what every path carries, and the size was not confirmed since.
    used: bool,
    /// Searches since the size fell, until one finds that it is what there is at most.
    recovering: u32,
    tended_at: Moment,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            path: None,
            stage: Stage::New,
            proven: OUTER_BYTES_ASSUMED,
            best: 0,
            heard: 0,
            outstanding: Vec::new(),
            used: false,
            recovering: 0,
            tended_at: Moment::default(),
        }
    }
}

impl Size {
    /// Whether it is the size of this path.
    pub(super) fn is_of(&self, path: &Path) -> bool {
        self.path.as_ref() == Some(path)
    }

    /// The longest outer packet that the path has proven to carry, in bytes.
    pub(in crate::gateway::paths) fn proven(&self) -> u16 {
        self.proven
    }

    /// Whether more may be proven at any moment.
    pub(super) fn is_searching(&self) -> bool {
        matches!(self.stage, Stage::New | Stage::Searching { .. })
    }

    /// The longest probe of the peer's by this path, in bytes of an outer packet of ours; 0: none came.
    pub(super) fn heard(&self) -> u16 {
        self.heard
    }

    /// A probe of the peer's came, that an outer packet of so many bytes would carry the other way.
    /// Where nothing was answered, it is time to ask again: the path carries, and the peer knows of sizes.
    pub(super) fn hear(&mut self, now: Moment, outer: u16) {
        self.heard = self.heard.max(outer);
        if let Stage::Unheard { next_at, .. } = &mut self.stage
            && outer >= OUTER_BYTES_ASSUMED
        {
            *next_at = now.min(*next_at);
        }
    }

    /// A packet goes that is longer than what every path carries.
    pub(super) fn note_used(&mut self) {
        self.used = true;
    }

    /// Nothing is known of it any more.
    pub(in crate::gateway::paths) fn forget(&mut self) {
        *self = Self::default();
    }

    /// What `path`, which carries a peer that is in use, is to be asked for now, in bytes of the outer packet: written to `lengths`.
    /// `limit`: the longest packet that our own network takes; `usual`: the time that an answer takes, if it is known. `lossy`: whether
    /// the path loses packets. Answers whether the size has fallen: packets were lost for being too long.
    pub(super) fn tend(
        &mut self,
        now: Moment,
        path: &Path,
        limit: u16,
        usual: Option<Duration>,
        lossy: bool,
        lengths: &mut Vec<u16>,
    ) -> bool {
        if !self.is_of(path) {
            let heard = self.heard;
            *self = Self { path: Some(*path), heard, ..Self::default() };
        }
        if now.since(self.tended_at) >= RESTED {
            self.resume(now);
        }
        self.tended_at = now;
        let round = usual.map_or(ROUND_LEAST * 2, |usual| (usual * 2).clamp(ROUND_LEAST, ROUND_MOST));
        match self.stage {
            Stage::New => self.begin(now, limit, round, lengths),
            Stage::Searching { rounds, next_at } if next_at <= now => {
                if rounds <= ROUNDS && self.best < limit {
                    self.stage = Stage::Searching { rounds: rounds + 1, next_at: now + round };
                    self.ask_all(limit, lengths);
                } else if self.best == 0 {
                    self.outstanding.clear();
                    self.proven = OUTER_BYTES_ASSUMED;
                    self.stage = Stage::Unheard { asked: 0, next_at: now + UNHEARD_FIRST };
                } else {
                    self.settle(now, limit);
                }
            }
            Stage::Unheard { .. } if self.best > 0 => self.begin(now, limit, round, lengths),
            Stage::Unheard { asked, next_at } if next_at <= now => {
                let doublings = (asked + 1).saturating_sub(UNHEARD_SOON).min(10);
                let pause = UNHEARD_FIRST.saturating_mul(1 << doublings).min(UNHEARD_MOST);
                self.stage = Stage::Unheard { asked: asked + 1, next_at: now + pause };
                lengths.push(OUTER_BYTES_ASSUMED);
            }
            Stage::Settled { .. } if self.has_vanished(now, usual) => {
                self.recovering = self.recovering.max(1);
                self.proven = OUTER_BYTES_ASSUMED;
                self.begin(now, limit, round, lengths);
                return true;
            }
            Stage::Settled { confirm_at, raise_at } => {
                let early = if lossy && self.outstanding.is_empty() { CONFIRM_EARLIER } else { Duration::ZERO };
                if raise_at <= now && self.longest(limit) > self.proven {
                    self.begin(now, limit, round, lengths);
                } else if confirm_at <= now + early && self.is_in_doubt() {
                    self.used = false;
                    self.stage = Stage::Settled { confirm_at: now + CONFIRM_AGAIN, raise_at };
                    lengths.push(self.proven);
                }
            }
            Stage::Searching { .. } | Stage::Unheard { .. } => {}
        }
        false
    }

    /// What was asked before a rest says nothing; what is known is doubtful.
    fn resume(&mut self, now: Moment) {
        self.outstanding.clear();
        match &mut self.stage {
            Stage::New | Stage::Unheard { .. } => {}
            Stage::Searching { .. } => self.stage = Stage::New,
            Stage::Settled { confirm_at, .. } => {
                *confirm_at = now;
                self.used = true;
            }
        }
    }

    /// The longest that may be asked for.
    fn longest(&self, limit: u16) -> u16 {
        limit.clamp(OUTER_BYTES_ASSUMED, OUTER_BYTES_MAX)
    }

    fn begin(&mut self, now: Moment, limit: u16, round: Duration, lengths: &mut Vec<u16>) {
        self.outstanding.clear();
        (self.best, self.used) = (0, false);
        self.stage = Stage::Searching { rounds: 1, next_at: now + round };
        let (least, longest) = (self.proven.min(self.longest(limit)), self.longest(limit));
        lengths.push(least);
        if longest > least {
            lengths.push(longest);
        }
    }

    /// Asks for all that is longer than what was answered, and as long as nothing was, for the least.
    fn ask_all(&self, limit: u16, lengths: &mut Vec<u16>) {
        let longest = self.longest(limit);
        lengths.extend(PROBED_BYTES.iter().copied().filter(|length| *length > self.best && *length < longest));
        if longest > self.best {
            lengths.push(longest);
        }
    }

    fn settle(&mut self, now: Moment, limit: u16) {
        self.outstanding.clear();
        // What it carried before and does not any more counts no more.
        self.proven = self.best;
        if self.proven >= self.longest(limit) {
            self.recovering = 0;
        }
        let mut raise = RAISE;
        if self.recovering > 0 {
            raise = RAISE_FALLEN.saturating_mul(1 << (self.recovering - 1).min(8)).min(RAISE);
            self.recovering += 1;
        }
        self.stage = Stage::Settled { confirm_at: now + CONFIRM, raise_at: now + raise };
    }

    /// Whether the size has to be confirmed.
    fn is_in_doubt(&self) -> bool {
        self.proven > OUTER_BYTES_ASSUMED && (self.used || !self.outstanding.is_empty())
    }

    /// Whether it is not known at this moment if packets of this size vanish: then their loss says nothing of the path yet.
    pub(in crate::gateway::paths) fn is_doubted(&self) -> bool {
        matches!(self.stage, Stage::Settled { .. }) && !self.outstanding.is_empty()
    }

    /// Whether packets of this size vanish.
    fn has_vanished(&self, now: Moment, usual: Option<Duration>) -> bool {
        let patience = (usual.unwrap_or_default() * 4).clamp(MISSED_LEAST, MISSED_MOST);
        self.outstanding.len() >= MISSED
            && self.outstanding.first().is_some_and(|oldest| now.since(oldest.at) >= patience)
    }

    /// Notes that a probe leaves: an outer packet of `outer` bytes, of which UDP carries `payload`.
    pub(super) fn probe(&mut self, now: Moment, seq: u32, outer: u16, payload: usize) {
        if self.outstanding.len() == OUTSTANDING_MAX {
            self.outstanding.remove(0);
        }
        self.outstanding.push(Outstanding { seq, outer, payload, at: now });
    }

    /// Takes the answer to a probe, of which UDP carried `payload` bytes: when it was sent. `None` when nothing like it was asked.
    pub(super) fn answer(&mut self, now: Moment, limit: u16, seq: u32, payload: usize) -> Option<Moment> {
        let place = self.outstanding.iter().position(|probe| probe.seq == seq && probe.payload == payload)?;
        let probe = self.outstanding.swap_remove(place);
        // The oldest stays the first.
        self.outstanding.sort_unstable_by_key(|probe| probe.at);
        match &mut self.stage {
            Stage::New => {}
            Stage::Searching { .. } => {
                self.best = self.best.max(probe.outer);
                self.proven = self.proven.max(probe.outer);
                if self.best >= self.longest(limit) {
                    self.settle(now, limit);
                }
            }
            Stage::Unheard { next_at, .. } => {
                self.best = probe.outer;
                *next_at = now;
            }
            Stage::Settled { confirm_at, .. } => {
                *confirm_at = now + CONFIRM;
                self.outstanding.clear();
            }
        }
        Some(probe.at)
    }

    /// When it is to be tended again, while its path carries a peer that is in use.
    pub(super) fn next_timeout(&self, limit: u16) -> Option<Moment> {
        match self.stage {
            // Whoever sends the first packet by it tends it.
            Stage::New => None,
            Stage::Searching { next_at, .. } | Stage::Unheard { next_at, .. } => Some(next_at),
            Stage::Settled { confirm_at, .. } if self.is_in_doubt() => Some(confirm_at),
            Stage::Settled { raise_at, .. } => (self.longest(limit) > self.proven).then_some(raise_at),
        }
    }
}

#[cfg(test)]
mod tests;
