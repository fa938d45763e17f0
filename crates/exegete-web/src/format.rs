//! Numbers for people.

use exegete_base::stats::Estimate;

use crate::vocabulary::visible;

/// A count with thin groups of three: `12 345`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A share as a percentage with three significant digits.
pub(crate) fn percent(share: f64) -> String {
    if share.is_finite() { format!("{}\u{202f}%", significant(share * 100.0)) } else { "–".into() }
}

/// A number with three significant digits.
pub(crate) fn significant(value: f64) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    let magnitude = value.abs();
    match magnitude {
        0.0 => "0".into(),
        m if !(1e-4..1e6).contains(&m) => format!("{value:.2e}"),
        _ => {
            let digits = (2 - magnitude.log10().floor() as i32).max(0) as usize;
            format!("{value:.digits$}")
        }
    }
}

/// What someone said, as it can be seen: control characters as signs, and words for what has nothing to see.
pub(crate) fn said(text: &str) -> String {
    // Marks of direction and of byte order take no room.
    let is_seen = |c: char| {
        !c.is_whitespace()
            && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    if text.chars().any(is_seen) { visible(text) } else { "(empty text)".into() }
}

/// The ends of an interval in words: `95 % interval 0.1 to 0.2`.
pub(crate) fn interval(estimate: &Estimate, show: fn(f64) -> String) -> String {
    if estimate.low.is_finite() && estimate.high.is_finite() {
        format!("95\u{202f}% interval {} to {}", show(estimate.low), show(estimate.high))
    } else {
        "no interval".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(percent(0.01234), "1.23\u{202f}%");
        assert_eq!(percent(f64::NAN), "–");
        assert_eq!(significant(123.456), "123");
        assert_eq!(significant(0.000_012), "1.20e-5");
        assert_eq!(significant(-0.5), "-0.500");
    }
}
