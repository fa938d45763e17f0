//! Interpretability methods, one file (or folder) each, one line each in [`METHODS`].
#![deny(missing_docs)]

pub mod adapter;
pub mod direction;
mod error;
pub mod lens;
pub mod self_explain;

pub use error::MethodError;

/// Result of this crate's operations.
pub type Result<T> = std::result::Result<T, MethodError>;

/// One line of the table of methods.
pub struct Method {
    /// Its name on the command line and in the notes of a run.
    pub name: &'static str,
    /// What it answers.
    pub question: &'static str,
    /// What stands beside its result, so that the result can be believed.
    pub control: &'static str,
}

/// The line of a method.
pub fn method(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|m| m.name == name)
}

/// Every method.
pub const METHODS: &[Method] = &[
    Method {
        name: lens::NAME,
        question: "what would each layer say, if it were the last?",
        control: "the same distributions compared with the final one of another position",
    },
    Method {
        name: self_explain::NAME,
        question: "what does the model itself say a direction means?",
        control: "random directions of the same length, put through the same choice",
    },
    Method {
        name: adapter::NAME,
        question: "what does the model itself say a direction means, where a small map has learnt how to insert it?",
        control: "the loss of what is said where every direction is another one's",
    },
];
