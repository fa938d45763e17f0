//! What can be done to an activation: a function with a backward pass.

use candle_core::Tensor;

use crate::Result;

/// Where a row of activations comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Row of the batch.
    pub row: usize,
    /// Absolute position in the sequence.
    pub position: usize,
}

/// A function applied to activations at a site: an edit, or a dictionary's reconstruction.
pub trait SiteFn {
    /// New values for the selected rows.
    ///
    /// # Shapes
    /// `x_ND -> x'_ND; places has N entries.`
    ///
    /// # Errors
    /// Those of the operations it is made of.
    fn forward(&self, x_ND: &Tensor, places: &[Place]) -> Result<Tensor>;

    /// Gradient with respect to `x_ND`, given that of the result.
    ///
    /// # Errors
    /// Those of the operations it is made of.
    fn backward(&self, x_ND: &Tensor, places: &[Place], grad_ND: &Tensor) -> Result<Tensor>;
}
