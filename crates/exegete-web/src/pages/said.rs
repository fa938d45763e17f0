//! What methods and people say about a latent: explanations with their curves, the label, notes, the bookmark.

use maud::{Markup, html};

use super::figure;
use crate::harvest::Harvest;
use crate::wire::{ExplanationText, LatentDetail, MethodResult};
use crate::{charts, format};

/// Texts of a method that are shown before one asks for the others.
const TEXTS_SHOWN: usize = 3;

/// What the forms of a latent's page have in common.
pub(crate) struct Forms<'a> {
    pub(super) harvest: &'a Harvest,
    pub(super) latent: u32,
    /// The address of the page.
    pub(super) back: &'a str,
}

impl Forms<'_> {
    fn action(&self, what: &str) -> String {
        self.harvest.address(&format!("/api/latent/{}/{what}", self.latent), &[])
    }

    /// Where to go afterwards.
    fn back(&self, part: &str) -> Markup {
        html! { input type="hidden" name="back" value=(format!("{}{part}", self.back)); }
    }
}

/// The bookmark, to be set or removed.
pub(super) fn bookmark(forms: &Forms, is_set: bool) -> Markup {
    html! {
        form.inline method="post" action=(forms.action("bookmark")) {
            (forms.back(""))
            input type="hidden" name="is_set" value=(if is_set { "false" } else { "true" });
            button #bookmark.plain-button type="submit" aria-pressed=(if is_set { "true" } else { "false" }) {
                (if is_set { "★ Bookmarked" } else { "☆ Bookmark" })
            }
        }
    }
}

/// Notes, and room for another.
pub(super) fn notes(forms: &Forms, detail: &LatentDetail) -> Markup {
    html! {
        section #notes {
            h2 { "Notes" }
            @for note in &detail.notes {
                div.note-of {
                    p dir="auto" { (note.text) }
                    form.inline method="post" action=(forms.harvest.address(&format!("/api/note/{}/remove", note.id), &[])) {
                        (forms.back("#notes"))
                        button.plain-button type="submit" aria-label=(format!("Remove the note: {}", note.text)) { "Remove" }
                    }
                }
            }
            form.new-note method="post" action=(forms.action("note")) {
                (forms.back("#notes"))
                textarea #note name="text" rows="2" maxlength="4000" required aria-label="A note on this latent"
                    placeholder="What you think of this latent" {}
                button.plain-button type="submit" { "Keep note" }
            }
        }
    }
}

/// The text that a person picked.
pub(super) fn label(forms: &Forms, detail: &LatentDetail) -> Markup {
    html! {
        @if let Some(label) = &detail.label {
            div.label {
                "Label picked by hand, of " (label.method)
                @if let Some(scale) = label.scale { " at scale " (format::significant(scale)) }
                "."
                form.inline method="post" action=(forms.action("label")) {
                    (forms.back(""))
                    button.plain-button type="submit" { "Take it back" }
                }
            }
        }
    }
}

/// What a method says.
pub(crate) fn method(forms: Option<&Forms>, result: &MethodResult) -> Markup {
    let abstained = result.explanations.is_empty() || result.explanations.iter().all(|e| e.abstained);
    let (first, rest) = result.explanations.split_at(result.explanations.len().min(TEXTS_SHOWN));
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
            ol.texts.doubtful[abstained] { @for text in first { (explanation(forms, result, text)) } }
            @if !rest.is_empty() {
                details {
                    summary { (rest.len()) " more" }
                    ol.texts start=(TEXTS_SHOWN + 1) { @for text in rest { (explanation(forms, result, text)) } }
                }
            }
            @if !result.curves.is_empty() {
                (scales(result))
                div.curves {
                    @for (name, svg) in charts::curves(result) {
                        figure { figcaption { (name.replace('_', " ")) } (figure(svg)) }
                    }
                }
            }
        }
    }
}

/// A scale to be picked: the text made there, and what the curves are at it. It stands for what the script fills in.
fn scales(result: &MethodResult) -> Markup {
    let with_text: Vec<&ExplanationText> = result.explanations.iter().filter(|e| e.scale.is_finite()).collect();
    let index = |scale: f64| {
        let distance = |i: &usize| (result.scales[*i] - scale).abs();
        (0..result.scales.len()).min_by(|a, b| distance(a).total_cmp(&distance(b)))
    };
    let number = |value: f64| if value.is_finite() { value.to_string() } else { String::new() };
    let joined = |values: &[f64]| values.iter().map(|v| number(*v)).collect::<Vec<_>>().join(",");
    html! {
        @if !with_text.is_empty() && result.scales.len() > 1 {
            div.scales data-scales=(joined(&result.scales)) hidden {
                label {
                    "Scale "
                    input type="range" min="0" max=(result.scales.len() - 1) value=(index(with_text[0].scale).unwrap_or(0));
                }
                output {}
                @for (name, values) in charts::plain_curves(result) { data.curve value=(joined(values)) { (name.replace('_', " ")) } }
            }
        }
    }
}

fn explanation(forms: Option<&Forms>, result: &MethodResult, text: &ExplanationText) -> Markup {
    html! {
        li data-scale=[text.scale.is_finite().then_some(text.scale)] {
            span.text dir="auto" { (format::said(&text.text)) }
            span.note {
                @if text.scale.is_finite() { "scale " (format::significant(text.scale)) }
                @if text.scale.is_finite() && text.score.is_finite() { ", " }
                @if text.score.is_finite() { "score " (format::significant(text.score)) }
            }
            @if let Some(forms) = forms.filter(|_| !text.text.trim().is_empty()) {
                form.inline method="post" action=(forms.action("label")) {
                    (forms.back(""))
                    input type="hidden" name="method" value=(result.method);
                    input type="hidden" name="rank" value=(text.rank);
                    button.plain-button type="submit" aria-label=(format!("Keep as label: {}", text.text)) { "Keep as label" }
                }
            }
        }
    }
}
