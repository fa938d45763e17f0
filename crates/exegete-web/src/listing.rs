//! The list of latents: search, filter, sort, page.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};

use exegete_base::LatentId;
use exegete_store::LatentRow;
use serde::Deserialize;

use crate::Result;
use crate::harvest::Harvest;
use crate::wire::LatentList;

/// Latents on a page.
const PAGE_LEN: usize = 50;

/// What is asked of the list, as it stands in the address.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct ListQuery {
    /// Text to search: words of explanations, part of a token, or `#id`.
    pub(crate) q: String,
    /// Order; anything unknown is the default.
    pub(crate) sort: String,
    /// `asc` or `desc`; empty for the order's natural direction.
    pub(crate) order: String,
    /// `alive`, `explained`, or all.
    pub(crate) show: String,
    /// Page, from 1. Text, so that a mistyped page is page 1 and no error.
    pub(crate) page: String,
}

/// An order of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    Latent,
    Explanation,
    Rate,
    Max,
}

impl Sort {
    /// All orders with their names in the address and their natural direction (descending?).
    pub(crate) const ALL: [(Sort, &'static str, bool); 4] = [
        (Sort::Latent, "latent", false),
        (Sort::Explanation, "explanation", false),
        (Sort::Rate, "rate", true),
        (Sort::Max, "max", true),
    ];

    /// Name in the address.
    pub(crate) fn name(self) -> &'static str {
        Sort::ALL[self as usize].1
    }
}

impl ListQuery {
    /// The order asked for, or explanations first where there are any.
    pub(crate) fn sort(&self, has_texts: bool) -> Sort {
        let default = if has_texts { Sort::Explanation } else { Sort::Rate };
        Sort::ALL.iter().find(|(_, name, _)| *name == self.sort).map_or(default, |(sort, ..)| *sort)
    }

    /// Whether large values come first.
    pub(crate) fn descending(&self, sort: Sort) -> bool {
        match self.order.as_str() {
            "asc" => false,
            "desc" => true,
            _ => Sort::ALL[sort as usize].2,
        }
    }
}

/// Answers a query.
pub(crate) fn list(harvest: &Harvest, query: &ListQuery) -> Result<LatentList> {
    let texts = harvest.first_texts()?;
    let mut rows = matching(harvest, query)?;
    match query.show.as_str() {
        "alive" => rows.retain(|row| row.stats.count > 0),
        "explained" => rows.retain(|row| texts.contains_key(&row.latent)),
        _ => {}
    }
    let sort = query.sort(!texts.is_empty());
    let descending = query.descending(sort);
    rows.sort_by(|a, b| compare(a, b, sort, descending, &texts).then(a.latent.cmp(&b.latent)));
    let pages = rows.len().div_ceil(PAGE_LEN).max(1);
    let page = query.page.parse().unwrap_or(1).clamp(1, pages);
    let shown = rows.iter().skip((page - 1) * PAGE_LEN).take(PAGE_LEN);
    let latents = shown.map(|row| harvest.line(row, &texts)).collect();
    Ok(LatentList { total: rows.len(), page, pages, latents })
}

fn compare(a: &LatentRow, b: &LatentRow, sort: Sort, descending: bool, texts: &BTreeMap<LatentId, String>) -> Ordering {
    let turn = |order: Ordering| if descending { order.reverse() } else { order };
    match sort {
        Sort::Latent => turn(a.latent.cmp(&b.latent)),
        Sort::Rate => turn(a.stats.count.cmp(&b.stats.count)),
        Sort::Max => turn(a.stats.max.total_cmp(&b.stats.max)),
        Sort::Explanation => match (texts.get(&a.latent), texts.get(&b.latent)) {
            (Some(a), Some(b)) => turn(a.to_lowercase().cmp(&b.to_lowercase())),
            // Latents without a text come last in either direction, the busiest first.
            (a_text, b_text) => b_text.is_some().cmp(&a_text.is_some()).then(b.stats.count.cmp(&a.stats.count)),
        },
    }
}

fn matching<'a>(harvest: &'a Harvest, query: &ListQuery) -> Result<Vec<&'a LatentRow>> {
    let text = query.q.trim();
    let rows = harvest.rows().iter();
    if text.is_empty() {
        return Ok(rows.collect());
    }
    let id: Option<u32> = text.strip_prefix('#').unwrap_or(text).trim().parse().ok();
    if text.starts_with('#') && id.is_some() {
        return Ok(rows.filter(|row| Some(row.latent.0) == id).collect());
    }
    let explained: HashSet<LatentId> = harvest.explained_with(text)?.into_iter().collect();
    let is_match = harvest.vocabulary().matches(text);
    let has_token = |row: &LatentRow| row.top_tokens.iter().any(|(t, _)| is_match.get(*t as usize) == Some(&true));
    Ok(rows.filter(|row| explained.contains(&row.latent) || Some(row.latent.0) == id || has_token(row)).collect())
}
