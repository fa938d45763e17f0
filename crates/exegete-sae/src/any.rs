//! A dictionary of either form, as files hold them.

use std::ops::Deref;

use crate::{CrossLayer, Dictionary, Result, Sae, SaeError};

/// A dictionary that was read, or is to be written.
#[derive(Debug, Clone, PartialEq)]
pub enum AnyDictionary {
    /// One linear encoder: an autoencoder, a crosscoder (of sites behind each other) or a transcoder.
    Sae(Sae),
    /// A cross-layer transcoder.
    CrossLayer(CrossLayer),
}

impl AnyDictionary {
    /// Checks the arrays against each other.
    ///
    /// # Errors
    /// Those of [`Sae::check`] and [`CrossLayer::check`].
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Sae(sae) => sae.check(),
            Self::CrossLayer(layers) => layers.check(),
        }
    }

    /// It with the thresholds that its ranks come to on these inputs.
    ///
    /// # Errors
    /// Those of [`Sae::calibrated`].
    pub fn calibrated(self, x_ND: &[f32]) -> Result<Self> {
        Ok(match self {
            Self::Sae(sae) => sae.calibrated(x_ND)?.into(),
            Self::CrossLayer(layers) => layers.calibrated(x_ND)?.into(),
        })
    }

    /// Takes in factors of sites, see [`Sae::fold_site_factors`].
    pub fn fold_site_factors(&mut self, reads: &[f32], writes: &[f32]) {
        match self {
            Self::Sae(sae) => sae.fold_site_factors(reads, writes),
            Self::CrossLayer(layers) => layers.fold_site_factors(reads, writes),
        }
    }

    /// Its encoders with what belongs to them: one, or one a layer.
    pub fn encoders(&self) -> &[Sae] {
        match self {
            Self::Sae(sae) => std::slice::from_ref(sae),
            Self::CrossLayer(all) => &all.layers,
        }
    }

    /// The dictionary of one encoder.
    ///
    /// # Errors
    /// It is a cross-layer transcoder.
    pub fn sae(&self) -> Result<&Sae> {
        match self {
            Self::Sae(sae) => Ok(sae),
            Self::CrossLayer(_) => Err(not_one()),
        }
    }

    /// The dictionary of one encoder.
    ///
    /// # Errors
    /// It is a cross-layer transcoder.
    pub fn into_sae(self) -> Result<Sae> {
        match self {
            Self::Sae(sae) => Ok(sae),
            Self::CrossLayer(_) => Err(not_one()),
        }
    }
}

fn not_one() -> SaeError {
    SaeError::Shape(
        "this is a cross-layer transcoder, and what was asked for is done with the dictionary of a single encoder"
            .into(),
    )
}

impl From<Sae> for AnyDictionary {
    fn from(sae: Sae) -> Self {
        Self::Sae(sae)
    }
}

impl From<CrossLayer> for AnyDictionary {
    fn from(layers: CrossLayer) -> Self {
        Self::CrossLayer(layers)
    }
}

impl Deref for AnyDictionary {
    type Target = dyn Dictionary;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Sae(sae) => sae,
            Self::CrossLayer(layers) => layers,
        }
    }
}
