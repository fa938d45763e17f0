//! The first page: the run in words and figures, and the list of its latents.

use exegete_base::stats::Estimate;
use maud::{Markup, html};
use serde_json::Value;

use super::{figure, percent_encoded, shell};
use crate::harvest::Harvest;
use crate::listing::{ListQuery, Sort};
use crate::summary::{self, estimate_of};
use crate::vocabulary::spaces_shown;
use crate::wire::{LatentLine, LatentList};
use crate::{Result, charts, format, training};

/// Tokens shown beside a latent.
const TOKENS_SHOWN: usize = 5;

/// The first page.
pub(crate) fn home(harvest: &Harvest, query: &ListQuery, list: &LatentList) -> Result<Markup> {
    let rates: Vec<Estimate> = harvest.rows().iter().map(|row| row.firing_rate).collect();
    let sort = query.sort(!harvest.first_texts()?.is_empty());
    let content = html! {
        section.overview {
            div {
                h1 { (headline(harvest)) }
                p.lead { (sentence(harvest)) }
                (facts(harvest))
                @if training::is_there(harvest.run()) { p.more { a href="/training" { "How it was trained" } } }
            }
            figure {
                figcaption { "How often latents fire" }
                (figure(charts::firing_rates(&rates)))
            }
        }
        section #latents {
            (controls(query))
            (table(query, sort, list))
            (paging(query, list))
        }
    };
    Ok(shell(&headline(harvest), &summary::run_name(harvest.run()), &content))
}

fn headline(harvest: &Harvest) -> String {
    summary::model_name(harvest.run()).unwrap_or_else(|| "A dictionary of latents".into())
}

fn site(harvest: &Harvest) -> Option<&str> {
    harvest.stage("cache", "site").or_else(|| harvest.setting("site")).and_then(Value::as_str)
}

fn sentence(harvest: &Harvest) -> Markup {
    let tokens = whole(harvest, "harvest", "tokens").or_else(|| whole(harvest, "tokens", "tokens"));
    let documents = whole(harvest, "tokens", "documents");
    html! {
        "A sparse dictionary of " (format::count(harvest.n_latents() as u64)) " latents"
        @if let Some(site) = site(harvest) { " on " code { (site) } }
        @if let Some(tokens) = tokens { ", read over " (format::count(tokens)) " tokens" }
        @if let Some(documents) = documents { " of " (format::count(documents)) " documents" }
        "."
    }
}

fn facts(harvest: &Harvest) -> Markup {
    let rows = harvest.rows();
    let alive = rows.iter().filter(|row| row.stats.count > 0).count();
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
            @if let Some(l0) = l0 { (fact("Active at a token", &format::significant(l0), "latents (L0)")) }
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

fn controls(query: &ListQuery) -> Markup {
    let shows = [("", "all latents"), ("alive", "alive only"), ("explained", "explained only")];
    html! {
        form.controls method="get" action="/" role="search" {
            input #search type="search" name="q" value=(query.q) autocomplete="off"
                placeholder="Search explanations, tokens, or #id" aria-label="Search latents";
            select name="show" aria-label="Which latents" data-submit {
                @for (value, name) in shows { option value=(value) selected[query.show == value] { (name) } }
            }
            @if !query.sort.is_empty() { input type="hidden" name="sort" value=(query.sort); }
            @if !query.order.is_empty() { input type="hidden" name="order" value=(query.order); }
            button type="submit" { "Search" }
        }
    }
}

fn table(query: &ListQuery, sort: Sort, list: &LatentList) -> Markup {
    html! {
        table.latents {
            thead { tr {
                (heading(query, sort, Sort::Latent, "Latent", "id"))
                (heading(query, sort, Sort::Explanation, "Explanation", "text"))
                (heading(query, sort, Sort::Rate, "Firing rate", "number"))
                (heading(query, sort, Sort::Max, "Max", "number"))
                th.tokens scope="col" { "Top tokens" }
            } }
            tbody { @for line in &list.latents { (row(line)) } }
        }
        @if list.latents.is_empty() { p.muted.none { "No latent matches." } }
    }
}

fn heading(query: &ListQuery, current: Sort, sort: Sort, name: &str, class: &str) -> Markup {
    let descending = query.descending(current);
    let is_current = current == sort;
    // A second click turns the order round.
    let order = match (is_current, descending) {
        (true, true) => "asc",
        (true, false) => "desc",
        (false, _) => "",
    };
    let asked = ListQuery { sort: sort.name().into(), order: order.into(), page: String::new(), ..query.clone() };
    let direction = is_current.then_some(if descending { "descending" } else { "ascending" });
    html! {
        th class=(class) scope="col" aria-sort=[direction] {
            a href=(address(&asked)) { (name) @if is_current { span.arrow { (if descending { " ↓" } else { " ↑" }) } } }
        }
    }
}

fn row(line: &LatentLine) -> Markup {
    let href = format!("/latent/{}", line.latent);
    html! {
        tr.dead[line.count == 0] {
            td.id { a href=(href) { (line.latent) } }
            td.text {
                a href=(href) {
                    @match &line.explanation {
                        Some(text) => (text),
                        None => span.muted { (if line.count == 0 { "never fired" } else { "not explained" }) },
                    }
                }
            }
            td.number data-name="rate" title=(format::interval(&line.firing_rate, format::percent)) {
                (format::percent(line.firing_rate.value))
            }
            td.number data-name="max" { (format::significant(line.max.into())) }
            td.tokens {
                @for token in line.top_tokens.iter().take(TOKENS_SHOWN) {
                    code.chip title=(format!("logit {}", format::significant(token.logit.into()))) {
                        (spaces_shown(&token.text))
                    }
                }
            }
        }
    }
}

fn paging(query: &ListQuery, list: &LatentList) -> Markup {
    let to = |page: usize| address(&ListQuery { page: page.to_string(), ..query.clone() });
    html! {
        nav.paging aria-label="Pages" {
            span { (format::count(list.total as u64)) (if list.total == 1 { " latent" } else { " latents" }) }
            span.pages {
                @if list.page > 1 { a href=(to(1)) { "First" } a rel="prev" href=(to(list.page - 1)) { "Previous" } }
                span { "Page " (list.page) " of " (list.pages) }
                @if list.page < list.pages {
                    a rel="next" href=(to(list.page + 1)) { "Next" } a href=(to(list.pages)) { "Last" }
                }
            }
        }
    }
}

/// The address of a query. Only what differs from the default is said.
fn address(query: &ListQuery) -> String {
    let page = if query.page == "1" { "" } else { query.page.as_str() };
    let pairs = [
        ("q", query.q.as_str()),
        ("show", &query.show),
        ("sort", &query.sort),
        ("order", &query.order),
        ("page", page),
    ];
    let said: Vec<String> =
        pairs.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| format!("{k}={}", percent_encoded(v))).collect();
    if said.is_empty() { "/".into() } else { format!("/?{}", said.join("&")) }
}
