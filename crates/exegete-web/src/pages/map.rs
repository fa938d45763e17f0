//! The map of decoder directions. The script draws it; without it there is the list.

use maud::{Markup, html};

use super::{Frame, shell};
use crate::harvest::Harvest;
use crate::{columns, format};

/// The page of the map.
pub(crate) fn map(frame: &Frame, harvest: &Harvest, column: &str) -> Markup {
    let there = columns::there(harvest.rows());
    let column = columns::column(column).unwrap_or(&columns::COLUMNS[0]);
    let content = html! {
        h1 { "Map of decoder directions" }
        @if harvest.has_map() {
            p.note {
                "Each point is a latent, placed by the first two principal components of the decoder's rows: near points have similar "
                "directions as far as two numbers tell. "
                @if let Some([x, y]) = harvest.map_variance() {
                    "The axes hold " (format::percent(x + y)) " of the variance of these directions (" (format::percent(x)) " and "
                    (format::percent(y)) "). "
                }
                "Drag to move, scroll or press + and - to zoom; arrow keys go from point to point, and "
                "Enter opens the latent."
            }
            form.controls method="get" action="/map" {
                @if !harvest.address("", &[]).is_empty() { input type="hidden" name="dictionary" value=(harvest.named().name); }
                select name="column" aria-label="Column that colours the points" data-submit {
                    @for of in there { option value=(of.name) selected[of.name == column.name] { "coloured by " (of.title) } }
                }
                button type="submit" { "Colour" }
            }
            div.map data-map=(harvest.address("/api/map", &[("column", column.name)])) data-latent=(harvest.address("/latent/ID", &[])) {
                canvas tabindex="0" role="application" aria-label="Map of latents; arrow keys go from point to point" aria-describedby="map-point" {}
                p #map-point role="status" aria-live="polite" { "The map is drawn by a script." }
                div.legend hidden { span.low {} canvas.scale width="160" height="10" aria-hidden="true" {} span.high {} }
            }
        } @else {
            p.muted { "This run was made without a map: its table of latents has no coordinates." }
        }
        p { a href=(harvest.address("/", &[("sort", column.name)])) { "The same as a list, sorted by " (column.title) } }
    };
    shell("Map", frame, &content)
}
