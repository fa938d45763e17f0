//! Pages that open from a file: no server, no script, and a policy that forbids both.
//!
//! A folder holds the list of latents in four orders, each in pages, and a page a latent; a single file holds all that was
//! asked for, its style sheet included. What is shown comes from the features of [`exegete_store::interop`], so that a run that
//! was imported shows the groups of its file.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use exegete_store::interop::{Feature, Grouping, RunSource, Sequence};
use exegete_store::{LatentRow, StoreError};
use maud::{Markup, PreEscaped, html};

use crate::pages::panels::panels_with;
use crate::pages::pieces::{chip, document, shaded};
use crate::pages::said::method;
use crate::pages::scored::scores;
use crate::vocabulary::visible;
use crate::{Dashboard, Result, format, summary};

/// Latents that a single file holds, at most: each is some ten thousand characters.
pub const MOST_IN_A_FILE: usize = 500;

const STYLE: &str = include_str!("../static/style.css");
/// Latents on a page of the list.
const PAGE_LEN: usize = 200;
/// Tokens shown beside a latent in the list.
const TOKENS_SHOWN: usize = 5;
/// Nothing but the style sheet beside the pages.
const POLICY: &str = "default-src 'none'; style-src 'self' file:; base-uri 'none'; form-action 'none'";
/// The same with the sheet in the page. Text is escaped, and no attribute of ours holds a style.
const POLICY_SINGLE: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// Orders of the list: beginning of the file's name, heading.
const ORDERS: [(&str, &str); 4] =
    [("rate", "Firing rate"), ("latent", "Latent"), ("max", "Max"), ("explanation", "Explanation")];

/// A run whose latents are written as pages.
pub struct StaticPages {
    source: RunSource,
    /// The same, as a server would show it.
    dashboard: Dashboard,
    dictionary: String,
    name: String,
    texts: BTreeMap<u32, String>,
    how: Grouping,
}

/// Where links lead.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A page of the list.
    List,
    /// A latent's own page.
    Latent,
    /// The one file.
    Single,
}

impl StaticPages {
    /// Opens a run that has latents; of several dictionaries, the one that is named.
    ///
    /// # Errors
    /// What is wrong with a file, or with the name.
    pub fn open(dir: &Path, dictionary: Option<&str>) -> Result<StaticPages> {
        let source = RunSource::open(dir, dictionary)?;
        let mut texts = BTreeMap::new();
        for row in source.latents() {
            if let Some(said) = source.explanations(row.latent)?.into_iter().next() {
                texts.insert(row.latent.0, said.text);
            }
        }
        let (dashboard, dictionary) = (Dashboard::open(dir)?, dictionary.unwrap_or_default().to_owned());
        let name = summary::run_name(source.run());
        Ok(StaticPages { source, dashboard, dictionary, name, texts, how: Grouping::default() })
    }

    /// All latents of the run.
    pub fn latents(&self) -> impl Iterator<Item = u32> {
        self.source.latents().iter().map(|row| row.latent.0)
    }

    /// Whether the run has a latent.
    pub fn has(&self, latent: u32) -> bool {
        self.row(latent).is_some()
    }

    fn row(&self, latent: u32) -> Option<&LatentRow> {
        let rows = self.source.latents();
        rows.binary_search_by_key(&latent, |row| row.latent.0).ok().map(|i| &rows[i])
    }

    /// Writes a folder of pages through `write`, file by file; `index.html` is the first to open.
    ///
    /// # Errors
    /// What is wrong with a file, and those of `write`.
    pub fn folder(&self, latents: &[u32], mut write: impl FnMut(&str, &str) -> Result<(), StoreError>) -> Result<()> {
        write("style.css", STYLE)?;
        let exported: HashSet<u32> = latents.iter().copied().collect();
        let rows: Vec<&LatentRow> = latents.iter().filter_map(|latent| self.row(*latent)).collect();
        for order in 0..ORDERS.len() {
            let mut rows = rows.clone();
            self.sort(&mut rows, order);
            let n_pages = rows.len().div_ceil(PAGE_LEN).max(1);
            for page in 0..n_pages {
                let shown: Vec<&LatentRow> = rows.iter().skip(page * PAGE_LEN).take(PAGE_LEN).copied().collect();
                let content = self.list(&shown, order, page, n_pages, rows.len());
                write(&list_name(order, page), &self.shell(&self.name, Place::List, &content))?;
            }
        }
        for (i, row) in rows.iter().enumerate() {
            let near = [i.checked_sub(1).and_then(|i| rows.get(i)), rows.get(i + 1)].map(|row| row.map(|r| r.latent.0));
            let content = html! {
                (steps(near))
                (self.latent(row, &exported, Place::Latent)?)
            };
            let title = format!("Latent {}", row.latent.0);
            write(&format!("latent/{}.html", row.latent.0), &self.shell(&title, Place::Latent, &content))?;
        }
        Ok(())
    }

    /// One page with all these latents.
    ///
    /// # Errors
    /// What is wrong with a file.
    pub fn single(&self, latents: &[u32]) -> Result<String> {
        let exported: HashSet<u32> = latents.iter().copied().collect();
        let rows: Vec<&LatentRow> = latents.iter().filter_map(|latent| self.row(*latent)).collect();
        let mut pages = Vec::with_capacity(rows.len());
        for row in &rows {
            pages.push(self.latent(row, &exported, Place::Single)?);
        }
        let content = html! {
            h1 { "Latents of " (self.name) }
            (self.table(&rows, None, Place::Single))
            @for page in &pages { (page) }
        };
        Ok(self.shell(&self.name, Place::Single, &content))
    }

    fn sort(&self, rows: &mut [&LatentRow], order: usize) {
        let text = |row: &LatentRow| self.texts.get(&row.latent.0).map(|text| text.to_lowercase());
        match ORDERS[order].0 {
            "rate" => rows.sort_by(|a, b| b.firing_rate.value.total_cmp(&a.firing_rate.value)),
            "max" => rows.sort_by(|a, b| b.stats.max.total_cmp(&a.stats.max)),
            // Those without a text come last.
            "explanation" => rows.sort_by_cached_key(|row| (!self.texts.contains_key(&row.latent.0), text(row))),
            _ => rows.sort_by_key(|row| row.latent),
        }
    }

    fn shell(&self, title: &str, place: Place, content: &Markup) -> String {
        let (policy, sheet, home) = match place {
            Place::List => (POLICY, Some("style.css"), Some("index.html")),
            Place::Latent => (POLICY, Some("../style.css"), Some("../index.html")),
            Place::Single => (POLICY_SINGLE, None, None),
        };
        let head = html! {
            meta http-equiv="Content-Security-Policy" content=(policy);
            meta name="referrer" content="no-referrer";
            @match sheet {
                Some(sheet) => link rel="stylesheet" href=(sheet);,
                None => style { (PreEscaped(STYLE)) },
            }
        };
        let body = html! {
            header.top {
                @match home { Some(home) => a.brand href=(home) { "exegete" }, None => span.brand { "exegete" } }
                span.run { (self.name) }
            }
            main { (content) }
        };
        document(title, &head, &body).into_string()
    }

    fn list(&self, rows: &[&LatentRow], order: usize, page: usize, n_pages: usize, total: usize) -> Markup {
        html! {
            h1 { (self.source.model().unwrap_or_else(|| "A dictionary of latents".into())) }
            p.lead {
                (format::count(total as u64)) " latents"
                @if let Some(site) = self.source.site() { " on " code { (site) } }
                "."
            }
            (self.table(rows, Some(order), Place::List))
            nav.paging aria-label="Pages" {
                span { (format::count(total as u64)) (if total == 1 { " latent" } else { " latents" }) }
                span.pages {
                    @if page > 0 { a href=(list_name(order, 0)) { "First" } a rel="prev" href=(list_name(order, page - 1)) { "Previous" } }
                    span { "Page " (page + 1) " of " (n_pages) }
                    @if page + 1 < n_pages {
                        a rel="next" href=(list_name(order, page + 1)) { "Next" }
                        a href=(list_name(order, n_pages - 1)) { "Last" }
                    }
                }
            }
        }
    }

    fn table(&self, rows: &[&LatentRow], order: Option<usize>, place: Place) -> Markup {
        let heading = |at: usize, class: &str| {
            html! {
                th class=(class) scope="col" aria-sort=[(order == Some(at)).then_some("other")] {
                    @match order {
                        Some(_) => a href=(list_name(at, 0)) { (ORDERS[at].1) },
                        None => (ORDERS[at].1),
                    }
                }
            }
        };
        html! {
            table.latents {
                thead { tr {
                    (heading(1, "id")) (heading(3, "text")) (heading(0, "number")) (heading(2, "number"))
                    th.tokens scope="col" { "Top tokens" }
                } }
                tbody { @for row in rows { (self.line(row, place)) } }
            }
        }
    }

    fn line(&self, row: &LatentRow, place: Place) -> Markup {
        let href = address(row.latent.0, place);
        let top = self.source.logits(&row.top_tokens);
        html! {
            tr.dead[row.stats.count == 0] {
                td.id { a href=(href) { (row.latent.0) } }
                td.text { a href=(href) { (self.said(row)) } }
                td.number title=(format::interval(&row.firing_rate, format::percent)) { (format::percent(row.firing_rate.value)) }
                td.number { (format::significant(row.stats.max.into())) }
                td.tokens { @for (token, weight) in top.iter().take(TOKENS_SHOWN) { (logit(token, *weight)) } }
            }
        }
    }

    fn said(&self, row: &LatentRow) -> Markup {
        match self.texts.get(&row.latent.0) {
            Some(text) => html! { (text) },
            None => html! { span.muted { (if row.stats.count == 0 { "never fired" } else { "not explained" }) } },
        }
    }

    fn latent(&self, row: &LatentRow, exported: &HashSet<u32>, place: Place) -> Result<Markup> {
        let feature = self.source.feature(row, &self.how)?;
        let id = row.latent.0;
        let detail = self.dashboard.latent(&self.dictionary, id, "levels")?;
        let near = |latent: u32| exported.contains(&latent).then(|| address(latent, place));
        Ok(html! {
            section.headline id=(format!("latent-{id}")) { p.id { "Latent " (id) } h1 { (self.said(row)) } }
            div.columns {
                div.side { (panels_with(&detail, &near)) }
                div.main {
                    @for result in &detail.methods { (method(None, result)) }
                    (scores(&detail.scores))
                    (examples(row, &feature))
                }
            }
        })
    }
}

fn list_name(order: usize, page: usize) -> String {
    match (order, page) {
        (0, 0) => "index.html".into(),
        _ => format!("{}-{}.html", ORDERS[order].0, page + 1),
    }
}

fn address(latent: u32, place: Place) -> String {
    match place {
        Place::List => format!("latent/{latent}.html"),
        Place::Latent => format!("{latent}.html"),
        Place::Single => format!("#latent-{latent}"),
    }
}

fn steps([before, after]: [Option<u32>; 2]) -> Markup {
    html! {
        nav.steps aria-label="Latents" {
            a href="../index.html" { "All latents" }
            span {
                @if let Some(id) = before { a rel="prev" href=(address(id, Place::Latent)) { "← " (id) } }
                @if let Some(id) = after { a rel="next" href=(address(id, Place::Latent)) { (id) " →" } }
            }
        }
    }
}

fn logit(token: &str, logit: f32) -> Markup {
    chip(&visible(token), &format!("logit {}", format::significant(logit.into())))
}

/// The texts by groups: those that stand beside each other in the same bin.
fn examples(row: &LatentRow, feature: &Feature) -> Markup {
    let max = row.stats.max;
    let groups: Vec<&[Sequence]> = feature.sequences.chunk_by(|a, b| a.bin == b.bin).collect();
    html! {
        @if groups.is_empty() {
            section { h2 { "Examples" } p.muted { "This latent fired on none of the tokens that were read." } }
        }
        @for group in groups {
            section {
                h2 { (heading(&group[0])) }
                div.examples { @for sequence in group { (example(sequence, max)) } }
            }
        }
    }
}

fn heading(sequence: &Sequence) -> Markup {
    let bin = &sequence.bin;
    match (bin.min, bin.max) {
        (Some(min), Some(max)) if !bin.is_top() => html! {
            "Random firings from " (format::significant(min)) " to " (format::significant(max)) " "
            @if let Some(share) = bin.share { span.note { "about " (format::percent(share)) " of firings" } }
        },
        _ => html! { "Strongest firings" },
    }
}

fn example(sequence: &Sequence, max: f32) -> Markup {
    let own = sequence.own();
    let value = own.and_then(|own| sequence.values.get(own)).copied().unwrap_or(f32::NAN);
    html! {
        div.example {
            span.value { (format::significant(value.into())) }
            p.text dir="auto" { @for (i, (token, value)) in sequence.tokens.iter().zip(&sequence.values).enumerate() {
                (shaded(&visible(token), *value, max, own == Some(i), i == 0, Some(&value.to_string())))
            } }
        }
    }
}
