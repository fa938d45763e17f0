//! Boxes in which a text is tried. The script puts what the model that is at hand answers beneath them.

use maud::{Markup, html};

use super::pieces::shaded;
use super::{Frame, shell};
use crate::format;
use crate::harvest::Harvest;
use crate::wire::TriedText;

/// A text on one latent.
pub(super) fn try_one(harvest: &Harvest, latent: u32, back: &str) -> Markup {
    html! {
        section #try {
            h2 { "Try a text" }
            form.try method="post" action=(harvest.address(&format!("/api/try/latent/{latent}"), &[])) {
                input type="hidden" name="back" value=(back);
                textarea name="text" rows="2" maxlength="4000" required aria-label="Text to try on this latent" placeholder="Type a text to see where this latent fires" {}
                button.plain-button type="submit" { "Run" }
            }
            div.tried role="status" aria-live="polite" {}
        }
    }
}

/// The answer to a text on one latent, whose deepest shade is its largest activation in the run or here.
pub(crate) fn tried(frame: &Frame, harvest: &Harvest, tried: &TriedText, max: f32) -> Markup {
    let strongest = tried.tokens.iter().filter_map(|token| token.value).fold(0.0, f32::max);
    let content = html! {
        nav.steps { a href=(harvest.address(&format!("/latent/{}", tried.latent), &[])) { "Latent " (tried.latent) } }
        h1 { "A text that was tried" }
        div.tried {
            p.text dir="auto" {
                @for (idx, token) in tried.tokens.iter().enumerate() {
                    @let told = token.value.map(|value| value.to_string());
                    (shaded(&token.text, token.value.unwrap_or(0.0), max.max(strongest), false, idx == 0, told.as_deref()))
                }
            }
            p.note {
                @if strongest > 0.0 { "Strongest: " (format::significant(strongest.into())) } @else { "It does not fire." }
            }
        }
    };
    shell(&format!("A text on {}", tried.latent), frame, &content)
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
