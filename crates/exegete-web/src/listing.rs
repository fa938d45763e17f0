//! The list of latents: search, filter, sort, page.

use std::cmp::Ordering;
use std::collections::HashSet;

use exegete_base::LatentId;
use exegete_store::LatentRow;
use serde::Deserialize;

use crate::Result;
use crate::columns::{self, Column};
use crate::harvest::{Harvest, Said};
use crate::wire::LatentList;

/// Latents on a page.
const PAGE_LEN: usize = 50;

/// What is asked of the list, as it stands in the address.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct ListQuery {
    /// The dictionary; empty for the first.
    pub(crate) dictionary: String,
    /// Text to search: words of explanations and notes, part of a token, or `#id`.
    pub(crate) q: String,
    /// Order; anything unknown is the default.
    pub(crate) sort: String,
    /// `asc` or `desc`; empty for the order's natural direction.
    pub(crate) order: String,
    /// `alive`, `dead`, `explained`, `bookmarked`, `noted`, or all.
    pub(crate) show: String,
    /// `few-tokens`, `positional`, or all.
    pub(crate) kind: String,
    /// Smallest firing rate. Text, so that a mistyped number is none and no error.
    pub(crate) low: String,
    /// Largest firing rate.
    pub(crate) high: String,
    /// Page, from 1.
    pub(crate) page: String,
}

/// An order of the list.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sort {
    Latent,
    Explanation,
    Column(&'static Column),
}

impl Sort {
    /// Name in the address.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Sort::Latent => "latent",
            Sort::Explanation => "explanation",
            Sort::Column(column) => column.name,
        }
    }
}

impl ListQuery {
    /// The order asked for, or explanations first where there are any.
    pub(crate) fn sort(&self, has_texts: bool) -> Sort {
        match (self.sort.as_str(), columns::column(&self.sort)) {
            ("latent", _) => Sort::Latent,
            ("explanation", _) => Sort::Explanation,
            (_, Some(column)) => Sort::Column(column),
            _ if has_texts => Sort::Explanation,
            _ => Sort::Column(&columns::COLUMNS[0]),
        }
    }

    /// Whether large values come first.
    pub(crate) fn descending(&self, sort: Sort) -> bool {
        match self.order.as_str() {
            "asc" => false,
            "desc" => true,
            _ => matches!(sort, Sort::Column(_)),
        }
    }

    /// What is said of it in an address, the page left out.
    pub(crate) fn pairs(&self) -> Vec<(&'static str, &str)> {
        vec![
            ("q", self.q.as_str()),
            ("show", &self.show),
            ("kind", &self.kind),
            ("low", &self.low),
            ("high", &self.high),
            ("sort", &self.sort),
            ("order", &self.order),
        ]
    }
}

/// Answers a query.
pub(crate) fn list(harvest: &Harvest, query: &ListQuery) -> Result<LatentList> {
    let said = harvest.said()?;
    let sort = query.sort(!said.texts.is_empty());
    let is_descending = query.descending(sort);
    // A separator that no address can hold unescaped within a value does not matter here: the key is never read again.
    let key = format!("{}\u{1f}{:?}\u{1f}{}\u{1f}{is_descending}", said.version(), query.pairs(), sort.name());
    let rows = harvest.listed(key, || matching_in_order(harvest, query, &said, sort, is_descending))?;
    let pages = rows.len().div_ceil(PAGE_LEN).max(1);
    let page = query.page.parse().unwrap_or(1).clamp(1, pages);
    let shown = rows.iter().skip((page - 1) * PAGE_LEN).take(PAGE_LEN);
    let latents = shown.map(|&at| {
        let row = &harvest.rows()[at as usize];
        let mut line = harvest.line(row, said.texts.get(&row.latent).cloned(), said.bookmarks.contains(&row.latent));
        if let Sort::Column(column) = sort {
            line.value = Some((column.value)(row)).filter(|value| value.is_finite());
        }
        line
    });
    Ok(LatentList {
        total: rows.len(),
        page,
        pages,
        sort: sort.name().into(),
        is_descending,
        latents: latents.collect(),
    })
}

/// Places of the latents that match, in the order asked for.
fn matching_in_order(
    harvest: &Harvest,
    query: &ListQuery,
    said: &Said,
    sort: Sort,
    is_descending: bool,
) -> Result<Vec<u32>> {
    let rows = harvest.rows();
    let is_match = matcher(harvest, query.q.trim())?;
    let is_shown = |row: &LatentRow| match query.show.as_str() {
        "alive" => row.stats.count > 0,
        "dead" => row.stats.count == 0,
        "explained" => said.texts.contains_key(&row.latent),
        "bookmarked" => said.bookmarks.contains(&row.latent),
        "noted" => said.noted.contains(&row.latent),
        _ => true,
    };
    let is_kind = |row: &LatentRow| match query.kind.as_str() {
        "few-tokens" => columns::is_of_few_tokens(row),
        "positional" => columns::is_positional(row),
        _ => true,
    };
    let low: f64 = query.low.trim().parse().unwrap_or(f64::NEG_INFINITY);
    let high: f64 = query.high.trim().parse().unwrap_or(f64::INFINITY);
    let is_between = |row: &LatentRow| (low..=high).contains(&row.firing_rate.value);
    let is_wanted = |row: &LatentRow| is_shown(row) && is_kind(row) && is_between(row) && is_match(row);
    let mut found: Vec<u32> = (0..rows.len()).filter(|&at| is_wanted(&rows[at])).map(|at| at as u32).collect();
    let turn = |order: Ordering| if is_descending { order.reverse() } else { order };
    match sort {
        Sort::Latent if is_descending => found.reverse(),
        Sort::Latent => {}
        Sort::Column(column) => {
            let mut keyed: Vec<(f64, u32)> = found.iter().map(|&at| ((column.value)(&rows[at as usize]), at)).collect();
            // What has no value comes last in either direction.
            keyed.sort_by(|a, b| a.0.is_nan().cmp(&b.0.is_nan()).then(turn(a.0.total_cmp(&b.0))).then(a.1.cmp(&b.1)));
            found = keyed.into_iter().map(|(_, at)| at).collect();
        }
        Sort::Explanation => {
            let key = |at: u32| {
                let row = &rows[at as usize];
                (said.texts.get(&row.latent).map(|text| text.to_lowercase()), row.stats.count, at)
            };
            let mut keyed: Vec<(Option<String>, u64, u32)> = found.iter().map(|&at| key(at)).collect();
            keyed.sort_by(|a, b| match (&a.0, &b.0) {
                (Some(a_text), Some(b_text)) => turn(a_text.cmp(b_text)).then(a.2.cmp(&b.2)),
                // Latents without a text come last in either direction, the busiest first.
                _ => b.0.is_some().cmp(&a.0.is_some()).then(b.1.cmp(&a.1)).then(a.2.cmp(&b.2)),
            });
            found = keyed.into_iter().map(|(.., at)| at).collect();
        }
    }
    Ok(found)
}

type Matcher = Box<dyn Fn(&LatentRow) -> bool>;

/// Which latents a search finds.
fn matcher(harvest: &Harvest, text: &str) -> Result<Matcher> {
    if text.is_empty() {
        return Ok(Box::new(|_| true));
    }
    let id: Option<u32> = text.strip_prefix('#').unwrap_or(text).trim().parse().ok();
    if text.starts_with('#') && id.is_some() {
        return Ok(Box::new(move |row| Some(row.latent.0) == id));
    }
    let said: HashSet<LatentId> = harvest.said_with(text)?.into_iter().collect();
    let is_match = harvest.vocabulary().matches(text);
    let is_token = move |token: u32| is_match.get(token as usize) == Some(&true);
    Ok(Box::new(move |row| {
        let mut tokens = row.top_tokens.iter().chain(&row.profile.fired_tokens);
        said.contains(&row.latent) || Some(row.latent.0) == id || tokens.any(|(token, _)| is_token(*token))
    }))
}
