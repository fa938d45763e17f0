//! Layers together or one by one: reading all of them with the lens, and laying out the weights.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use exegete_base::{Site, SiteKind};
use exegete_model::{Hooks, Logits, Model, Part};
use exegete_tensor::{Keep, Matrix, Stack, Tape, Value, f32s, tensor};

use super::Case;
use super::runtime::tokens;

/// Positions that the lens reads, in each layer.
const POSITIONS: usize = 32;
/// A part of the values is enough to see that two ways compute the same.
const SAMPLED: usize = 101;

/// Logits of every layer's residuals: in one product for all layers, or in one for each layer.
pub(super) struct Lens {
    model: Model,
    layers: Vec<Vec<f32>>,
    together: bool,
    logits: Vec<Value>,
}

impl Lens {
    pub(super) fn new(model: Model, together: bool) -> Result<Self> {
        let sites: Vec<Site> = (0..model.spec.n_layers).map(|l| Site::at(SiteKind::ResidPost, l)).collect();
        let mut hooks = sites.iter().fold(Hooks::none(), |hooks, site| hooks.tap(*site));
        model.run(&Tape::new(), &tokens(1, POSITIONS), None, &mut hooks, Logits::None)?;
        let read = |site: &Site| Ok(f32s(hooks.value(*site).context("a site was not read")?.tensor())?.to_vec());
        let layers = sites.iter().map(read).collect::<Result<_>>()?;
        Ok(Self { model, layers, together, logits: Vec::new() })
    }
}

impl Case for Lens {
    fn run(&mut self) -> Result<f64> {
        self.logits.clear();
        let d = self.model.spec.d_model;
        let start = Instant::now();
        // As the lens does it, the copy into one tensor is part of it.
        let stacked = if self.together { vec![self.layers.concat()] } else { self.layers.clone() };
        for resid in stacked {
            let n = resid.len() / d;
            let resid = tensor(resid, (n, d))?.into();
            self.logits.push(self.model.unembed(&Tape::new(), &resid)?);
        }
        Ok(start.elapsed().as_secs_f64())
    }

    fn result(&mut self) -> Result<Vec<f32>> {
        let mut all = Vec::new();
        for logits in &self.logits {
            all.extend_from_slice(&f32s(logits.tensor())?);
        }
        Ok(all.into_iter().step_by(SAMPLED).collect())
    }
}

/// The model's matrices, decoded before the clock starts, put into panels: in one stack for all layers of a kind, or in
/// one for each layer.
pub(super) struct Stacks {
    kinds: BTreeMap<Part, Vec<Vec<f32>>>,
    shapes: BTreeMap<Part, (usize, usize)>,
    together: bool,
    built: Vec<Matrix>,
}

impl Stacks {
    pub(super) fn new(model: &Model, together: bool) -> Result<Self> {
        let (mut kinds, mut shapes) = (BTreeMap::<Part, Vec<Vec<f32>>>::new(), BTreeMap::new());
        for w in model.spec.weights() {
            let Some(matrix) = model.weights.matrix(w) else { continue };
            // A row at a time is slow to decode and not timed.
            let mut values = vec![0f32; matrix.n() * matrix.k()];
            matrix.rows(0..matrix.n(), &mut values);
            shapes.insert(w.part, (matrix.n(), matrix.k()));
            kinds.entry(w.part).or_default().push(values);
        }
        Ok(Self { kinds, shapes, together, built: Vec::new() })
    }
}

impl Case for Stacks {
    fn run(&mut self) -> Result<f64> {
        self.built.clear();
        let start = Instant::now();
        for (part, layers) in &self.kinds {
            let (n, k) = self.shapes[part];
            for layers in if self.together { layers.chunks(layers.len()) } else { layers.chunks(1) } {
                let mut stack = Stack::new(Keep::F32, layers.len(), n, k);
                layers.iter().enumerate().for_each(|(l, values)| stack.fill(l, 0, values));
                let stack = Arc::new(stack);
                self.built.extend((0..layers.len()).map(|l| Matrix::new(stack.clone(), l)));
            }
        }
        Ok(start.elapsed().as_secs_f64())
    }

    /// The first row of each matrix.
    fn result(&mut self) -> Result<Vec<f32>> {
        let first = |m: &Matrix| {
            let mut row = vec![0f32; m.k()];
            m.row(0, &mut row);
            row
        };
        Ok(self.built.iter().flat_map(first).collect())
    }
}
