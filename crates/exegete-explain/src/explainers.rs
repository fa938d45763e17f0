//! Explanations by a judge: what do the excerpts, or the words that a latent promotes, have in common?
//!
//! One line each in [`EXPLAINERS`]. Excerpts come from documents that no scorer sees. Sources: Bills et al. 2023; Paulo et al. 2024
//! (delphi); Gur-Arieh et al. 2025 (arXiv 2501.08319: the vocabulary of the decoder row, the change of probabilities, and both sides
//! together).

use exegete_store::LatentRow;
use serde::Deserialize;

use crate::amplify::{Amplifier, Reached};
use crate::examples::Excerpt;
use crate::judge::{Judge, Writing};
use crate::question::read;
use crate::subject::Subject;
use crate::{ExplainError, Result};

/// What is shown of a latent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// Excerpts on which it fires.
    pub activating: bool,
    /// Excerpts on which it is silent.
    pub contrast: bool,
    /// The words that it promotes and suppresses.
    pub words: Option<Words>,
}

/// How it is known which words a latent promotes and suppresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Words {
    /// By the logits of its decoder row: VocabProj.
    DecoderRow,
    /// By the change of the next token's probabilities while it is amplified: TokenChange. Its site need not write to the residual
    /// stream.
    Change,
}

/// A line of the table.
pub struct Explainer {
    /// Its name on the command line and in the notes.
    pub name: &'static str,
    /// What is shown.
    pub shown: Shown,
}

/// Every explainer with a judge.
pub const EXPLAINERS: &[Explainer] = &[
    Explainer { name: "judge", shown: Shown { activating: true, contrast: false, words: None } },
    Explainer { name: "contrast", shown: Shown { activating: true, contrast: true, words: None } },
    Explainer { name: "output", shown: Shown { activating: false, contrast: false, words: Some(Words::DecoderRow) } },
    Explainer { name: "token-change", shown: Shown { activating: false, contrast: false, words: Some(Words::Change) } },
    Explainer {
        name: "both-sides",
        shown: Shown { activating: true, contrast: false, words: Some(Words::DecoderRow) },
    },
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Prompt {
    version: u32,
    activating: String,
    example: String,
    contrast: String,
    logits: String,
    logits_alone: String,
    begun: String,
    tokens: usize,
    temperature: f32,
    top_p: f32,
}

/// What an explainer is given of a latent.
pub struct Given<'a> {
    /// Its row of the table of latents.
    pub row: &'a LatentRow,
    /// Excerpts on which it fires.
    pub firing: &'a [Excerpt],
    /// Excerpts on which it is silent.
    pub silent: &'a [Excerpt],
    /// What amplifies it.
    pub amplifier: &'a Amplifier<'a>,
}

/// What was said, and by which version of the prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// Different texts of one line each, as they came.
    pub texts: Vec<String>,
    /// Answers that were empty or failed.
    pub failed: usize,
    /// Version of the prompt.
    pub version: u32,
    /// How far the latent was amplified for the words that were shown.
    pub amplified: Option<Reached>,
}

/// Version of what judges are asked.
///
/// # Errors
/// The prompt's file.
pub fn version() -> Result<u32> {
    Ok(prompt()?.version)
}

fn prompt() -> Result<Prompt> {
    read("explain.toml", include_str!("../prompts/explain.toml"))
}

/// Asks for `n` explanations; where several are asked for, all but the first are drawn.
///
/// # Errors
/// Nothing to show of the latent, the judge's.
pub fn explain(
    explainer: &Explainer,
    subject: &Subject,
    judge: &dyn Judge,
    given: &Given,
    (n, seed): (usize, u64),
) -> Result<Said> {
    let prompt = prompt()?;
    let (request, amplified) = request(&prompt, explainer.shown, subject, given)?;
    let mut answers = Vec::new();
    if n > 0 {
        let surest = Writing { tokens: prompt.tokens, temperature: 0.0, top_p: 1.0, seed };
        answers.extend(judge.write(&request, &prompt.begun, 1, &surest)?);
    }
    if n > 1 {
        let drawn =
            Writing { tokens: prompt.tokens, temperature: prompt.temperature, top_p: prompt.top_p, seed: seed + 1 };
        answers.extend(judge.write(&request, &prompt.begun, n - 1, &drawn)?);
    }
    let (mut texts, mut failed): (Vec<String>, usize) = (Vec::new(), 0);
    for answer in answers {
        match answer.as_deref().map(|text| one_line(text, &prompt.begun)).filter(|text| !text.is_empty()) {
            Some(text) if texts.contains(&text) => {}
            Some(text) => texts.push(text),
            None => failed += 1,
        }
    }
    Ok(Said { texts, failed, version: prompt.version, amplified })
}

fn request(prompt: &Prompt, shown: Shown, subject: &Subject, given: &Given) -> Result<(String, Option<Reached>)> {
    let tokenizer = subject.tokenizer()?;
    let listed = |texts: Vec<String>| -> String { texts.iter().map(|t| prompt.example.replace("{text}", t)).collect() };
    let mut request = String::new();
    if shown.activating {
        if given.firing.is_empty() {
            let detail = "there are no excerpts on which it fires among those that are for explaining";
            return Err(ExplainError::request(format!("latent {}: {detail}", given.row.latent.0)));
        }
        let marked = |e: &Excerpt| e.marked(tokenizer, |i| e.is_strong(i));
        let texts = listed(given.firing.iter().map(marked).collect());
        request += &prompt.activating.replace("{examples}", &texts);
    }
    if shown.contrast {
        let texts: Vec<String> = given.silent.iter().map(|e| e.text(tokenizer)).collect::<Result<_>>()?;
        request += &prompt.contrast.replace("{examples}", &listed(texts));
    }
    let mut amplified = None;
    if let Some(how) = shown.words {
        let (promoted, suppressed) = match how {
            Words::DecoderRow => (given.row.top_tokens.clone(), given.row.bottom_tokens.clone()),
            Words::Change => {
                let change = given.amplifier.change(given.row.latent.0)?;
                amplified = Some(change.at);
                (change.promoted, change.suppressed)
            }
        };
        if promoted.is_empty() {
            let detail =
                "the run does not know what its decoder row promotes: its site does not write to the residual stream";
            return Err(ExplainError::request(format!("latent {}: {detail}", given.row.latent.0)));
        }
        let words = |of: &[(u32, f32)]| {
            let words: Vec<String> =
                of.iter().map(|(id, _)| format!("{:?}", tokenizer.token_text(*id).trim())).collect();
            words.join(", ")
        };
        let part = if shown.activating { &prompt.logits } else { &prompt.logits_alone };
        request += &part.replace("{promoted}", &words(&promoted)).replace("{suppressed}", &words(&suppressed));
    }
    Ok((request, amplified))
}

/// The first line of an answer, without the words that it was to begin with, the number of a list, marks, quotation marks and a full stop.
fn one_line(answer: &str, begun: &str) -> String {
    let answer = answer.trim();
    let answer = answer.strip_prefix(begun).unwrap_or(answer);
    let line = answer.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let line = line.replace("<<", "").replace(">>", "");
    // The number of a list is no part of what is said.
    let digits = line.chars().take_while(char::is_ascii_digit).count();
    let numbered =
        (1..=2).contains(&digits).then(|| line[digits..].strip_prefix(". ").or(line[digits..].strip_prefix(") ")));
    let line = numbered.flatten().unwrap_or(&line);
    line.trim_matches(|c: char| matches!(c, '"' | '\'' | '.' | '-' | '*' | '•') || c.is_whitespace()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_become_one_line() {
        assert_eq!(one_line("\n  \"words for water.\"\nAnd more", "They"), "words for water");
        assert_eq!(one_line("They have in common: rivers", "They have in common:"), "rivers");
        assert_eq!(one_line("- <<rivers>> and lakes", "x"), "rivers and lakes");
        assert_eq!(one_line("1. the part of a ship\n2. more", "x"), "the part of a ship");
        assert_eq!(one_line("1984. A year", "x"), "1984. A year");
        assert_eq!(one_line("  \n ", "x"), "");
    }

    #[test]
    fn the_prompt_can_be_read() {
        let prompt: Prompt = toml::from_str(include_str!("../prompts/explain.toml")).unwrap();
        assert!(prompt.activating.contains("{examples}") && prompt.logits.contains("{promoted}"));
    }
}
