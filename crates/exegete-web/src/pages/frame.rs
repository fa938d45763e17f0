//! What stands around every page: its head, the way to the other pages, and the help to the keyboard.

use maud::{Markup, html};

use super::pieces::document;
use crate::harvest::Harvest;
use crate::{Dashboard, Result, jobs, summary, training};

/// Keys and what they do. Everything works without them.
const KEYS: [(&str, &str); 14] = [
    ("j or →", "next latent"),
    ("k or ←", "previous latent"),
    ("Tab, then ← and →", "activations of an example's tokens"),
    ("/", "search"),
    ("[ and ]", "previous and next level"),
    ("b", "set or remove the bookmark"),
    ("n", "write a note"),
    ("c", "compare this latent"),
    ("x", "whole text of the example that has the focus, or of the first"),
    ("g h", "list of latents"),
    ("g m", "map"),
    ("g t", "try a text"),
    ("g j", "jobs"),
    ("?", "this help"),
];

/// What a page says of the run that it belongs to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Frame {
    pub(super) run_name: String,
    /// Name, address and key of the other pages.
    ways: Vec<(&'static str, String, &'static str)>,
    /// Name and address of the run's dictionaries, where it has several, and whether it is the one shown.
    dictionaries: Vec<(String, String, bool)>,
    /// What is wrong with parts of the run that are therefore not shown.
    problems: Vec<String>,
    pub(super) has_latents: bool,
    pub(super) has_training: bool,
    pub(super) has_session: bool,
}

impl Frame {
    /// Of a run as it stands, on a page of a dictionary or of none.
    ///
    /// # Errors
    /// The run is gone.
    pub(crate) fn of(dashboard: &Dashboard, harvest: Option<&Harvest>) -> Result<Frame> {
        let run = dashboard.run()?;
        let all = dashboard.dictionaries()?;
        let address = |path: &str| harvest.map_or_else(|| path.to_owned(), |harvest| harvest.address(path, &[]));
        let (has_latents, has_training) = (!all.is_empty(), training::is_there(&run));
        let has_session = dashboard.has_session();
        let has_texts = match harvest {
            Some(harvest) => !harvest.said()?.texts.is_empty(),
            None => false,
        };
        let ways = [
            (has_latents, "Latents", address("/"), "h"),
            (harvest.is_some_and(Harvest::has_map), "Map", address("/map"), "m"),
            (has_latents, "Compare", address("/compare"), "c"),
            (has_latents && has_session, "Try", address("/try"), "t"),
            (has_texts, "Rate", address("/rate"), "r"),
            (has_training, "Training", "/training".into(), "l"),
            (jobs::are_there(dashboard.dir()), "Jobs", "/jobs".into(), "j"),
        ];
        let ways = ways.into_iter().filter(|(is_there, ..)| *is_there).map(|(_, name, to, key)| (name, to, key));
        let several = if all.len() > 1 { all } else { Vec::new() };
        let dictionaries = several.iter().map(|named| {
            let to = format!("/?dictionary={}", super::percent_encoded(&named.name));
            (named.name.clone(), to, harvest.is_some_and(|harvest| harvest.named() == named))
        });
        Ok(Frame {
            run_name: summary::run_name(harvest.map_or(&*run, Harvest::run)),
            ways: ways.collect(),
            dictionaries: dictionaries.collect(),
            problems: harvest.map_or(Vec::new(), |harvest| harvest.problems().to_vec()),
            has_latents,
            has_training,
            has_session,
        })
    }
}

/// A whole page around its content.
pub(super) fn shell(title: &str, frame: &Frame, content: &Markup) -> Markup {
    let head = html! {
        link rel="icon" href="/static/icon.svg" type="image/svg+xml";
        link rel="stylesheet" href="/static/style.css";
        script src="/static/app.js" defer {}
    };
    let body = html! {
        a.skip href="#content" { "Skip to the content" }
        header.top {
            a.brand href="/" { "exegete" }
            @if !frame.run_name.is_empty() { span.run { (frame.run_name) } }
            @if !frame.ways.is_empty() {
                nav.ways aria-label="Pages of this run" {
                    @for (name, to, key) in &frame.ways { a href=(to) data-go=(key) { (name) } }
                    button #help-button.plain-button type="button" aria-haspopup="dialog" { "Keys" }
                }
            }
        }
        @if !frame.dictionaries.is_empty() {
            nav.dictionaries aria-label="Dictionaries" {
                @for (name, to, is_current) in &frame.dictionaries {
                    a href=(to) aria-current=[is_current.then_some("true")] { (name) }
                }
            }
        }
        main #content tabindex="-1" {
            @if !frame.problems.is_empty() {
                section.problems role="alert" {
                    p.abstained { "Parts of this run are missing or damaged; what they hold is not shown:" }
                    ul { @for problem in &frame.problems { li { (problem) } } }
                }
            }
            (content)
        }
        dialog #help aria-labelledby="help-title" {
            h2 #help-title { "Keys" }
            table.plain {
                @for (key, what) in KEYS { tr { th scope="row" { kbd { (key) } } td { (what) } } }
            }
            form method="dialog" { button.plain-button { "Close" } }
        }
        p #announce.unseen role="status" aria-live="polite" {}
    };
    document(title, &head, &body)
}
