//! From values to places on an axis.

/// A wider spread than this is shown on a logarithmic axis.
const LINEAR_MAX: f64 = 10.0;
/// More marks on an axis than this run into each other on a phone.
const TICKS_MAX: usize = 8;

/// An axis: what its ends stand for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    /// Whether equal distances are equal factors.
    pub(super) logarithmic: bool,
}

impl Scale {
    /// For values that begin at nothing, as lengths do: from 0, or logarithmic where the spread is over tenfold and all values are
    /// above 0. Values that are no numbers do not count.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if low > 0.0 && high / low > LINEAR_MAX {
            return Self { low: low / 1.25, high: high * 1.25, logarithmic: true };
        }
        Self { low: low.min(0.0), high: if high > 0.0 { high * 1.06 } else { 1.0 }, logarithmic: false }
    }

    /// For places on the axis that were chosen, as of a curve: as wide as they are.
    pub(super) fn across(values: &[f64]) -> Self {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let logarithmic = low > 0.0 && high / low > LINEAR_MAX;
        if low < high {
            Self { low, high, logarithmic }
        } else {
            Self { low: low - 1.0, high: low + 1.0, logarithmic: false }
        }
    }

    /// Where on the axis a value is: 0 at the low end, 1 at the high one. What is outside is brought to the end.
    pub(super) fn place(&self, value: f64) -> f64 {
        let place = if self.logarithmic {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        // No number, as the logarithm of a negative one, is at the low end.
        if place.is_nan() { 0.0 } else { place.clamp(0.0, 1.0) }
    }

    /// Round values on the axis, a handful.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let inside = |tick: &f64| (self.low..=self.high).contains(tick);
        if !self.logarithmic {
            let step = nice((self.high - self.low) / 7.0);
            let first = (self.low / step).ceil();
            return (0..=10).map(|number| (first + f64::from(number)) * step).filter(inside).collect();
        }
        let powers = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let ticks = |of: &[f64]| -> Vec<f64> {
            let values = powers.clone().flat_map(|power| of.iter().map(move |digit| digit * 10_f64.powi(power)));
            values.filter(inside).collect()
        };
        let choices = [ticks(&[1.0, 2.0, 5.0]), ticks(&[1.0, 3.0]), ticks(&[1.0])];
        let fitting = choices.iter().find(|ticks| ticks.len() <= TICKS_MAX);
        fitting.cloned().unwrap_or_else(|| {
            let [.., tens] = choices;
            let every = tens.len().div_ceil(TICKS_MAX);
            tens.into_iter().step_by(every).collect()
        })
    }
}

/// The next larger of 1, 2 and 5, times a power of ten.
fn nice(step: f64) -> f64 {
    let power = 10_f64.powi(step.log10().floor() as i32);
    [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|nice| *nice >= step).unwrap_or(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_over_tenfold_is_logarithmic() {
        let scale = Scale::of([0.5, 40.0]);
        assert!(scale.logarithmic);
        assert_eq!(scale.ticks(), [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0]);
        assert!((scale.place((0.5_f64 * 40.0).sqrt()) - 0.5).abs() < 1e-9, "the geometric middle is in the middle");
    }

    #[test]
    fn a_small_spread_begins_at_zero() {
        let scale = Scale::of([1.0, 2.4]);
        assert!(!scale.logarithmic);
        assert_eq!(scale.ticks().len(), 6, "{:?}", scale.ticks());
        assert_eq!(scale.place(0.0), 0.0);
        assert!(scale.place(2.4) > 0.9);
    }

    #[test]
    fn strange_values_stay_on_the_axis() {
        for values in [&[][..], &[0.0], &[-3.0, 2.0], &[f64::NAN], &[0.0, 1e9], &[1e-9, 1e12], &[5.0]] {
            let scale = Scale::of(values.iter().copied());
            assert!(!scale.ticks().is_empty() && scale.ticks().len() <= 12, "{values:?}: {:?}", scale.ticks());
            for value in [f64::NAN, f64::NEG_INFINITY, -1.0, 0.0, 1.0, 1e300] {
                assert!((0.0..=1.0).contains(&scale.place(value)), "{values:?} {value}");
            }
        }
        assert_eq!(Scale::across(&[7.0]).place(7.0), 0.5);
    }
}
