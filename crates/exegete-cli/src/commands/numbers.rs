//! Lists of numbers as they are typed: `1,5,10..20` (both ends are meant).

use anyhow::{Context, Result, bail};

/// Most numbers that a list may hold, so that a slip of the hand does not ask for billions.
const MOST: usize = 1 << 20;

/// Reads a list.
pub(crate) fn parse(text: &str) -> Result<Vec<u32>> {
    let number = |word: &str| word.trim().parse::<u32>().with_context(|| format!("{word:?} in {text:?} is no number"));
    let mut numbers = Vec::new();
    for item in text.split(',') {
        let (from, to) = match item.split_once("..") {
            Some((from, to)) => (number(from)?, number(to.trim_start_matches('='))?),
            None => (number(item)?, number(item)?),
        };
        if from > to || (to - from) as usize >= MOST - numbers.len().min(MOST) {
            bail!("{item:?} is empty or too long; a list looks like 1,5,10..20");
        }
        numbers.extend(from..=to);
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn lists_and_ranges() {
        assert_eq!(parse("1,5,10..12").unwrap(), [1, 5, 10, 11, 12]);
        for bad in ["", "a", "5..1", "1..4000000000", "1,,2"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
