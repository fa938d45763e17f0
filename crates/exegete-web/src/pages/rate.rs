//! The page on which a person rates texts without knowing whose they are.

use maud::{Markup, html};

use super::examples::{Shown, example};
use super::{Frame, shell};
use crate::harvest::Harvest;
use crate::rating::RatingQuery;
use crate::wire::{Rated, RatingTask};

const GRADES: [(u8, &str); 6] = [
    (1, "1 wrong"),
    (2, "2 mostly wrong"),
    (3, "3 in part"),
    (4, "4 mostly right"),
    (5, "5 right"),
    (0, "cannot tell"),
];

/// The page of blind ratings.
pub(crate) fn rate(
    frame: &Frame,
    harvest: &Harvest,
    task: Option<&RatingTask>,
    counts: &Rated,
    query: &RatingQuery,
) -> Markup {
    let content = html! {
        h1 { "Blind rating" }
        p.note { (counts.rated) " of " (counts.total) " texts rated" }
        @match task {
            Some(task) => (one(harvest, task, query)),
            None if counts.total == 0 => p.muted { "No text has been made for this dictionary yet." },
            None if query.skip.is_empty() => p { "All texts are rated. Thank you." },
            None => p { "Only texts that you passed over are left. " a href=(harvest.address("/rate", &[("seed", &query.seed)])) { "Go back to them" } },
        }
    };
    shell("Blind rating", frame, &content)
}

fn one(harvest: &Harvest, task: &RatingTask, query: &RatingQuery) -> Markup {
    // The latent is not told: its page would tell whose text it is.
    let shown = Shown { harvest, latent: 0, max: task.max, with_values: false };
    let seed = task.seed.to_string();
    let id = task.candidate.to_string();
    let skip = if query.skip.is_empty() { id } else { format!("{},{id}", query.skip) };
    let back = harvest.address("/rate", &[("seed", &seed), ("skip", &query.skip)]);
    html! {
        section {
            h2 { "Does this say when the latent fires?" }
            blockquote dir="auto" { (task.text) }
            form.grades method="post" action=(harvest.address(&format!("/api/rating/{}", task.candidate), &[])) {
                input type="hidden" name="back" value=(back);
                input type="hidden" name="seed" value=(seed);
                @for (grade, name) in GRADES {
                    button.plain-button type="submit" name="grade" value=(grade) data-grade=(grade) { (name) }
                }
                a href=(harvest.address("/rate", &[("seed", &seed), ("skip", &skip)])) { "Pass over" }
            }
            p.note {
                "Whose text it is and what anyone thinks of it is hidden; keys 1 to 5 grade, 0 says that you cannot tell. "
                "Deeper shades are stronger firings; the marked token is the one that was drawn."
            }
        }
        section {
            h2 { "Firings at random strengths" }
            @if task.examples.is_empty() { p.muted { "This latent has no examples." } }
            div.examples.rate-examples { @for item in &task.examples { (example(shown, item)) } }
        }
    }
}
