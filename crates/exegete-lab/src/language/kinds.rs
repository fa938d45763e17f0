//! The table of kinds of documents.

use super::doc::Doc;
use super::{chat, choice, grammar, stories, tasks, telling};

/// A kind of document.
pub struct DocumentKind {
    /// Its name.
    pub name: &'static str,
    /// How often it comes, among all weights.
    pub weight: u32,
    /// Writes one.
    pub(crate) write: fn(&mut Doc),
}

/// All kinds.
pub const KINDS_OF_DOCUMENTS: [DocumentKind; 11] = [
    DocumentKind { name: "story", weight: 16, write: stories::english },
    DocumentKind { name: "lumi-story", weight: 14, write: stories::lumi },
    DocumentKind { name: "parallel", weight: 14, write: stories::parallel },
    DocumentKind { name: "encyclopaedia", weight: 14, write: telling::encyclopaedia },
    DocumentKind { name: "dictionary", weight: 16, write: telling::dictionary },
    DocumentKind { name: "task", weight: 36, write: tasks::write },
    DocumentKind { name: "chat", weight: 12, write: chat::questions },
    DocumentKind { name: "request", weight: 8, write: chat::requests },
    DocumentKind { name: "opinion", weight: 10, write: chat::opinions },
    DocumentKind { name: "choice", weight: 16, write: choice::write },
    DocumentKind { name: "grammar", weight: 8, write: grammar::write },
];
