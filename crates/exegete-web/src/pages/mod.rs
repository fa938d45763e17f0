//! The pages, as markup. All text is escaped by maud; only our own SVG figures pass as they are.

mod compare;
mod examples;
mod frame;
mod home;
mod jobs;
mod latent;
mod lens;
mod map;
pub(crate) mod panels;
pub(crate) mod pieces;
mod rate;
pub(crate) mod said;
pub(crate) mod scored;
mod training;
mod trying;
mod whole;

pub(crate) use compare::compare;
pub(crate) use examples::context;
pub(crate) use frame::Frame;
pub(crate) use home::home;
pub(crate) use jobs::jobs;
pub(crate) use latent::latent;
pub use lens::lens_page;
pub(crate) use map::map;
pub(crate) use rate::rate;
pub(crate) use training::training;
pub(crate) use trying::{tried, try_it};

use maud::{Markup, html};

use frame::shell;
use pieces::figure;

/// Text as a part of an address.
pub(crate) fn percent_encoded(text: &str) -> String {
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
    shell(title, &Frame::default(), &content)
}
