//! Small forms of what every session holds, as there are many sessions.

use std::time::Duration;

use crate::seam::Moment;

/// A moment in whole milliseconds after boot, rounded up: what it begins never ends early. Good for 34 years of uptime; what lies
/// beyond counts as their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp([u8; 5]);

impl Stamp {
    const MILLIS_MAX: u64 = (1 << 40) - 1;

    /// The first stamp that does not lie before `moment`.
    pub(super) fn new(moment: Moment) -> Self {
        let millis = moment.as_nanos().div_ceil(1_000_000).min(Self::MILLIS_MAX);
        let [_, _, _, bytes @ ..] = millis.to_be_bytes();
        Self(bytes)
    }

    /// The moment it stands for.
    pub(super) fn moment(self) -> Moment {
        let [a, b, c, d, e] = self.0;
        Moment::from_nanos(u64::from_be_bytes([0, 0, 0, a, b, c, d, e]) * 1_000_000)
    }
}

/// Whole seconds, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seconds(u32);

impl Seconds {
    const NONE: u32 = u32::MAX;

    /// The whole seconds of `time`, up to 136 years.
    pub(super) fn new(time: Option<Duration>) -> Self {
        let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(Self::NONE).min(Self::NONE - 1);
        Self(time.map_or(Self::NONE, seconds))
    }

    /// What it was made of, to the second.
    pub(super) fn get(self) -> Option<Duration> {
        (self.0 != Self::NONE).then(|| Duration::from_secs(self.0.into()))
    }
}

/// Text of which most is short: up to 22 bytes take no memory elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// Its length, and it.
    Short(u8, [u8; Name::SHORT_MAX]),
    /// Longer.
    Long(Box<str>),
}

impl Name {
    const SHORT_MAX: usize = 22;

    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Short(length, bytes) => {
                std::str::from_utf8(&bytes[..usize::from(*length)]).expect("it was made of a string")
            }
            Self::Long(name) => name,
        }
    }
}

impl From<String> for Name {
    fn from(name: String) -> Self {
        let mut bytes = [0; Self::SHORT_MAX];
        match (u8::try_from(name.len()), bytes.get_mut(..name.len())) {
            (Ok(length), Some(place)) => {
                place.copy_from_slice(name.as_bytes());
                Self::Short(length, bytes)
            }
            _ => Self::Long(name.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamp_never_lies_before_its_moment() {
        for nanos in [0, 1, 999_999, 1_000_000, 1_000_001, 1_000_000_000_000_000_001] {
            let stamp = Stamp::new(Moment::from_nanos(nanos)).moment();
            assert!((nanos..nanos + 1_000_000).contains(&stamp.as_nanos()), "{nanos}");
        }
        let years = Duration::from_secs(34 * 365 * 24 * 3600);
        assert_eq!(Stamp::new(Moment::default() + years).moment(), Moment::default() + years);
        let end = Stamp::new(Moment::from_nanos(u64::MAX)).moment();
        assert!(Moment::default() + years < end && end < Moment::from_nanos(u64::MAX));
    }

    #[test]
    fn seconds_are_kept_and_so_is_their_absence() {
        let century = Duration::from_secs(100 * 365 * 24 * 3600);
        for time in [None, Some(Duration::ZERO), Some(Duration::from_secs(7)), Some(century)] {
            assert_eq!(Seconds::new(time).get(), time);
        }
        assert_eq!(Seconds::new(Some(Duration::MAX)).get(), Some(Duration::from_secs(u64::from(u32::MAX) - 1)));
    }

    #[test]
    fn names_of_any_length_stay_what_they_are() {
        for length in 0..=64 {
            let name: String = "abcdefghij".chars().cycle().take(length).collect();
            let kept = Name::from(name.clone());
            assert_eq!(kept.as_str(), name);
            assert_eq!(matches!(kept, Name::Short(..)), length <= 22);
        }
        assert_eq!(Name::from("ünäme-ünäme-ünäme-".to_owned()).as_str(), "ünäme-ünäme-ünäme-");
        assert_eq!((size_of::<Name>(), size_of::<Stamp>(), size_of::<Seconds>()), (24, 5, 4));
    }
}
