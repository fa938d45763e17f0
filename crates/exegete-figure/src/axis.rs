//! Ranges and tick labels: what keeps a chart finite whatever the data are.

use std::ops::Range;

/// How an axis maps values to places.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scale {
    /// Values as they are.
    #[default]
    Linear,
    /// Places are powers of two; values must be positive.
    Log2,
    /// Places are powers of ten; values must be positive.
    Log10,
}

impl Scale {
    /// Place of a value on the axis.
    pub(crate) fn place(self, value: f64) -> f64 {
        match self {
            Scale::Linear => value,
            Scale::Log2 => value.log2(),
            Scale::Log10 => value.log10(),
        }
    }

    /// Label of a place of the axis.
    pub(crate) fn label(self, place: f64) -> String {
        match self {
            Scale::Linear => short(place),
            Scale::Log2 => short(place.exp2()),
            // Half a decade is 3.16, of which one digit says as much as a reader wants; between closer ticks it would mislead.
            Scale::Log10 => {
                let digits = usize::from((2.0 * place - (2.0 * place).round()).abs() > 1e-6);
                short(format!("{:.digits$e}", 10f64.powf(place)).parse().unwrap_or(0.0))
            }
        }
    }
}

/// Largest magnitude drawn. Far beyond it the engine's search for ticks loses its footing.
const MAX: f64 = 1e30;

/// A number that can be drawn.
pub(crate) fn drawable(value: f64) -> bool {
    value.is_finite() && value.abs() <= MAX
}

/// The range of the drawable values with a little room, never empty; `None` if there are none.
pub(crate) fn range(values: impl IntoIterator<Item = f64>, room: f64) -> Option<Range<f64>> {
    let values = values.into_iter().filter(|v| drawable(*v));
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    if low > high {
        return None;
    }
    let magnitude = low.abs().max(high.abs());
    // Ticks closer together than the numbers' own precision would never end.
    let pad = if high - low <= magnitude * 1e-6 { (magnitude * 0.05).max(1e-6) } else { (high - low) * room };
    Some(low - pad..high + pad)
}

/// A number as short as it can be said: `0.05`, `1.5k`, `3e-7`.
pub(crate) fn short(value: f64) -> String {
    let magnitude = value.abs();
    let trimmed = |value: f64, digits: usize, unit: &str| {
        let text = format!("{value:.digits$}");
        let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        format!("{}{unit}", if text == "-0" { "0" } else { text })
    };
    match magnitude {
        0.0 => "0".into(),
        m if m < 1e-3 => {
            let text = format!("{value:.1e}");
            text.replace(".0e", "e")
        }
        m if m < 0.1 => trimmed(value, 3, ""),
        m if m < 10.0 => trimmed(value, 2, ""),
        m if m < 1e3 => trimmed(value, 1, ""),
        m if m < 1e6 => trimmed(value / 1e3, 1, "k"),
        m if m < 1e9 => trimmed(value / 1e6, 1, "M"),
        _ => format!("{value:.1e}").replace(".0e", "e"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let check = |value: f64, expected: &str| assert_eq!(short(value), expected);
        check(0.0, "0");
        check(0.05, "0.05");
        check(1.50, "1.5");
        check(1500.0, "1.5k");
        check(3e-7, "3e-7");
        check(-2.5e-5, "-2.5e-5");
        check(100.0, "100");
        check(2e12, "2e12");
    }

    #[test]
    fn ticks_of_powers_have_the_digits_that_they_need() {
        let label = |place: f64| Scale::Log10.label(place);
        assert_eq!([label(0.0), label(0.5), label(0.2), label(-3.0)], ["1", "3", "1.6", "0.001"]);
    }

    #[test]
    fn ranges_are_never_empty_and_pass_over_what_is_no_number() {
        assert_eq!(range([f64::NAN, f64::INFINITY], 0.0), None);
        assert_eq!(range([1.0, f64::NAN, 3.0], 0.0), Some(1.0..3.0));
        for value in [0.0, 5.0, -1e20] {
            let r = range([value], 0.1).unwrap();
            assert!(r.start < value && value < r.end, "{r:?}");
        }
    }
}
