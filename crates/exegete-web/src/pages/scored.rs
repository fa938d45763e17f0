//! How well texts predict what a latent does: a row a text, a column a scorer, the controls below.

use std::collections::BTreeSet;

use exegete_store::{RANDOM_DIRECTION, SHUFFLED, control_of, is_control};
use maud::{Markup, html};

use crate::format;
use crate::wire::TextScore;

/// The table of scores; nothing where there are none.
pub(crate) fn scores(scores: &[TextScore]) -> Markup {
    let columns: BTreeSet<Column> = scores.iter().filter(|score| !is_control(&score.against)).map(Column::of).collect();
    // A control is a row of its own, though its text may be said of the latent too.
    let mut texts: Vec<(&str, Option<&str>)> = Vec::new();
    for score in scores {
        let row = (score.text.as_str(), control_of(&score.against).map(|(name, _)| name));
        if !texts.contains(&row) {
            texts.push(row);
        }
    }
    let judges: BTreeSet<&str> = scores.iter().map(|score| score.judge.as_str()).collect();
    // A scorer that several judges were asked by has a column for each, under their names.
    let several = |of: &Column| columns.iter().any(|other| other.scorer == of.scorer && other.judge != of.judge);
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
                                @for column in &columns {
                                    th scope="col" {
                                        (column.scorer)
                                        @if column.against != "itself" { br; span.muted { "against " (column.against) } }
                                        @if several(column) { br; span.muted { "by " (column.judge) } }
                                    }
                                }
                            }
                        }
                        tbody {
                            @for (text, control) in &texts {
                                tr {
                                    th scope="row" dir="auto" {
                                        @if text.is_empty() { span.muted { "the latent, without a text" } } @else { (format::said(text)) }
                                        @if let Some(control) = control { br; span.muted { (what(control)) } }
                                    }
                                    @for column in &columns { td { (cell(scores, text, column, *control)) } }
                                }
                            }
                        }
                    }
                }
                p.muted {
                    "Judged by " (judges.into_iter().collect::<Vec<_>>().join("; ")) "."
                    @if failed > 0 { " " (failed) " examples got no verdict." }
                    " The best text of many is scored too high: it was chosen by these scores."
                }
            }
        }
    }
}

/// A scorer, what it was told apart from, and who judged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Column<'a> {
    scorer: &'a str,
    judge: &'a str,
    against: &'a str,
}

impl<'a> Column<'a> {
    fn of(score: &'a TextScore) -> Self {
        Self { scorer: &score.scorer, judge: &score.judge, against: &score.against }
    }
}

/// What a control is.
fn what(control: &str) -> &'static str {
    match control {
        SHUFFLED => "another latent's: a control",
        RANDOM_DIRECTION => "a random direction's: a control",
        _ => "a control",
    }
}

fn cell(scores: &[TextScore], text: &str, column: &Column, control: Option<&str>) -> Markup {
    let of = |s: &&TextScore| s.scorer == column.scorer && s.judge == column.judge;
    let is_its = |s: &&TextScore| match (control_of(&s.against), control) {
        (None, None) => s.against == column.against,
        (Some((name, against)), Some(wanted)) => name == wanted && against == column.against,
        _ => false,
    };
    let found = scores.iter().filter(of).find(|s| s.text == text && is_its(s));
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
