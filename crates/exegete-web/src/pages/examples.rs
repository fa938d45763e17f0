//! Firings in their texts.

use maud::{Markup, html};

use super::pieces::{chip, shaded};
use super::{Frame, shell};
use crate::format;
use crate::harvest::Harvest;
use crate::wire::{ExampleText, Group, Groups, LatentDetail, LevelDetail, WholeContext};

/// How examples are shown: the latent that they are of, and the activation that has the deepest shade.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a> {
    pub(super) harvest: &'a Harvest,
    pub(super) latent: u32,
    pub(super) max: f32,
    /// Whether activations are told. A blind rating does not.
    pub(super) with_values: bool,
}

/// The strongest firings.
pub(super) fn strongest(shown: Shown, detail: &LatentDetail) -> Markup {
    html! {
        section {
            h2 { "Strongest firings" }
            div.examples { @for item in &detail.top_examples { (example(shown, item)) } }
        }
    }
}

/// A level and its random firings.
pub(super) fn level(shown: Shown, level: &LevelDetail) -> Markup {
    html! {
        h3.group #(format!("level-{}", level.level)) tabindex="-1" {
            (format::significant(level.low.into())) " to " (format::significant(level.high.into()))
            span.note { (format::percent(level.share)) " of firings (" (format::count(level.count)) ")" }
        }
        div.examples { @for item in &level.examples { (example(shown, item)) } }
    }
}

/// Random firings by intervals or quantiles.
pub(super) fn groups(shown: Shown, groups: &Groups) -> Markup {
    html! {
        p.note {
            @if groups.kind == "intervals" {
                "Five intervals of equal width up to the largest activation. "
            } @else {
                "Five quantiles: each holds a fifth of the firings, as nearly as the sample tells. "
            }
            "Shares are estimated from the " (format::count(groups.n_sampled as u64))
            " firings that are kept: the strongest stand for themselves, each of the others for as many as its level has left for it."
        }
        @for (idx, group) in groups.groups.iter().enumerate() { (group_of(shown, idx, group)) }
    }
}

fn group_of(shown: Shown, idx: usize, group: &Group) -> Markup {
    html! {
        h3.group #(format!("group-{idx}")) tabindex="-1" {
            (format::significant(group.low.into())) " to " (format::significant(group.high.into()))
            span.note { "about " (format::percent(group.share)) " of firings" }
        }
        div.examples {
            @if group.examples.is_empty() { p.muted { "No sampled firing lies here." } }
            @for item in &group.examples { (example(shown, item)) }
        }
    }
}

/// A firing in its text.
pub(super) fn example(shown: Shown, item: &ExampleText) -> Markup {
    let place =
        format!("file {}, record {}, window {}, token {}", item.source, item.record, item.window, item.position);
    let number = |n: u64| n.to_string();
    let (latent, source) = (number(shown.latent.into()), number(item.source.into()));
    let (record, window, position) = (number(item.record), number(item.window.into()), number(item.position.into()));
    let pairs = [
        ("latent", latent.as_str()),
        ("source", &source),
        ("record", &record),
        ("window", &window),
        ("position", &position),
    ];
    html! {
        div.example {
            @if shown.with_values { span.value title=(place) { (format::significant(item.value.into())) } }
            p.text dir="auto" { (tokens(shown, item, &place)) }
            @if shown.with_values && !item.tokens.is_empty() {
                a.whole href=(shown.harvest.address("/context", &pairs))
                    aria-label=(format!("Whole text of the firing at {place}")) { "whole text" }
            }
            @if shown.with_values && !item.sources.is_empty() {
                p.note.sources {
                    "comes from "
                    @for source in &item.sources {
                        (chip(&source.text, &format!("token {} of the window", source.position)))
                        " " (format!("{:+.2}", source.value)) " "
                    }
                }
            }
        }
    }
}

fn tokens(shown: Shown, item: &ExampleText, place: &str) -> Markup {
    html! {
        @if item.tokens.is_empty() { span.muted { "The tokens are not in this run (" (place) ")." } }
        @for (idx, token) in item.tokens.iter().enumerate() {
            @let told = token.value.filter(|_| shown.with_values).map(|value| value.to_string());
            (shaded(&token.text, token.value.unwrap_or(0.0), shown.max, token.is_own, idx == 0, told.as_deref()))
        }
    }
}

/// The page of a firing's whole window.
pub(crate) fn context(frame: &Frame, harvest: &Harvest, whole: &WholeContext) -> Markup {
    let shown = Shown { harvest, latent: whole.latent, max: whole.max, with_values: true };
    let item = &whole.example;
    let place =
        format!("File {}, record {}, window {}, token {}", item.source, item.record, item.window, item.position);
    let content = html! {
        nav.steps { a href=(harvest.address(&format!("/latent/{}", whole.latent), &[])) { "Latent " (whole.latent) } }
        h1 { "A firing in its whole window" }
        p.note { (place) ". Activation " (format::significant(item.value.into())) ". Further away than the values that were kept, "
            "tokens are shown without a shade." }
        div.example.alone { p.text dir="auto" { (tokens(shown, item, &place)) } }
    };
    shell(&format!("Firing of {}", whole.latent), frame, &content)
}
