//! The page of a latent.

use exegete_base::LatentId;
use maud::{Markup, html};

use super::examples::{Shown, groups, level, strongest};
use super::panels::panels;
use super::said::{self, Forms};
use super::scored::scores;
use super::trying::try_one;
use super::{Frame, shell};
use crate::detail::View;
use crate::format;
use crate::harvest::Harvest;
use crate::wire::LatentDetail;

/// The page of a latent.
pub(crate) fn latent(frame: &Frame, harvest: &Harvest, detail: &LatentDetail, view: View) -> Markup {
    let id = detail.line.latent;
    let address = |id: u32, view: View| {
        let view = if view == View::Levels { "" } else { view.name() };
        harvest.address(&format!("/latent/{id}"), &[("view", view)])
    };
    let back = address(id, view);
    let forms = Forms { harvest, latent: id, back: &back };
    let shown = Shown { harvest, latent: id, max: detail.line.max, with_values: true };
    let content = html! {
        (neighbouring_pages(harvest, id, &|id| address(id, view)))
        section.headline {
            div.id {
                "Latent " (id)
                (said::bookmark(&forms, detail.line.is_bookmarked))
                a #compare href=(harvest.address("/compare", &[("left", &id.to_string())])) { "Compare" }
            }
            h1 dir="auto" { (name(detail)) }
            (said::label(&forms, detail))
        }
        div.columns {
            div.side { (panels(harvest, detail)) }
            div.main {
                @for result in &detail.methods { (said::method(Some(&forms), result)) }
                (scores(&detail.scores))
                @if frame.has_session { (try_one(harvest, id, &back)) }
                (said::notes(&forms, detail))
                @if detail.line.count == 0 {
                    section { h2 { "Examples" } p.muted { "This latent fired on none of the tokens that were read." } }
                } @else {
                    (strongest(shown, detail))
                    section #random {
                        h2 { "Random firings at every strength" }
                        nav.tabs aria-label="How random firings are shown" {
                            @for (other, name) in View::ALL {
                                a href=(format!("{}#random", address(id, other))) aria-current=[(other == view).then_some("true")] {
                                    "by " (name)
                                }
                            }
                        }
                        (random(shown, detail))
                    }
                }
            }
        }
    };
    let title = match &detail.line.explanation {
        Some(text) => format!("{id} · {text}"),
        None => format!("Latent {id}"),
    };
    shell(&title, frame, &content)
}

/// Random firings in the view that was asked for.
pub(super) fn random(shown: Shown, detail: &LatentDetail) -> Markup {
    match &detail.groups {
        Some(of) => groups(shown, of),
        None => html! { @for of in &detail.levels { (level(shown, of)) } },
    }
}

/// What a latent is called.
pub(super) fn name(detail: &LatentDetail) -> Markup {
    html! {
        @match &detail.line.explanation {
            Some(text) => (format::said(text)),
            None => span.muted { (if detail.line.count == 0 { "Never fired" } else { "Not explained" }) },
        }
    }
}

fn neighbouring_pages(harvest: &Harvest, id: u32, address: &dyn Fn(u32) -> String) -> Markup {
    let [before, after] = harvest.around(LatentId(id)).map(|near| near.map(|latent| latent.0));
    html! {
        nav.steps aria-label="Latents" {
            a href=(harvest.address("/", &[])) { "All latents" }
            span {
                @if let Some(id) = before { a rel="prev" href=(address(id)) title="Key: k or ←" { "← " (id) } }
                @if let Some(id) = after { a rel="next" href=(address(id)) title="Key: j or →" { (id) " →" } }
            }
        }
    }
}
