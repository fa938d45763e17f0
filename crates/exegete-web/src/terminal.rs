//! A latent in the terminal: what its page shows, as lines, with colours or without.

use anstyle::{Ansi256Color, AnsiColor, Style};

use crate::charts;
use crate::format::{count, interval, percent, said, significant};
use crate::vocabulary::spaces_shown;
use crate::wire::{
    ExampleText, ExplanationText, LatentDetail, MethodResult, Neuron, Related, SourceToken, TextScore, TokenWeight,
};

/// Backgrounds from the weakest activation to the strongest: a ramp of the 256 colours that dark letters can be read on.
const RAMP: [u8; 6] = [230, 229, 222, 215, 209, 203];
/// Letters of a full bar.
const BAR: usize = 30;
/// Eighths of a line's height, for a row of numbers.
const EIGHTHS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Whether a terminal gets colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colours(pub bool);

impl Colours {
    fn on(self, style: Style, text: &str) -> String {
        if self.0 && !text.is_empty() { format!("{style}{text}{style:#}") } else { text.into() }
    }

    fn bold(self, text: &str) -> String {
        self.on(Style::new().bold(), text)
    }

    fn dim(self, text: &str) -> String {
        self.on(Style::new().dimmed(), text)
    }

    fn warn(self, text: &str) -> String {
        self.on(AnsiColor::Yellow.on_default(), text)
    }

    /// A token, shaded by its share of the largest activation. Without colours, the example's own token stands in brackets.
    fn token(self, text: &str, share: f32, is_own: bool) -> String {
        let word = text.trim_start_matches(' ');
        let (space, word) = if word.is_empty() { ("", text) } else { text.split_at(text.len() - word.len()) };
        let shown = match (self.0, is_own) {
            (false, true) => format!("[{word}]"),
            (true, _) if is_own || share > 0.0 => {
                let at = (share * RAMP.len() as f32).ceil().clamp(1.0, RAMP.len() as f32) as usize - 1;
                let shade =
                    Style::new().fg_color(Some(Ansi256Color(16).into())).bg_color(Some(Ansi256Color(RAMP[at]).into()));
                self.on(if is_own { shade.bold().underline() } else { shade }, word)
            }
            _ => word.into(),
        };
        format!("{space}{shown}")
    }
}

/// The lines.
pub fn latent_lines(detail: &LatentDetail, colours: Colours) -> Vec<String> {
    let mut lines = Lines { lines: Vec::new(), colours };
    for problem in &detail.problems {
        lines.put(colours.warn(&format!("not shown: {}", plain(problem))));
    }
    lines.head(detail);
    for result in &detail.methods {
        lines.method(result);
    }
    lines.scores(&detail.scores);
    for note in &detail.notes {
        lines.put(format!("  note: {}", plain(&said(&note.text))));
    }
    lines.profile(detail);
    lines.title("Strongest firings", "");
    for example in &detail.top_examples {
        lines.example(example, detail.line.max);
    }
    lines.firings(detail);
    lines.lines
}

struct Lines {
    lines: Vec<String>,
    colours: Colours,
}

impl Lines {
    fn put(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    fn title(&mut self, title: &str, note: &str) {
        self.put("");
        let note = if note.is_empty() { String::new() } else { format!("  {}", self.colours.dim(note)) };
        self.put(format!("{}{note}", self.colours.bold(title)));
    }

    fn head(&mut self, detail: &LatentDetail) {
        let line = &detail.line;
        let of =
            if detail.dictionary.is_empty() { String::new() } else { format!(" of {}", plain(&detail.dictionary)) };
        let name = line.explanation.as_ref().map_or(String::new(), |text| format!(": {}", plain(&said(text))));
        let mark = if line.is_bookmarked { " ★" } else { "" };
        self.put(self.colours.bold(&format!("latent {}{of}{name}{mark}", line.latent)));
        let rate = &line.firing_rate;
        self.put(format!(
            "fires on {} of {} tokens ({}): {} firings, mean {}, spread {}, largest {}",
            percent(rate.value),
            count(rate.n),
            interval(rate, percent),
            count(line.count),
            significant(detail.mean),
            significant(detail.std),
            significant(line.max.into()),
        ));
        if detail.profile.decoder_norm > 0.0 {
            self.put(format!("norm of the decoder row {}", significant(detail.profile.decoder_norm.into())));
        }
        if let Some(label) = &detail.label {
            self.put(format!("  picked as its label: {}", plain(&said(&label.text))));
        }
    }

    fn scores(&mut self, scores: &[TextScore]) {
        for of in scores.iter().filter(|of| of.value.is_finite()) {
            let chance = if of.chance.is_finite() { format!(", chance {:.2}", of.chance) } else { String::new() };
            let how = format!("{} against {}, n = {}{chance}; {}", of.scorer, of.against, of.n, plain(&of.judge));
            let value = format!("{:.2} [{:.2}, {:.2}]", of.value, of.low, of.high);
            self.put(format!("  scores {value}  {}  {}", plain(&said(&of.text)), self.colours.dim(&how)));
        }
    }

    fn method(&mut self, result: &MethodResult) {
        let told = |of: &ExplanationText| {
            let number = |name: &str, value: f64| {
                if value.is_finite() { format!("  {name} {}", significant(value)) } else { String::new() }
            };
            format!("{}{}", number("scale", of.scale), number("score", of.score))
        };
        for of in &result.explanations {
            // Below the candidates of an abstention stands what they are.
            let text = plain(&said(&of.text));
            let text = if of.abstained { self.colours.warn(&format!("(abstained) {text}")) } else { text };
            let note = format!("{}{}", plain(&result.method), told(of));
            self.put(format!("  says: {text}  {}", self.colours.dim(&note)));
        }
        for (name, values) in charts::plain_curves(result) {
            let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(*v), high.max(*v)));
            if low.is_finite() && high > low {
                let eighth = |v: &f64| EIGHTHS[(((v - low) / (high - low) * 7.0) as usize).min(7)];
                let curve: String = values.iter().map(eighth).collect();
                let ends = format!("{} to {} over the scales: {}", significant(low), significant(high), plain(name));
                self.put(format!("        {curve}  {}", self.colours.dim(&ends)));
            }
        }
    }

    fn profile(&mut self, detail: &LatentDetail) {
        let profile = &detail.profile;
        self.weights("promotes", &detail.line.top_tokens);
        self.weights("suppresses", &detail.bottom_tokens);
        if !profile.fired_tokens.is_empty() {
            let shares: Vec<String> = profile
                .fired_tokens
                .iter()
                .map(|token| format!("{} {}", chip(&token.text), self.colours.dim(&percent(token.share.into()))))
                .collect();
            let told = format!(
                "({} different tokens in the strongest four fifths of {} sampled firings)",
                profile.distinct_tokens, profile.n_sampled
            );
            self.put(format!("{:<11}{}  {}", "fires on", shares.join("  "), self.colours.dim(&told)));
        }
        if let Some(logits) = &profile.logits {
            let counts: Vec<u64> = logits.counts.iter().map(|n| u64::from(*n)).collect();
            let (low, high) = (format!("{:+.2}", logits.low), format!("{:+.2}", logits.high));
            self.put(format!("{:<11}{low} {} {high}", "logits", bars(&counts)));
        }
        if profile.positions.iter().any(|n| *n > 0) {
            let bars = bars(&profile.positions);
            let told = format!("tell {} of what is uncertain about firing", percent(profile.position_share));
            self.put(format!("{:<11}{bars}  {}", "places", self.colours.dim(&told)));
        }
        self.related("neighbours", "cosine of decoder rows", &detail.neighbours);
        self.related("co-fires", "Jaccard index, an estimate", &profile.cofiring);
        self.related("correlates", "Pearson's coefficient", &profile.correlated_latents);
        self.neurons("neurons", "Pearson's coefficient", &profile.correlated_neurons, 0.0);
        let l1 = profile.decoder_l1;
        self.neurons("aligned", "values of the decoder row, shares of its L1 norm", &profile.aligned_neurons, l1);
    }

    fn weights(&mut self, name: &str, tokens: &[TokenWeight]) {
        if tokens.is_empty() {
            return;
        }
        let dim = |logit: f32| self.colours.dim(&format!("{logit:+.2}"));
        let words: Vec<String> = tokens.iter().map(|t| format!("{} {}", chip(&t.text), dim(t.logit))).collect();
        self.put(format!("{name:<11}{}", words.join("  ")));
    }

    fn related(&mut self, name: &str, measure: &str, related: &[Related]) {
        if related.is_empty() {
            return;
        }
        let one = |near: &Related| {
            let text = near.explanation.as_ref().map_or(String::new(), |text| format!(" {}", plain(&said(text))));
            format!("{}{text} {}", near.latent, self.colours.dim(&format!("{:.2}", near.value)))
        };
        let all: Vec<String> = related.iter().map(one).collect();
        self.put(format!("{name:<11}{}  {}", all.join("  "), self.colours.dim(&format!("({measure})"))));
    }

    fn neurons(&mut self, name: &str, measure: &str, neurons: &[Neuron], l1: f32) {
        if neurons.is_empty() {
            return;
        }
        let share =
            |of: &Neuron| if l1 > 0.0 { format!(" {}", percent((of.value.abs() / l1).into())) } else { String::new() };
        let one =
            |of: &Neuron| format!("{} {}", of.neuron, self.colours.dim(&format!("{:+.2}{}", of.value, share(of))));
        let all: Vec<String> = neurons.iter().map(one).collect();
        self.put(format!("{name:<11}{}  {}", all.join("  "), self.colours.dim(&format!("({measure})"))));
    }

    fn firings(&mut self, detail: &LatentDetail) {
        let Some(groups) = &detail.groups else {
            self.title("Firings by level", "random ones of each");
            let most = detail.levels.iter().map(|level| level.count).max().unwrap_or(1);
            for level in &detail.levels {
                let bar = "█".repeat((level.count as usize * BAR).div_ceil(most.max(1) as usize));
                let edges = range(level.low, level.high);
                let told = format!("{} ({})", count(level.count), percent(level.share));
                self.put(format!("{edges:<18}{bar:<BAR$} {}", self.colours.dim(&told)));
                for example in &level.examples {
                    self.example(example, detail.line.max);
                }
            }
            return;
        };
        let told = format!("shares estimated from the {} firings that are kept", groups.n_sampled);
        self.title(&format!("Firings by {}", groups.kind), &told);
        for group in &groups.groups {
            let share = format!("about {}", percent(group.share));
            self.put(format!("{:<18}{}", range(group.low, group.high), self.colours.dim(&share)));
            for example in &group.examples {
                self.example(example, detail.line.max);
            }
        }
    }

    fn example(&mut self, example: &ExampleText, max: f32) {
        let share = |value: Option<f32>| value.unwrap_or(0.0) / max.max(f32::MIN_POSITIVE);
        let mut text: String = example
            .tokens
            .iter()
            .map(|token| self.colours.token(&plain(&token.text), share(token.value), token.is_own))
            .collect();
        if text.is_empty() {
            text = self.colours.dim("(the tokens are not in this run)");
        }
        self.put(format!("  {:>8}  {}", significant(example.value.into()), text.trim_start_matches(' ')));
        if !example.sources.is_empty() {
            let one = |of: &SourceToken| format!("{} {:+.2}", chip(&of.text), of.value);
            let all: Vec<String> = example.sources.iter().map(one).collect();
            self.put(format!("{:>12}{}", "", self.colours.dim(&format!("comes from {}", all.join("  ")))));
        }
    }
}

/// A row of numbers as bars.
fn bars(counts: &[u64]) -> String {
    let most = counts.iter().copied().max().unwrap_or(1).max(1);
    counts.iter().map(|n| EIGHTHS[(n * 7).div_ceil(most) as usize]).collect()
}

/// The edges of a level or a group.
fn range(low: f32, high: f32) -> String {
    format!("{} to {}", significant(low.into()), significant(high.into()))
}

/// A token by itself.
fn chip(text: &str) -> String {
    spaces_shown(&plain(text))
}

/// A text that a terminal shows and does not obey: marks that turn the direction of a line are signs too. Control characters
/// are signs already.
pub fn plain(text: &str) -> String {
    let is_turn =
        |c: char| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if is_turn(c) || c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_shown_what_it_would_obey() {
        assert_eq!(plain("a\u{1b}[31mb\u{9b}c\u{202e}d"), "a\u{fffd}[31mb\u{fffd}c\u{fffd}d");
        assert_eq!(Colours(false).token(" ship", 0.5, true), " [ship]");
        assert_eq!(Colours(false).token(" ship", 0.5, false), " ship");
        let shaded = Colours(true).token(" ship", 1.0, false);
        assert!(
            shaded.starts_with(" \u{1b}[") && shaded.contains("48;5;203m") && shaded.ends_with("\u{1b}[0m"),
            "{shaded:?}"
        );
        assert_eq!(Colours(true).token("the", 0.0, false), "the");
    }
}
