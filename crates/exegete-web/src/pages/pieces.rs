//! What pages have in common, those that a server sends and those that open from a file.

use exegete_base::stats::Estimate;
use exegete_figure::Result as FigureResult;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::format;
use crate::vocabulary::spaces_shown;

/// Shades of activation in the style sheet. Classes stand in for inline styles, which the policy forbids.
const SHADES: f32 = 12.0;

/// A whole document: what is special about its head, and its body.
pub(crate) fn document(title: &str, head: &Markup, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · exegete" }
                (head)
            }
            body { (body) }
        }
    }
}

/// A figure, or why it is missing.
pub(crate) fn figure(svg: FigureResult<String>) -> Markup {
    match svg {
        Ok(svg) => PreEscaped(svg),
        Err(error) => html! { p.muted { "No figure: " (error) } },
    }
}

/// How often and how strongly a latent fires.
pub(crate) struct Activity<'a> {
    pub(crate) rate: &'a Estimate,
    pub(crate) count: u64,
    pub(crate) max: f32,
    pub(crate) mean: f64,
    pub(crate) std: f64,
    /// Norm of its decoder row; 0 where it is not known.
    pub(crate) decoder_norm: f32,
}

/// The panel of a latent's activity.
pub(crate) fn activity(of: &Activity) -> Markup {
    html! {
        section {
            h2 { "Activity" }
            table.plain.activity {
                tr { th scope="row" { "Firing rate" } td { (format::percent(of.rate.value)) } }
                tr.note { td colspan="2" { (format::interval(of.rate, format::percent)) } }
                tr { th scope="row" { "Firings" } td { (format::count(of.count)) } }
                tr.note { td colspan="2" { "of " (format::count(of.rate.n)) " tokens" } }
                tr { th scope="row" { "Largest" } td { (format::significant(of.max.into())) } }
                tr { th scope="row" { "Mean when firing" } td { (format::significant(of.mean)) } }
                tr { th scope="row" { "Spread when firing" } td { (format::significant(of.std)) } }
                @if of.decoder_norm > 0.0 {
                    tr { th scope="row" { "Norm of the decoder row" } td { (format::significant(of.decoder_norm.into())) } }
                }
            }
        }
    }
}

/// A token by itself, spaces as signs.
pub(crate) fn chip(token: &str, title: &str) -> Markup {
    html! { code.chip dir="auto" title=(title) { (spaces_shown(token)) } }
}

/// Tokens with what the decoder row adds to their logits.
pub(crate) fn vocabulary(promoted: &[(Markup, f32)], suppressed: &[(Markup, f32)]) -> Markup {
    let table = |name: &str, tokens: &[(Markup, f32)]| {
        html! {
            table.plain.weights {
                caption { (name) }
                @for (chip, logit) in tokens {
                    tr { th scope="row" { (chip) } td title=(logit) { (format!("{logit:+.2}")) } }
                }
            }
        }
    };
    html! {
        @if !promoted.is_empty() || !suppressed.is_empty() {
            section {
                h2 { "Vocabulary of the decoder row" }
                div.pair { (table("Promoted", promoted)) (table("Suppressed", suppressed)) }
            }
        }
    }
}

/// A token of a text on its shade, which is deepest at `max`. The space before a word stays unshaded, or a line break would
/// leave its shade behind; before the first word it is left out. Where its activation is told, the token can be gone to by keys and by
/// touch, and the style sheet shows the activation while it is there, or pointed at.
pub(crate) fn shaded(token: &str, value: f32, max: f32, is_own: bool, is_first: bool, told: Option<&str>) -> Markup {
    let word = token.trim_start_matches(' ');
    let n_spaces = if word.is_empty() { 0 } else { token.len() - word.len() };
    let (space, word) = token.split_at(n_spaces);
    let space = if is_first { "" } else { space };
    if value <= 0.0 && !is_own {
        return html! { (space) span { (word) } };
    }
    let shade = (value / max.max(f32::MIN_POSITIVE) * SHADES).ceil().clamp(1.0, SHADES) as u32;
    let class = if is_own { format!("a{shade} own") } else { format!("a{shade}") };
    html! { (space) span class=(class) data-value=[told] tabindex=[told.map(|_| "0")] { (word) } }
}
