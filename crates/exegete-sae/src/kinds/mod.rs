//! Kinds of dictionaries, one file each.

mod topk;

pub(crate) use topk::pre_activations;

pub use topk::TopK;
