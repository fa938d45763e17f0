//! Two latents side by side, of one dictionary or of two.

use maud::{Markup, html};

use super::examples::{Shown, strongest};
use super::latent::{name, random};
use super::panels::panels;
use super::whole::{headline, overview};
use super::{Frame, said, shell};
use crate::columns::{self, Column};
use crate::detail::View;
use crate::format;
use crate::harvest::Harvest;
use crate::wire::LatentDetail;

/// A side: where its latent is from, and the latent or why it is not there.
type Side<'a> = (&'a Harvest, &'a Result<LatentDetail, String>);

/// The page on which two latents are compared.
pub(crate) fn compare(frame: &Frame, left: Side, right: Side, asked: [&str; 2], view: View) -> Markup {
    // Without latents, what is compared are the dictionaries.
    let is_whole = asked.iter().all(|id| id.trim().is_empty());
    let content = html! {
        h1 { (if is_whole { "Two dictionaries side by side" } else { "Two latents side by side" }) }
        (form(left.0, right.0, asked, view))
        @if is_whole && left.0.named() != right.0.named() {
            div.sides { @for harvest in [left.0, right.0] { section.one {
                @let title = html! {
                    p.id { a href=(harvest.address("/", &[])) { (harvest.named().name) } }
                    h2.name { (headline(harvest)) }
                };
                (overview(harvest, &title, false))
            } } }
        }
        @if let (Ok(a), Ok(b)) = (left.1, right.1) { (numbers((left.0, a), (right.0, b))) }
        @if !is_whole { div.sides { (side(left)) (side(right)) } }
    };
    shell("Compare", frame, &content)
}

fn form(left: &Harvest, right: &Harvest, asked: [&str; 2], view: View) -> Markup {
    let select = |name: &str, label: &str, chosen: &Harvest| {
        html! {
            @if left.dictionaries().len() > 1 {
                select name=(name) aria-label=(label) {
                    @for named in left.dictionaries() {
                        option value=(named.name) selected[named == chosen.named()] { (named.name) }
                    }
                }
            }
        }
    };
    html! {
        form.controls method="get" action="/compare" {
            (select("dictionary", "Dictionary of the left latent", left))
            input name="left" value=(asked[0]) inputmode="numeric" placeholder="Left latent" aria-label="Left latent" autocomplete="off";
            (select("other", "Dictionary of the right latent", right))
            input name="right" value=(asked[1]) inputmode="numeric" placeholder="Right latent" aria-label="Right latent" autocomplete="off";
            select name="view" aria-label="How random firings are shown" {
                @for (of, name) in View::ALL { option value=(name) selected[of == view] { "by " (name) } }
            }
            button type="submit" { "Compare" }
        }
        @if asked.iter().all(|id| id.trim().is_empty()) {
            p.muted { "Give the numbers of two latents" @if left.dictionaries().len() > 1 { ", or two dictionaries and no numbers" } "." }
        }
    }
}

/// All columns in which either has a value.
fn numbers((left, a): (&Harvest, &LatentDetail), (right, b): (&Harvest, &LatentDetail)) -> Markup {
    let value = |harvest: &Harvest, detail: &LatentDetail, column: &Column| {
        harvest.row(exegete_base::LatentId(detail.line.latent)).map_or(f64::NAN, |row| (column.value)(row))
    };
    let is_same = left.named() == right.named();
    let cosine = a.neighbours.iter().find(|near| is_same && near.latent == b.line.latent);
    let jaccard = a.profile.cofiring.iter().find(|near| is_same && near.latent == b.line.latent);
    html! {
        table.plain.both {
            thead { tr { th scope="col" { "" } th scope="col" { (a.line.latent) } th scope="col" { (b.line.latent) } } }
            tbody {
                @for column in &columns::COLUMNS {
                    @let (x, y) = (value(left, a, column), value(right, b, column));
                    @if x.is_finite() || y.is_finite() {
                        tr { th scope="row" { (column.title) } td { (format::significant(x)) } td { (format::significant(y)) } }
                    }
                }
                @if let Some(near) = cosine { tr { th scope="row" { "cosine of the decoder rows" } td colspan="2" { (format!("{:.3}", near.value)) } } }
                @if let Some(near) = jaccard { tr { th scope="row" { "Jaccard index of their firings" } td colspan="2" { (format!("{:.3}", near.value)) } } }
            }
        }
    }
}

fn side((harvest, detail): Side) -> Markup {
    html! {
        section.one {
            @match detail {
                Err(missing) if missing.is_empty() => p.muted { "Give a latent's number above." },
                Err(missing) => p.abstained { (missing) },
                Ok(detail) => {
                    @let shown = Shown { harvest, latent: detail.line.latent, max: detail.line.max, with_values: true };
                    p.id {
                        a href=(harvest.address(&format!("/latent/{}", detail.line.latent), &[])) { "Latent " (detail.line.latent) }
                        @if !detail.dictionary.is_empty() { span.muted { " of " (detail.dictionary) } }
                    }
                    h2.name dir="auto" { (name(detail)) }
                    (panels(harvest, detail))
                    @for result in &detail.methods { (said::method(None, result)) }
                    (strongest(shown, detail))
                    section { h2 { "Random firings" } (random(shown, detail)) }
                }
            }
        }
    }
}
