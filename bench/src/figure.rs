//! What is measured: figures with a name, a unit and a direction, and how they spread over rounds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A kind of figure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figure {
    /// By which trials name it, `relay_ns`: lower case and underscores.
    pub key: String,
    /// For the head of a column, `relay ns`.
    pub title: String,
    /// Its unit, `ns/datagram`; empty for a bare number.
    pub unit: String,
    /// Which way is good.
    pub better: Better,
    /// One sentence: what it is and how it was measured.
    pub meaning: String,
}

impl Figure {
    /// A figure, from its parts.
    pub fn new(key: &str, title: &str, unit: &str, better: Better, meaning: &str) -> Self {
        let [key, title, unit, meaning] = [key, title, unit, meaning].map(str::to_owned);
        Self { key, title, unit, better, meaning }
    }
}

/// Which way a figure is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// A cost.
    Lower,
    /// A gain.
    Higher,
    /// It explains other figures.
    Neither,
}

/// What one trial yielded: the values of some figures, by [`Figure::key`]. A figure that could not be measured is absent.
pub type Measures = BTreeMap<String, f64>;

/// The median of values and their range.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The middle one; of an even number, the mean of the middle two.
    pub median: f64,
    /// The largest.
    pub max: f64,
    /// How many there were.
    pub count: usize,
}

impl Spread {
    /// Of some values; nothing if there is none. Values that are no numbers do not count.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_unstable_by(f64::total_cmp);
        let (min, max, count) = (*values.first()?, *values.last()?, values.len());
        let median = f64::midpoint(values[(count - 1) / 2], values[count / 2]);
        Some(Self { min, median, max, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[f64::NAN]), None);
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some(Spread { min: 1.0, median: 2.0, max: 3.0, count: 3 }));
        assert_eq!(spread(&[4.0, 1.0]), Some(Spread { min: 1.0, median: 2.5, max: 4.0, count: 2 }));
    }
}
