//! The table of kinds of documents.

use super::doc::Doc;
use super::{chat, choice, grammar, stories, tasks, telling};

/// A kind of document.
pub struct DocumentKind {
    /// Its name.
    pub name: &'static str,
    /// How often it comes, among all weights.
    pub weight: u32,
    /// The same in the last part of a training, where what is learnt slowly comes more often.
    pub late: u32,
    /// Writes one.
    pub(crate) write: fn(&mut Doc),
}

/// How often kinds of documents come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// As in the language.
    Usual,
    /// As in the last part of a training.
    Late,
}

/// All kinds.
pub const KINDS_OF_DOCUMENTS: [DocumentKind; 11] = [
    DocumentKind { name: "story", weight: 16, late: 16, write: stories::english },
    DocumentKind { name: "lumi-story", weight: 14, late: 14, write: stories::lumi },
    DocumentKind { name: "parallel", weight: 14, late: 14, write: stories::parallel },
    DocumentKind { name: "encyclopaedia", weight: 14, late: 14, write: telling::encyclopaedia },
    DocumentKind { name: "dictionary", weight: 16, late: 16, write: telling::dictionary },
    DocumentKind { name: "task", weight: 36, late: 36, write: tasks::write },
    DocumentKind { name: "chat", weight: 12, late: 12, write: chat::questions },
    DocumentKind { name: "request", weight: 8, late: 8, write: chat::requests },
    DocumentKind { name: "opinion", weight: 10, late: 70, write: chat::opinions },
    DocumentKind { name: "choice", weight: 16, late: 16, write: choice::write },
    DocumentKind { name: "grammar", weight: 8, late: 20, write: grammar::write },
];
