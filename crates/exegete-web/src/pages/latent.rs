//! The page of a latent.

use maud::{Markup, html};

use super::{figure, shell};
use crate::harvest::Harvest;
use crate::vocabulary::spaces_shown;
use crate::wire::{
    ExampleText, ExampleToken, ExplanationText, LatentDetail, LevelDetail, MethodResult, Neighbour, TokenWeight,
};
use crate::{charts, format, summary};

/// Shades of activation in the style sheet. Classes stand in for inline styles, which the policy forbids.
const SHADES: f32 = 12.0;
/// Texts of a method that are shown.
const TEXTS_SHOWN: usize = 3;

/// The page of a latent.
pub(crate) fn latent(harvest: &Harvest, detail: &LatentDetail) -> Markup {
    let id = detail.line.latent;
    let content = html! {
        (neighbouring_pages(harvest, id))
        section.headline {
            p.id { "Latent " (id) }
            h1 { @match &detail.line.explanation {
                Some(text) => (text),
                None => span.muted { (if detail.line.count == 0 { "Never fired" } else { "Not explained" }) },
            } }
        }
        div.columns {
            div.side {
                (statistics(detail))
                @if detail.line.count > 0 {
                    section {
                        h2 { "Firings by strength" }
                        (figure(charts::levels(&detail.levels)))
                    }
                }
                (vocabulary(detail))
                (neighbours(&detail.neighbours))
            }
            div.main {
                @for result in &detail.methods { (method(result)) }
                (examples(detail))
            }
        }
    };
    let title = match &detail.line.explanation {
        Some(text) => format!("{id} · {text}"),
        None => format!("Latent {id}"),
    };
    shell(&title, &summary::run_name(harvest.run()), &content)
}

fn neighbouring_pages(harvest: &Harvest, id: u32) -> Markup {
    let last = harvest.rows().last().map_or(0, |row| row.latent.0);
    html! {
        nav.steps aria-label="Latents" {
            a href="/" { "All latents" }
            span {
                @if id > 0 { a rel="prev" href=(format!("/latent/{}", id - 1)) title="Key: k or ←" { "← " (id - 1) } }
                @if id < last { a rel="next" href=(format!("/latent/{}", id + 1)) title="Key: j or →" { (id + 1) " →" } }
            }
        }
    }
}

fn statistics(detail: &LatentDetail) -> Markup {
    let rate = &detail.line.firing_rate;
    html! {
           section {
               h2 { "Activity" }
               table.plain.activity {
                   tr { th scope="row" { "Firing rate" } td { (format::percent(rate.value)) } }
                   tr.note { td colspan="2" { (format::interval(rate, format::percent)) } }
                   tr { th scope="row" { "Firings" } td { (format::count(detail.line.count)) } }
    tr.note { td colspan="2" { "of " (format::count(rate.n)) " tokens" } }
                   tr { th scope="row" { "Largest" } td { (format::significant(detail.line.max.into())) } }
                   tr { th scope="row" { "Mean when firing" } td { (format::significant(detail.mean)) } }
                   tr { th scope="row" { "Spread when firing" } td { (format::significant(detail.std)) } }
               }
           }
       }
}

fn vocabulary(detail: &LatentDetail) -> Markup {
    let (top, bottom) = (&detail.line.top_tokens, &detail.bottom_tokens);
    html! {
        @if !top.is_empty() || !bottom.is_empty() {
            section {
                h2 { "Vocabulary of the decoder row" }
                div.pair { (tokens("Promoted", top)) (tokens("Suppressed", bottom)) }
            }
        }
    }
}

fn tokens(name: &str, tokens: &[TokenWeight]) -> Markup {
    html! {
        table.plain.weights {
            caption { (name) }
            @for token in tokens {
                tr {
                    th scope="row" { code.chip title=(format!("token {}", token.id)) { (spaces_shown(&token.text)) } }
                    td { (format!("{:+.2}", token.logit)) }
                }
            }
        }
    }
}

fn neighbours(neighbours: &[Neighbour]) -> Markup {
    html! {
        @if !neighbours.is_empty() {
            section {
                h2 { "Nearest decoder rows" }
                table.plain {
                    @for near in neighbours {
                        tr {
                            th scope="row" {
                                a href=(format!("/latent/{}", near.latent)) {
                                    (near.latent) " "
                                    @if let Some(text) = &near.explanation { span.text { (text) } }
                                }
                            }
                            td title="cosine" { (format!("{:.2}", near.cosine)) }
                        }
                    }
                }
            }
        }
    }
}

fn method(result: &MethodResult) -> Markup {
    let abstained = result.explanations.is_empty() || result.explanations.iter().all(|e| e.abstained);
    html! {
        section {
            h2 { "Explanation " span.muted { "by " (result.method) } }
            @if abstained {
                p.abstained {
                    strong { "Abstained." }
                    " No text stood out."
                    @if !result.explanations.is_empty() { " The candidates it did not believe:" }
                }
            }
            ol.texts.doubtful[abstained] {
                @for text in result.explanations.iter().take(TEXTS_SHOWN) { (explanation(text)) }
            }
            @if !result.curves.is_empty() {
                div.curves {
                    @for (name, svg) in charts::curves(result) {
                        figure { figcaption { (name.replace('_', " ")) } (figure(svg)) }
                    }
                }
            }
        }
    }
}

fn explanation(text: &ExplanationText) -> Markup {
    html! {
        li {
            span.text { (if text.text.trim().is_empty() { "(empty text)" } else { text.text.as_str() }) }
            span.note {
                @if text.scale.is_finite() { "scale " (format::significant(text.scale)) }
                @if text.scale.is_finite() && text.score.is_finite() { ", " }
                @if text.score.is_finite() { "score " (format::significant(text.score)) }
            }
        }
    }
}

fn examples(detail: &LatentDetail) -> Markup {
    let max = detail.line.max;
    html! {
        @if detail.line.count == 0 {
            section { h2 { "Examples" } p.muted { "This latent fired on none of the tokens that were read." } }
        } @else {
            section {
                h2 { "Strongest firings" }
                div.examples { @for item in &detail.top_examples { (example(item, max)) } }
            }
            section {
                h2 { "Random firings at every strength" }
                @for level in &detail.levels { (level_of(level, max)) }
            }
        }
    }
}

fn level_of(level: &LevelDetail, max: f32) -> Markup {
    html! {
        h3 {
            (format::significant(level.low.into())) " to " (format::significant(level.high.into()))
            span.note { (format::percent(level.share)) " of firings (" (format::count(level.count)) ")" }
        }
        div.examples { @for item in &level.examples { (example(item, max)) } }
    }
}

fn example(item: &ExampleText, max: f32) -> Markup {
    let place =
        format!("file {}, record {}, window {}, token {}", item.source, item.record, item.window, item.position);
    html! {
        div.example {
            span.value title=(place) { (format::significant(item.value.into())) }
            p {
                @if item.tokens.is_empty() { span.muted { "The tokens are not in this run (" (place) ")." } }
                @for (idx, token) in item.tokens.iter().enumerate() { (shaded(token, idx == 0, max)) }
            }
        }
    }
}

/// A token on its shade. The space before a word stays unshaded, or a line break would leave its shade behind; before
/// the first word it is left out.
fn shaded(token: &ExampleToken, is_first: bool, max: f32) -> Markup {
    let word = token.text.trim_start_matches(' ');
    let n_spaces = if word.is_empty() { 0 } else { token.text.len() - word.len() };
    let (space, word) = token.text.split_at(n_spaces);
    let space = if is_first { "" } else { space };
    if token.value <= 0.0 && !token.is_own {
        return html! { (space) span { (word) } };
    }
    let shade = (token.value / max.max(f32::MIN_POSITIVE) * SHADES).ceil().clamp(1.0, SHADES) as u32;
    let class = if token.is_own { format!("a{shade} own") } else { format!("a{shade}") };
    html! { (space) span class=(class) title=(token.value) { (word) } }
}
