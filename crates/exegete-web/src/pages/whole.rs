//! A dictionary as a whole: the run in words, figures and their pictures.

use exegete_base::stats::Estimate;
use maud::{Markup, html};
use serde_json::Value;

use super::figure;
use crate::harvest::Harvest;
use crate::overview::overview as figures_of;
use crate::summary::{self, estimate_of};
use crate::wire::Overview;
use crate::{charts, format};

/// What stands above the list of latents, and on either side of two runs that are compared.
pub(super) fn overview(harvest: &Harvest, title: &Markup, has_training: bool) -> Markup {
    let rates: Vec<Estimate> = harvest.rows().iter().map(|row| row.firing_rate).collect();
    let whole = figures_of(harvest);
    html! {
        section.overview {
            div {
                (title)
                p.lead { (sentence(harvest)) }
                (facts(harvest, &whole))
                @if has_training { p.more { a href="/training" { "How it was trained" } } }
            }
            div.figures {
                figure {
                    figcaption { "How often latents fire" }
                    (figure(charts::firing_rates(&rates)))
                }
                @if whole.alive > 0 {
                    figure {
                        figcaption {
                            "At which strengths latents fire: a latent that fires does so at "
                            (format::significant(whole.latents_by_level.iter().sum::<u64>() as f64 / whole.alive as f64))
                            " levels of the grid on average"
                        }
                        (figure(charts::latents_by_level(&whole.latents_by_level)))
                    }
                }
            }
        }
    }
}

pub(super) fn headline(harvest: &Harvest) -> String {
    summary::model_name(harvest.run()).unwrap_or_else(|| "A dictionary of latents".into())
}

fn site(harvest: &Harvest) -> Option<&str> {
    if let Some(site) = &harvest.named().of.site {
        return Some(site);
    }
    harvest.stage("cache", "site").or_else(|| harvest.setting("site")).and_then(Value::as_str)
}

fn sentence(harvest: &Harvest) -> Markup {
    let tokens = Some(harvest.n_tokens()).filter(|n| *n > 0).or_else(|| whole(harvest, "tokens", "tokens"));
    let documents = whole(harvest, "tokens", "documents");
    html! {
        "A sparse dictionary"
        @if !harvest.named().name.is_empty() { " (" (harvest.named().name) ")" }
        " of " (format::count(harvest.n_latents() as u64)) " latents"
        @if let Some(site) = site(harvest) { " on " code { (site) } }
        @if let Some(tokens) = tokens { ", read over " (format::count(tokens)) " tokens" }
        @if let Some(documents) = documents { " of " (format::count(documents)) " documents" }
        ". Made by " (harvest.run().manifest().program) "."
    }
}

fn facts(harvest: &Harvest, overview: &Overview) -> Markup {
    let (rows, alive) = (harvest.rows(), overview.alive);
    let measured_on = harvest.stage("train", "fvu_measured_on").and_then(Value::as_str).unwrap_or("held-out documents");
    let fvu = harvest.stage("train", "fvu").and_then(estimate_of);
    let l0 = harvest.stage("train", "l0").and_then(estimate_of).map(|e| e.value);
    let (explained, abstained) = (whole(harvest, "explain", "explained"), whole(harvest, "explain", "abstained"));
    // The control stands beside the result: how often nothing is said of directions that mean nothing.
    let control = harvest.stage("explain", "control").and_then(|c| estimate_of(c.get("abstention_rate")?));
    let control = control
        .map_or(String::new(), |e| format!("; of {} random directions, {} abstained", e.n, format::percent(e.value)));
    html! {
        dl.facts {
            (fact("Alive", &format::percent(alive as f64 / rows.len().max(1) as f64), &format!(
                "{} of {} fired", format::count(alive as u64), format::count(rows.len() as u64)
            )))
            @if let Some(fvu) = fvu {
                (fact("Variance left over", &format::significant(fvu.value), &format!(
                    "FVU on {}; {}", measured_on, format::interval(&fvu, format::significant)
                )))
            }
            @if let Some(l0) = l0 { (fact("Active at a token", &format::significant(l0), "latents (L0) on held-out documents")) }
            @else if overview.l0.is_finite() { (fact("Active at a token", &format::significant(overview.l0), "latents (L0) over the text that was read")) }
            @if alive < rows.len() { (fact("Dead", &format::percent(1.0 - alive as f64 / rows.len().max(1) as f64), &format!(
                "{} never fired", format::count((rows.len() - alive) as u64)
            ))) }
            @if let Some(steps) = whole(harvest, "train", "steps") {
                (fact("Training", &format::count(steps), "steps"))
            }
            @if let Some(explained) = explained {
                (fact("Explained", &format::count(explained), &format!(
                    "latents; {} abstentions{control}", abstained.map_or("–".into(), format::count)
                )))
            }
        }
    }
}

fn fact(name: &str, value: &str, note: &str) -> Markup {
    html! { div { dt { (name) } dd { (value) } dd.note { (note) } } }
}

fn whole(harvest: &Harvest, stage: &str, key: &str) -> Option<u64> {
    harvest.stage(stage, key).and_then(Value::as_u64)
}
