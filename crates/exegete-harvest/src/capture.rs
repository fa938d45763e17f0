//! Activations of windows at sites, by the model.
//!
//! The model always runs batches of one shape, padded, so that a row's bits do not depend on what else is in the batch.

use exegete_base::{DocId, Site};
use exegete_model::{Batch, Hooks, Logits, Model};
use exegete_tensor::{Tape, f32s};

use crate::rows::WindowRows;
use crate::{HarvestError, Result};

/// The largest size of an activation: the squares of some larger ones have no sum that f32 can hold.
const LARGEST: f32 = 1e16;
/// Windows in a batch of the model.
pub(crate) const BATCH: usize = 8;

/// A model with the sites that are read of it.
pub(crate) struct Capture<'m> {
    model: &'m Model,
    sites: Vec<Site>,
    widths: Vec<usize>,
    /// Tokens of the longest window.
    len: usize,
}

impl<'m> Capture<'m> {
    /// Reads `sites` over windows of at most `len` tokens.
    ///
    /// # Errors
    /// Sites that the model does not have.
    pub(crate) fn new(model: &'m Model, sites: &[Site], len: usize) -> Result<Self> {
        let named = |site: &Site| model.spec.site(*site).map_err(exegete_model::ModelError::from);
        let sites: Vec<Site> = sites.iter().map(named).collect::<std::result::Result<_, _>>()?;
        let widths = sites.iter().map(|site| model.spec.site_width(*site, 0)).collect();
        Ok(Self { model, sites, widths, len })
    }

    /// Width of each site.
    pub(crate) fn widths(&self) -> &[usize] {
        &self.widths
    }

    /// Appends the activations of at most [`BATCH`] windows, position 0 left out, to one array a site.
    ///
    /// # Errors
    /// The model's; activations that are not finite, with the document and the position of the first.
    pub(crate) fn append(&self, windows: &[&WindowRows], out: &mut [Vec<f32>]) -> Result<()> {
        let ids = padded(windows, self.len);
        let mut hooks = self.sites.iter().fold(Hooks::none(), |hooks, site| hooks.tap(*site));
        let last = self.sites.iter().map(|site| site.layer).collect::<Option<Vec<usize>>>();
        hooks.stop_after_layer = last.and_then(|layers| layers.into_iter().max());
        let logits = if hooks.stop_after_layer.is_none() { Logits::All } else { Logits::None };
        self.model.run(&Tape::new(), &Batch::uniform(ids, BATCH), None, &mut hooks, logits)?;
        for ((site, d), out) in self.sites.iter().zip(&self.widths).zip(out) {
            let value = hooks.value(*site).ok_or_else(|| HarvestError::Request(format!("{site} was not reached")))?;
            let values = f32s(value.tensor())?;
            for (row, w) in values.chunks_exact(self.len * d).zip(windows) {
                let row = &row[*d..w.window.token_ids.len() * d];
                check_finite((row, *d, 1), &[*site], w.window.doc, w.window.start)?;
                out.extend_from_slice(row);
            }
        }
        Ok(())
    }
}

/// The tokens of at most [`BATCH`] windows, each of `len`: short windows and missing rows are padded with token 0 behind the text,
/// which nothing before it can see.
pub(crate) fn padded(windows: &[&WindowRows], len: usize) -> Vec<u32> {
    let mut ids = vec![0u32; BATCH * len];
    for (row, w) in ids.chunks_exact_mut(len).zip(windows) {
        row[..w.window.token_ids.len()].copy_from_slice(&w.window.token_ids);
    }
    ids
}

/// Checks activations of a window that begins at token `start` of a document: of sites behind each other, `d` values together,
/// from position `first` of the window on.
///
/// # Errors
/// A value that is not finite, or too large, with its site, document and position.
pub(crate) fn check_finite(
    (x_ND, d, first): (&[f32], usize, usize),
    sites: &[Site],
    doc: DocId,
    start: u64,
) -> Result<()> {
    let Some(at) = x_ND.iter().position(|x| x.is_nan() || x.abs() > LARGEST) else { return Ok(()) };
    let site = sites[at % d * sites.len() / d];
    let how = if x_ND[at].is_finite() { format!("too large ({:e})", x_ND[at]) } else { "not finite".into() };
    Err(HarvestError::Request(format!(
        "activations at {site} are {how}: document {} of text file {}, position {} of the window that begins at its \
         token {start}",
        doc.record_idx(),
        doc.source_idx(),
        first + at / d,
    )))
}

#[cfg(test)]
mod tests {
    use exegete_base::SiteKind;

    use super::*;

    #[test]
    fn the_first_activation_that_is_not_finite_is_placed() {
        let sites = [3, 4].map(|layer| Site::at(SiteKind::ResidPost, layer));
        let check = |x: &[f32]| check_finite((x, 2, 1), &sites, DocId::new(2, 7), 40);
        assert!(check(&[0.0; 6]).is_ok());
        let said = check(&[0.0, 1.0, 2.0, f32::NAN, f32::INFINITY, 0.0]).unwrap_err().to_string();
        let place = "document 7 of text file 2, position 2 of the window that begins at its token 40";
        assert!(said.contains("blocks.4.hook_resid_post") && said.contains(place), "{said}");
        let said = check(&[0.0, 1.0, -3e38, 0.0]).unwrap_err().to_string();
        assert!(said.contains("blocks.3.hook_resid_post are too large (-3e38): document 7"), "{said}");
    }
}
