//! The first page: the run in words and figures, and the list of its latents.

use maud::{Markup, html};

use super::whole::{headline, overview};
use super::{Frame, shell};
use crate::columns::{self, Column};
use crate::harvest::Harvest;
use crate::listing::{ListQuery, Sort};
use crate::vocabulary::spaces_shown;
use crate::wire::{LatentLine, LatentList};
use crate::{Result, format};

/// Tokens shown beside a latent.
const TOKENS_SHOWN: usize = 5;

/// The first page.
pub(crate) fn home(frame: &Frame, harvest: &Harvest, query: &ListQuery, list: &LatentList) -> Result<Markup> {
    let sort = query.sort(!harvest.said()?.texts.is_empty());
    let content = html! {
        (overview(harvest, &html! { h1 { (headline(harvest)) } }, frame.has_training))
        section #latents {
            (controls(harvest, query, sort))
            (table(harvest, query, sort, list))
            (paging(harvest, query, list))
        }
    };
    Ok(shell(&headline(harvest), frame, &content))
}

fn controls(harvest: &Harvest, query: &ListQuery, sort: Sort) -> Markup {
    let shows = [
        ("", "all latents"),
        ("alive", "alive"),
        ("dead", "dead"),
        ("explained", "explained"),
        ("bookmarked", "bookmarked"),
        ("noted", "with notes"),
    ];
    let kinds = [("", "of any kind"), ("few-tokens", "of few tokens"), ("positional", "of positions")];
    let there = columns::there(harvest.rows());
    let has_profiles = harvest.rows().iter().any(|row| row.profile.n_sampled > 0);
    html! {
        form.controls method="get" action="/" role="search" {
            @if !harvest.address("", &[]).is_empty() { input type="hidden" name="dictionary" value=(harvest.named().name); }
            input #search type="search" name="q" value=(query.q) autocomplete="off"
                placeholder="Search explanations, notes, tokens, or #id" aria-label="Search latents";
            select name="show" aria-label="Which latents" data-submit {
                @for (value, name) in shows { option value=(value) selected[query.show == value] { (name) } }
            }
            @if has_profiles {
                select name="kind" aria-label="Kind of latents" data-submit {
                    @for (value, name) in kinds { option value=(value) selected[query.kind == value] { (name) } }
                }
            }
            select name="sort" aria-label="Order" data-submit {
                @for (name, title) in [("latent", "number"), ("explanation", "explanation")] {
                    option value=(name) selected[sort.name() == name] { "by " (title) }
                }
                @for column in there { option value=(column.name) selected[sort.name() == column.name] { "by " (column.title) } }
            }
            input.rate name="low" value=(query.low) inputmode="decimal" placeholder="rate from" aria-label="Smallest firing rate, as a share of tokens" autocomplete="off";
            input.rate name="high" value=(query.high) inputmode="decimal" placeholder="to" aria-label="Largest firing rate, as a share of tokens" autocomplete="off";
            button type="submit" { "Search" }
        }
    }
}

/// The column that is shown beside the standing ones because the list is sorted by it.
fn extra(sort: Sort) -> Option<&'static Column> {
    match sort {
        Sort::Column(column) if !["rate", "max"].contains(&column.name) => Some(column),
        _ => None,
    }
}

fn table(harvest: &Harvest, query: &ListQuery, sort: Sort, list: &LatentList) -> Markup {
    let extra = extra(sort);
    let standing = |name: &str| columns::column(name).map_or(Sort::Latent, Sort::Column);
    html! {
        table.latents {
            thead { tr {
                (heading(harvest, query, sort, Sort::Latent, "Latent", "id"))
                (heading(harvest, query, sort, Sort::Explanation, "Explanation", "text"))
                (heading(harvest, query, sort, standing("rate"), "Firing rate", "number"))
                (heading(harvest, query, sort, standing("max"), "Max", "number"))
                @if let Some(column) = extra { (heading(harvest, query, sort, sort, column.title, "number extra")) }
                th.tokens scope="col" { "Top tokens" }
            } }
            tbody { @for line in &list.latents { (row(harvest, line, extra)) } }
        }
        @if list.latents.is_empty() { p.muted.none { "No latent matches." } }
    }
}

fn heading(harvest: &Harvest, query: &ListQuery, current: Sort, sort: Sort, name: &str, class: &str) -> Markup {
    let descending = query.descending(current);
    let is_current = current.name() == sort.name();
    // A second click turns the order round.
    let order = match (is_current, descending) {
        (true, true) => "asc",
        (true, false) => "desc",
        (false, _) => "",
    };
    let asked = ListQuery { sort: sort.name().into(), order: order.into(), ..query.clone() };
    let direction = is_current.then_some(if descending { "descending" } else { "ascending" });
    html! {
        th class=(class) scope="col" aria-sort=[direction] {
            a href=(address(harvest, &asked, 1)) { (name) @if is_current { span.arrow { (if descending { " ↓" } else { " ↑" }) } } }
        }
    }
}

fn row(harvest: &Harvest, line: &LatentLine, extra: Option<&Column>) -> Markup {
    let href = harvest.address(&format!("/latent/{}", line.latent), &[]);
    html! {
        tr.dead[line.count == 0] {
            td.id { a href=(href) { (line.latent) } @if line.is_bookmarked { span title="bookmarked" { " ★" } } }
            td.text {
                a href=(href) tabindex="-1" dir="auto" {
                    @match &line.explanation {
                        Some(text) => (format::said(text)),
                        None => span.muted { (if line.count == 0 { "never fired" } else { "not explained" }) },
                    }
                }
            }
            td.number data-name="rate" title=(format::interval(&line.firing_rate, format::percent)) {
                (format::percent(line.firing_rate.value))
            }
            td.number data-name="max" { (format::significant(line.max.into())) }
            @if let Some(column) = extra {
                td.number.extra data-name=(column.title) { (line.value.map_or("–".into(), format::significant)) }
            }
            td.tokens {
                @for token in line.top_tokens.iter().take(TOKENS_SHOWN) {
                    code.chip dir="auto" title=(format!("logit {}", format::significant(token.logit.into()))) {
                        (spaces_shown(&token.text))
                    }
                }
            }
        }
    }
}

fn paging(harvest: &Harvest, query: &ListQuery, list: &LatentList) -> Markup {
    let to = |page: usize| address(harvest, query, page);
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
fn address(harvest: &Harvest, query: &ListQuery, page: usize) -> String {
    let page = if page > 1 { page.to_string() } else { String::new() };
    let mut pairs = query.pairs();
    pairs.push(("page", &page));
    harvest.address("/", &pairs)
}
