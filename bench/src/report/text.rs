//! How numbers and names look, in the terminal and on the page alike.

use std::fmt::{self, Write as _};

use crate::figure::Spread;

/// A figure with three digits that count, or with all digits before the point if those are more: `0.0123`, `1.23`, `123`, `12,345`.
pub(super) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    if value == 0.0 || value.fract() == 0.0 || value.abs() >= 99.95 {
        return thousands(&format!("{value:.0}"));
    }
    // Scientific notation rounds to three digits and tells where the point is after that: 9.996 has become 10.0.
    let rounded = format!("{value:.2e}");
    let exponent: i32 = rounded.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
    if exponent < -5 { rounded } else { format!("{value:.*}", usize::try_from(2 - exponent).unwrap_or(0)) }
}

/// A figure without zeros at its end, for axes and places on them: `0.5`, `1,000`.
pub(super) fn short(value: f64) -> String {
    let text = number(value);
    if text.contains('.') && !text.contains('e') {
        text.trim_end_matches('0').trim_end_matches('.').into()
    } else {
        text
    }
}

/// A ratio: two decimals around one, as many digits as tell something elsewhere.
pub(super) fn ratio(value: f64) -> String {
    match value.abs() {
        small if small < 0.000_95 => number(value),
        small if small < 0.0995 => format!("{value:.3}"),
        small if small < 9.995 => format!("{value:.2}"),
        large if large < 99.95 => format!("{value:.1}"),
        _ => number(value),
    }
}

/// A share as percent, `14 %`.
pub(super) fn percent(share: f64) -> String {
    match share * 100.0 {
        percent if percent > 1000.0 => "over 1,000 %".into(),
        percent if percent < 9.95 => format!("{percent:.1} %"),
        percent => format!("{percent:.0} %"),
    }
}

/// Whether rounds differ by over 10 %: then the range belongs beside the median.
pub(super) fn moved(spread: &Spread) -> bool {
    spread.max - spread.min > 0.1 * spread.median.abs()
}

/// Seconds in the units people use.
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// A count and its noun.
pub(super) fn plural(count: usize, one: &str, many: &str) -> String {
    format!("{} {}", thousands(&count.to_string()), if count == 1 { one } else { many })
}

/// `a, b and c`.
pub(super) fn list(items: &[impl AsRef<str>]) -> String {
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    match items[..] {
        [] => String::new(),
        [only] => only.into(),
        [ref first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// For a terminal: what programs of others say of themselves may hold control characters.
pub(super) fn plain(text: &str) -> String {
    text.split(char::is_control).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// For the page, as text and as an attribute in quotes: marks are escaped, and what XML cannot hold is replaced.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                '&' => formatter.write_str("&amp;")?,
                '<' => formatter.write_str("&lt;")?,
                '>' => formatter.write_str("&gt;")?,
                '"' => formatter.write_str("&quot;")?,
                '\'' => formatter.write_str("&#39;")?,
                '\n' | '\t' => formatter.write_char(char)?,
                char if char.is_control() || matches!(char, '\u{fffe}' | '\u{ffff}') => {
                    formatter.write_str("\u{fffd}")?
                }
                char => formatter.write_char(char)?,
            }
        }
        Ok(())
    }
}

/// Commas between groups of three digits of a whole number.
fn thousands(digits: &str) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    // What rounds to nothing has no sign.
    let mut text = String::from(if digits == "0" { "" } else { sign });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_that_count() {
        for (value, expect) in [
            (0.0, "0"),
            (-0.0, "0"),
            (16.0, "16"),
            (1.5, "1.50"),
            (9.996, "10.0"),
            (99.94, "99.9"),
            (99.96, "100"),
            (123.4, "123"),
            (1_234.5, "1,234"),
            (1_234_567.0, "1,234,567"),
            (-1_234_567.0, "-1,234,567"),
            (0.012_345, "0.0123"),
            (0.000_000_12, "1.20e-7"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(number(value), expect, "{value}");
        }
    }

    #[test]
    fn labels_of_axes_are_short() {
        assert_eq!([0.5, 3.0 * 0.1, 1_000.0, 2.0, 1.2e-7].map(short), ["0.5", "0.3", "1,000", "2", "1.20e-7"]);
    }

    #[test]
    fn ratios_have_two_decimals_around_one() {
        for (value, expect) in [
            (1.0, "1.00"),
            (0.999, "1.00"),
            (0.0512, "0.051"),
            (0.000_05, "0.0000500"),
            (9.999, "10.0"),
            (250.0, "250"),
        ] {
            assert_eq!(ratio(value), expect, "{value}");
        }
    }

    #[test]
    fn a_spread_that_moved_by_over_a_tenth_is_told() {
        let spread = |min, max| Spread { min, median: 1.0, max, count: 3 };
        assert!(!moved(&spread(0.96, 1.05)));
        assert!(moved(&spread(0.9, 1.05)));
    }

    #[test]
    fn nothing_of_a_name_reaches_the_markup() {
        assert_eq!(Escaped("<&\"'>\u{1b}[31m").to_string(), "&lt;&amp;&quot;&#39;&gt;\u{fffd}[31m");
        assert_eq!(plain("a\u{1b}[31m\nb"), "a [31m b");
    }

    #[test]
    fn durations_and_lists_read_as_people_say_them() {
        assert_eq!([12.4, 192.0, 7_290.0].map(duration), ["12 s", "3 min 12 s", "2 h 1 min"]);
        assert_eq!(list(&["a", "b", "c"]), "a, b and c");
        assert_eq!(list(&["a"]), "a");
        assert_eq!(percent(0.142), "14 %");
        assert_eq!(percent(f64::MAX), "over 1,000 %");
    }
}
