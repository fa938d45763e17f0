//! How well texts predict what a latent does: a row a text, a column a scorer, the controls below.

use std::collections::BTreeSet;

use exegete_store::SHUFFLED;
use maud::{Markup, html};

use crate::format;
use crate::wire::TextScore;

/// The table of scores; nothing where there are none.
pub(crate) fn scores(scores: &[TextScore]) -> Markup {
    let columns: BTreeSet<(&str, &str)> = scores
        .iter()
        .filter(|score| score.against != SHUFFLED)
        .map(|score| (score.scorer.as_str(), score.against.as_str()))
        .collect();
    let mut texts: Vec<(&str, bool)> = Vec::new();
    for score in scores {
        let row = (score.text.as_str(), score.against == SHUFFLED);
        if !texts.contains(&row) {
            texts.push(row);
        }
    }
    let judges: BTreeSet<&str> = scores.iter().map(|score| score.judge.as_str()).collect();
    let failed: u64 = scores.iter().map(|score| score.failed).sum();
    html! {
        @if !scores.is_empty() {
            section #scores {
                h2 { "Scores " span.muted { "with 95 % intervals, the best text first" } }
                div.scrolled tabindex="0" role="group" aria-label="Scores of texts" {
                    table.scores {
                        thead {
                            tr {
                                th scope="col" { "Text" }
                                @for (scorer, against) in &columns {
                                    th scope="col" { (scorer) @if *against != "itself" { br; span.muted { "against " (against) } } }
                                }
                            }
                        }
                        tbody {
                            @for (text, is_control) in &texts {
                                tr {
                                    th scope="row" dir="auto" {
                                        @if text.is_empty() { span.muted { "the latent, without a text" } } @else { (format::said(text)) }
                                        @if *is_control { br; span.muted { "another latent's: the control" } }
                                    }
                                    @for (scorer, against) in &columns { td { (cell(scores, text, (scorer, against), *is_control)) } }
                                }
                            }
                        }
                    }
                }
                p.muted {
                    "Judged by " (judges.into_iter().collect::<Vec<_>>().join("; ")) "."
                    @if failed > 0 { " " (failed) " examples got no verdict." }
                    " Controls are told apart from random excerpts."
                }
            }
        }
    }
}

fn cell(scores: &[TextScore], text: &str, (scorer, against): (&str, &str), is_control: bool) -> Markup {
    // A scorer's control has one value, which stands in its first column.
    let first = scores.iter().filter(|s| s.scorer == scorer && s.against != SHUFFLED).map(|s| s.against.as_str());
    let wanted = if is_control { SHUFFLED } else { against };
    let is_place = !is_control
        || against == "random"
        || first.clone().all(|other| other != "random") && first.clone().min() == Some(against);
    let found = scores.iter().find(|s| is_place && s.text == text && s.scorer == scorer && s.against == wanted);
    html! {
        @if let Some(score) = found {
            @if score.value.is_finite() {
                b { (format!("{:.2}", score.value)) }
                br;
                span.muted { (format!("{:.2} to {:.2}, n = {}", score.low, score.high, score.n)) }
                @if score.chance.is_finite() { br; span.muted { (format!("chance {:.2}", score.chance)) } }
            } @else {
                span.muted { "too few examples" }
            }
        }
    }
}
