//! Tokens as a reader can see them.

/// The text of each token id.
pub(crate) struct Vocabulary {
    tokens: Vec<String>,
}

impl Vocabulary {
    /// From the tokens' own bytes, which need not be whole characters.
    pub(crate) fn new(tokens: &[Vec<u8>]) -> Self {
        Self { tokens: tokens.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect() }
    }

    /// The text of a token with what cannot be seen made visible, spaces excepted.
    pub(crate) fn text(&self, id: u32) -> String {
        match self.tokens.get(id as usize) {
            Some(token) => visible(token),
            None => format!("⟨{id}⟩"),
        }
    }

    /// Whether each token's text holds `needle`, letter case aside.
    pub(crate) fn matches(&self, needle: &str) -> Vec<bool> {
        let needle = needle.trim().to_lowercase();
        self.tokens.iter().map(|token| !needle.is_empty() && token.to_lowercase().contains(&needle)).collect()
    }
}

/// Line ends, tabs and control characters as signs.
pub(crate) fn visible(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' => '⏎',
            '\t' => '⇥',
            '\u{0}'..='\u{1f}' => char::from_u32(0x2400 + c as u32).unwrap_or('�'),
            '\u{7f}' => '␡',
            // Terminals obey some of these.
            '\u{80}'..='\u{9f}' => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// Spaces as signs too, for a token that stands alone.
pub(crate) fn spaces_shown(text: &str) -> String {
    text.replace(' ', "␣")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_shown() {
        let vocabulary = Vocabulary::new(&[b" a\n\t".to_vec(), vec![0xff], vec![0, 0x1b], b"The".to_vec()]);
        assert_eq!(vocabulary.text(0), " a⏎⇥");
        assert_eq!(vocabulary.text(1), "\u{fffd}");
        assert_eq!(vocabulary.text(2), "␀␛");
        assert_eq!(vocabulary.text(9), "⟨9⟩");
        assert_eq!(spaces_shown(" a b"), "␣a␣b");
        assert_eq!(vocabulary.matches(" the "), [false, false, false, true]);
    }
}
