//! The pages, as markup. All text is escaped by maud; only our own SVG figures pass as they are.

mod home;
mod latent;
mod lens;
mod training;

pub(crate) use home::home;
pub(crate) use latent::latent;
pub use lens::lens_page;
pub(crate) use training::training;

use exegete_figure::Result as FigureResult;
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// A whole page around its content.
fn shell(title: &str, run_name: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · exegete" }
                link rel="icon" href="/static/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/static/style.css";
                script src="/static/app.js" defer {}
            }
            body {
                header.top {
                    a.brand href="/" { "exegete" }
                    @if !run_name.is_empty() { span.run { (run_name) } }
                }
                main { (content) }
            }
        }
    }
}

/// A figure, or why it is missing.
fn figure(svg: FigureResult<String>) -> Markup {
    match svg {
        Ok(svg) => PreEscaped(svg),
        Err(error) => html! { p.muted { "No figure: " (error) } },
    }
}

/// Text as a part of an address.
fn percent_encoded(text: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    text.bytes().map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// The page for what does not exist.
pub(crate) fn not_found(message: &str) -> Markup {
    notice("Not found", message)
}

/// The page for what went wrong.
pub(crate) fn failed(message: &str) -> Markup {
    notice("This page cannot be shown", message)
}

fn notice(title: &str, message: &str) -> Markup {
    let content = html! {
        section.notice {
            h1 { (title) }
            p { (message) }
            p { a href="/" { "To the first page" } }
        }
    };
    shell(title, "", &content)
}
