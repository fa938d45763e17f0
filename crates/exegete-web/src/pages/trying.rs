//! Boxes in which a text is tried. The script asks the model that is at hand.

use maud::{Markup, html};

use super::{Frame, shell};
use crate::harvest::Harvest;

/// A text on one latent.
pub(super) fn try_one(harvest: &Harvest, latent: u32, max: f32) -> Markup {
    html! {
        section #try {
            h2 { "Try a text" }
            form.try data-try=(harvest.address(&format!("/api/try/latent/{latent}"), &[])) data-max=(max) {
                textarea name="text" rows="2" maxlength="4000" required aria-label="Text to try on this latent" placeholder="Type a text to see where this latent fires" {}
                button.plain-button type="submit" { "Run" }
            }
            div.tried role="status" aria-live="polite" {}
        }
    }
}

/// The page on which it is asked which latents fire on a text.
pub(crate) fn try_it(frame: &Frame, harvest: &Harvest, text: &str, order: &str, position: &str) -> Markup {
    let orders = [
        ("activation", "by activation"),
        ("quantile", "by how rare so strong a firing is"),
        ("effect", "by effect on the next token's logit"),
    ];
    let content = html! {
        h1 { "Which latents fire on a text" }
        form.try data-try=(harvest.address("/api/try/latents", &[])) data-latent=(harvest.address("/latent/ID", &[])) data-keep {
            input type="hidden" name="position" value=(position);
            textarea name="text" rows="3" maxlength="4000" required aria-label="Text to try" placeholder="Type a text" { (text) }
            select name="order" aria-label="Order of the latents" {
                @for (value, name) in orders { option value=(value) selected[value == order] { (name) } }
            }
            button.plain-button type="submit" { "Run" }
        }
        div.tried role="status" aria-live="polite" {}
    };
    shell("Try a text", frame, &content)
}
