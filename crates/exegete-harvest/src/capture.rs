//! Activations of windows at sites, by the model.
//!
//! The model always runs batches of one shape, padded, so that a row's bits do not depend on what else is in the batch.

use exegete_base::Site;
use exegete_model::{Batch, Hooks, Logits, Model};
use exegete_tensor::{Tape, f32s};

use crate::rows::WindowRows;
use crate::{HarvestError, Result};

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
        // Short windows and missing rows are padded with token 0 behind the text, which nothing before it can see.
        let mut ids = vec![0u32; BATCH * self.len];
        for (row, w) in ids.chunks_exact_mut(self.len).zip(windows) {
            row[..w.window.token_ids.len()].copy_from_slice(&w.window.token_ids);
        }
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
                check_finite(row, *d, *site, w)?;
                out.extend_from_slice(row);
            }
        }
        Ok(())
    }
}

/// Refuses rows of a window that are not finite.
fn check_finite(rows: &[f32], d: usize, site: Site, w: &WindowRows) -> Result<()> {
    let Some(at) = rows.iter().position(|x| !x.is_finite()) else { return Ok(()) };
    let doc = w.window.doc;
    Err(HarvestError::Request(format!(
        "activations at {site} are not finite: document {} of text file {}, position {} of the window that begins at its \
         token {}",
        doc.record_idx(),
        doc.source_idx(),
        at / d + 1,
        w.window.start,
    )))
}

#[cfg(test)]
mod tests {
    use exegete_base::{DocId, SiteKind};
    use exegete_store::Window;

    use super::*;

    #[test]
    fn the_first_activation_that_is_not_finite_is_placed() {
        let window = Window { doc: DocId::new(2, 7), window: 1, start: 40, token_ids: vec![0; 4] };
        let w = WindowRows { window, first: 90 };
        let site = Site::at(SiteKind::ResidPost, 3);
        assert!(check_finite(&[0.0; 6], 2, site, &w).is_ok());
        let said = check_finite(&[0.0, 1.0, 2.0, f32::NAN, f32::INFINITY, 0.0], 2, site, &w).unwrap_err().to_string();
        let place = "document 7 of text file 2, position 2 of the window that begins at its token 40";
        assert!(said.contains("blocks.3.hook_resid_post") && said.contains(place), "{said}");
    }
}
