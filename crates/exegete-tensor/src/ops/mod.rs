//! Ops of the tape: each file checks shapes, runs a kernel of [`crate::cpu`], and knows its backward pass.

pub(crate) mod attention;
pub(crate) mod edit;
pub(crate) mod elementwise;
pub(crate) mod embedding;
pub(crate) mod linear;
pub(crate) mod loss;
pub(crate) mod mixture;
pub(crate) mod norm;
pub(crate) mod recompute;
pub(crate) mod rope;

use candle_core::Tensor;

use crate::{Result, TensorError};

/// Rows and width of a tensor whose last axis is `d`, all others flattened.
fn rows_of(op: &'static str, x: &Tensor, d: usize) -> Result<usize> {
    match x.dims().last() {
        Some(last) if *last == d && d > 0 => Ok(x.elem_count() / d),
        _ => Err(TensorError::shape(op, format!("last axis {d} is needed, got {:?}", x.dims()))),
    }
}

/// The dims of `x` with another last axis.
fn with_last(x: &Tensor, last: usize) -> Vec<usize> {
    let mut dims = x.dims().to_vec();
    if let Some(d) = dims.last_mut() {
        *d = last;
    }
    dims
}
