//! Reading and writing at sites.

use std::collections::HashMap;
use std::sync::Arc;

use exegete_base::Site;
use exegete_base::axes::Axis;
use exegete_tensor::{Place, SiteFn, Tape, TensorError, Value};

use crate::{Batch, ModelSpec, Result};

/// Reads a site.
#[derive(Debug, Clone)]
pub struct Tap {
    /// The site.
    pub site: Site,
    /// Whether gradients may be asked for here.
    pub watched: bool,
}

/// Which positions an edit touches. Position 0 is a row's first token, whatever padding stands before it.
#[derive(Debug, Clone, PartialEq)]
pub enum Positions {
    /// Every position.
    All,
    /// These positions.
    At(Vec<usize>),
}

/// Writes a site: `f` is run on the chosen rows, and its result takes their place.
#[derive(Clone)]
pub struct Edit {
    /// The site.
    pub site: Site,
    /// Batch rows; all where `None`.
    pub rows: Option<Vec<usize>>,
    /// Positions.
    pub positions: Positions,
    /// The function.
    pub f: Arc<dyn SiteFn>,
}

impl Edit {
    /// An edit of every row and position.
    pub fn everywhere(site: Site, f: Arc<dyn SiteFn>) -> Self {
        Self { site, rows: None, positions: Positions::All, f }
    }
}

/// What to read and write in one run. Edits come before taps at a site, and in their order.
#[derive(Default)]
pub struct Hooks {
    edits: HashMap<Site, Vec<Edit>>,
    taps: HashMap<Site, bool>,
    values: HashMap<Site, Value>,
    /// The last layer to run; no logits then.
    pub stop_after_layer: Option<usize>,
}

impl Hooks {
    /// Nothing read, nothing written.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds an edit.
    #[must_use]
    pub fn edit(mut self, edit: Edit) -> Self {
        self.edits.entry(edit.site).or_default().push(edit);
        self
    }

    /// Reads a site.
    #[must_use]
    pub fn tap(mut self, site: Site) -> Self {
        self.taps.entry(site).or_default();
        self
    }

    /// Reads a site and lets gradients be asked for there.
    #[must_use]
    pub fn watch(mut self, site: Site) -> Self {
        self.taps.insert(site, true);
        self
    }

    /// Runs no layer after this one.
    #[must_use]
    pub fn stop_after(mut self, layer: usize) -> Self {
        self.stop_after_layer = Some(layer);
        self
    }

    /// What the last run read at a site, in the axes of the site table.
    pub fn value(&self, site: Site) -> Option<&Value> {
        self.values.get(&site)
    }

    /// Checks that every site exists in the model.
    pub(crate) fn check(&self, spec: &ModelSpec) -> Result<()> {
        for site in self.edits.keys().chain(self.taps.keys()) {
            site.check(spec.n_layers)?;
        }
        Ok(())
    }

    /// Passes a value through a site. `x` is `[B, T, width]`, the site's inner axes joined.
    pub(crate) fn visit(&mut self, at: &mut Visit, site: Site, x: Value) -> Result<Value> {
        let width = at.spec.site_width(site);
        if x.tensor().dims() != [at.batch.n_rows, at.batch.len, width] {
            let detail = format!(
                "{:?}, the site table says [{}, {}, {width}]",
                x.tensor().dims(),
                at.batch.n_rows,
                at.batch.len
            );
            return Err(TensorError::shape("visit", format!("{site} is {detail}")).into());
        }
        if self.edits.is_empty() && self.taps.is_empty() {
            return Ok(x);
        }
        let mut x = x;
        for edit in self.edits.get(&site).into_iter().flatten() {
            let (rows, places) = at.select(edit);
            if !rows.is_empty() {
                x = at.tape.edit(&x, width, &edit.f, &rows, &places)?;
            }
        }
        if let Some(watched) = self.taps.get(&site) {
            if *watched {
                x = at.tape.watch(&x);
            }
            let axes = site.kind.row().axes;
            let dims: Vec<usize> = axes
                .iter()
                .map(|axis| match axis {
                    Axis::Batch => at.batch.n_rows,
                    Axis::Position => at.batch.len,
                    other => at.spec.axis_len(*other).unwrap_or(1),
                })
                .collect();
            // A watched value is kept as it is: a reshaped copy would be another node, off the path.
            let kept = if *watched || dims.len() == 3 { x.clone() } else { at.tape.reshape(&x, &dims)? };
            self.values.insert(site, kept);
        }
        Ok(x)
    }
}

/// Where a run is when it visits a site.
pub(crate) struct Visit<'a> {
    pub(crate) tape: &'a Tape,
    pub(crate) spec: &'a ModelSpec,
    pub(crate) batch: &'a Batch,
    /// Positions before this run's first one (in the cache).
    pub(crate) past: usize,
}

impl Visit<'_> {
    /// Flattened row numbers that an edit touches in this run, with their places.
    fn select(&self, edit: &Edit) -> (Vec<usize>, Vec<Place>) {
        let (mut rows, mut places) = (Vec::new(), Vec::new());
        for row in 0..self.batch.n_rows {
            if edit.rows.as_ref().is_some_and(|chosen| !chosen.contains(&row)) {
                continue;
            }
            for t in 0..self.batch.len {
                let Some(position) = (self.past + t).checked_sub(self.batch.start(row)) else { continue };
                if matches!(&edit.positions, Positions::At(chosen) if !chosen.contains(&position)) {
                    continue;
                }
                rows.push(row * self.batch.len + t);
                places.push(Place { row, position });
            }
        }
        (rows, places)
    }
}
