//! Reading and writing at sites.

use std::collections::HashMap;
use std::sync::Arc;

use exegete_base::axes::Axis;
use exegete_base::{Site, SiteError};
use exegete_tensor::{Place, SiteFn, Tape, TensorError, Value};

use crate::batch::{Layout, Spot};
use crate::parts::{Part, Weight};
use crate::weights::Weights;
use crate::{ModelError, ModelSpec, Result};

/// Which positions an edit touches. Position 0 is a row's first token.
#[derive(Clone)]
pub enum Positions {
    /// Every position.
    All,
    /// These positions.
    At(Vec<usize>),
    /// Counted from the prompt's end: 1 is its last token.
    FromEnd(Vec<usize>),
    /// Where one of these tokens stands.
    Tokens(Vec<u32>),
    /// Where this is true.
    Where(Arc<dyn Fn(&Spot) -> bool + Send + Sync>),
}

impl Positions {
    fn contain(&self, spot: &Spot) -> bool {
        match self {
            Self::All => true,
            Self::At(list) => list.contains(&spot.position),
            Self::FromEnd(list) => spot.position < spot.prompt && list.contains(&(spot.prompt - spot.position)),
            Self::Tokens(ids) => ids.contains(&spot.id),
            Self::Where(f) => f(spot),
        }
    }
}

/// In which generation steps an edit acts. Step 0 runs the prompt, step i the i-th new token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Steps {
    /// In all.
    All,
    /// On the prompt alone.
    Prompt,
    /// On new tokens alone, every one.
    New,
    /// In these.
    At(Vec<usize>),
}

impl Steps {
    fn contain(&self, step: usize) -> bool {
        match self {
            Self::All => true,
            Self::Prompt => step == 0,
            Self::New => step > 0,
            Self::At(list) => list.contains(&step),
        }
    }
}

/// Writes a site: `f` is run on the chosen rows, and its result takes their place.
///
/// Whether a token is touched depends on the token alone, not on how the run is cut into steps, so generation with a
/// cache and recomputation without one see the same edits.
#[derive(Clone)]
pub struct Edit {
    /// The site.
    pub site: Site,
    /// Batch rows; all where `None`.
    pub rows: Option<Vec<usize>>,
    /// Positions.
    pub positions: Positions,
    /// Generation steps.
    pub steps: Steps,
    /// The function.
    pub f: Arc<dyn SiteFn>,
}

impl Edit {
    /// An edit of every row, position and step.
    pub fn everywhere(site: Site, f: Arc<dyn SiteFn>) -> Self {
        Self { site, rows: None, positions: Positions::All, steps: Steps::All, f }
    }

    /// The same at some positions only.
    #[must_use]
    pub fn at(self, positions: Positions) -> Self {
        Self { positions, ..self }
    }

    fn touches(&self, spot: &Spot) -> bool {
        self.rows.as_ref().is_none_or(|rows| rows.contains(&spot.row))
            && self.steps.contain(spot.step())
            && self.positions.contain(spot)
    }
}

/// What to read and write in one run. Edits come before taps at a site, and in the order in which they were added.
#[derive(Default)]
pub struct Hooks {
    edits: Vec<Edit>,
    /// Tokens that each edit has touched since the hooks were made.
    touched: Vec<usize>,
    taps: Vec<(Site, bool)>,
    /// Where the edits act and the taps read in the model of the last run, each site under its first name.
    edits_at: HashMap<Site, Vec<usize>>,
    taps_at: HashMap<Site, bool>,
    first_names: HashMap<Site, Site>,
    values: HashMap<Site, Value>,
    weights: HashMap<Weight, Option<Value>>,
    /// The last layer to run; no logits then.
    pub stop_after_layer: Option<usize>,
    /// Whether blocks that nothing is read from are computed again for the backward pass, instead of being kept: a
    /// block's inner values then exist one block at a time.
    pub recompute: bool,
}

impl Hooks {
    /// Nothing read, nothing written.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds an edit.
    #[must_use]
    pub fn edit(mut self, edit: Edit) -> Self {
        self.edits.push(edit);
        self.touched.push(0);
        self
    }

    /// Reads a site.
    #[must_use]
    pub fn tap(mut self, site: Site) -> Self {
        self.taps.push((site, false));
        self
    }

    /// Reads a site and lets gradients be asked for there.
    #[must_use]
    pub fn watch(mut self, site: Site) -> Self {
        self.taps.push((site, true));
        self
    }

    /// Lets the gradient of a weight be asked for.
    #[must_use]
    pub fn watch_weight(mut self, weight: Weight) -> Self {
        self.weights.insert(weight, None);
        self
    }

    /// Runs no layer after this one.
    #[must_use]
    pub fn stop_after(mut self, layer: usize) -> Self {
        self.stop_after_layer = Some(layer);
        self
    }

    /// Computes blocks again for the backward pass instead of keeping what is inside them.
    #[must_use]
    pub fn recomputing(mut self) -> Self {
        self.recompute = true;
        self
    }

    /// What the last run read at a site: the axes of the site table, or all tokens in one axis in place of batch and
    /// position where rows differ in length.
    pub fn value(&self, site: Site) -> Option<&Value> {
        self.values.get(self.first_names.get(&site).unwrap_or(&site))
    }

    /// The edits that have touched no token in any run so far: their positions, rows or steps did not come up.
    pub fn untouched(&self) -> impl Iterator<Item = &Edit> {
        self.edits.iter().zip(&self.touched).filter(|(_, n)| **n == 0).map(|(edit, _)| edit)
    }

    /// A watched weight as the last run used it, to ask its gradient by.
    pub fn weight(&self, weight: Weight) -> Option<&Value> {
        self.weights.get(&weight)?.as_ref()
    }

    /// Checks that every site exists in the model, and brings each under its first name.
    pub(crate) fn resolve(&mut self, spec: &ModelSpec) -> Result<()> {
        // A site that this run does not come to must not show what an earlier one read.
        self.values.clear();
        let (mut edits_at, mut taps_at, mut first_names) = (HashMap::new(), HashMap::new(), HashMap::new());
        for (i, edit) in self.edits.iter().enumerate() {
            edits_at.entry(spec.site(edit.site)?).or_insert_with(Vec::new).push(i);
        }
        for (site, watched) in &self.taps {
            let first = spec.site(*site)?;
            *taps_at.entry(first).or_insert(false) |= watched;
            first_names.insert(*site, first);
        }
        (self.edits_at, self.taps_at, self.first_names) = (edits_at, taps_at, first_names);
        Ok(())
    }

    /// Prepares the watched weights on a run's tape.
    pub(crate) fn watch_weights(&mut self, tape: &Tape, weights: &Weights, spec: &ModelSpec) -> Result<()> {
        for (weight, slot) in &mut self.weights {
            if spec.tied && weight.part == Part::Unembed {
                return Err(ModelError::Request("the unembedding is the embedding here; watch embed".into()));
            }
            *slot = Some(tape.watch(&weights.value(*weight)?));
        }
        Ok(())
    }

    /// Whether a backward pass will be asked for.
    pub(crate) fn records(&self) -> bool {
        !self.weights.is_empty() || self.taps.iter().any(|(_, watched)| *watched)
    }

    /// The sites that are read.
    pub(crate) fn tapped(&self) -> impl Iterator<Item = Site> {
        self.taps_at.keys().copied()
    }

    /// Whether anything happens at a site.
    pub(crate) fn wants(&self, site: Site) -> bool {
        self.edits_at.contains_key(&site) || self.taps_at.contains_key(&site)
    }

    /// Whether anything is read in a layer, or a weight of it is watched.
    pub(crate) fn looks_into(&self, layer: usize) -> bool {
        self.taps_at.keys().any(|s| s.layer == Some(layer)) || self.weights.keys().any(|w| w.layer == Some(layer))
    }

    /// The edits of one layer alone, for a block that is run again.
    pub(crate) fn edits_of(&self, layer: usize) -> Self {
        let mut sites: Vec<(&Site, &Vec<usize>)> =
            self.edits_at.iter().filter(|(site, _)| site.layer == Some(layer)).collect();
        sites.sort();
        let (mut edits, mut edits_at) = (Vec::new(), HashMap::new());
        for (site, list) in sites {
            let from = edits.len();
            edits.extend(list.iter().map(|i| self.edits[*i].clone()));
            edits_at.insert(*site, (from..edits.len()).collect());
        }
        let touched = vec![0; edits.len()];
        Self { edits, touched, edits_at, ..Self::default() }
    }

    /// Passes a value through a site. `x` is `[N, width]`, the site's inner axes joined.
    pub(crate) fn visit(&mut self, at: &Visit, site: Site, x: Value) -> Result<Value> {
        let (n, n_keys) = (at.layout.spots.len(), at.layout.n_keys());
        let width = at.spec.site_width(site, n_keys);
        if x.tensor().dims() != [n, width] {
            let detail = format!("{site} is {:?}, the site table says [{n}, {width}]", x.tensor().dims());
            return Err(TensorError::shape("visit", detail).into());
        }
        if !self.wants(site) {
            return Ok(x);
        }
        let mut x = x;
        for i in self.edits_at.get(&site).into_iter().flatten() {
            let edit = &self.edits[*i];
            let (rows, places) = at.select(edit);
            if !rows.is_empty() {
                self.touched[*i] += rows.len();
                x = at.tape.edit(&x, width, &edit.f, &rows, &places)?;
            }
        }
        if let Some(watched) = self.taps_at.get(&site) {
            let inner = site.kind.row().axes.iter().filter_map(|axis| match axis {
                Axis::Keys => Some(n_keys),
                other => at.spec.axis_len(*other),
            });
            let dims: Vec<usize> = at.layout.dims().into_iter().chain(inner).collect();
            let mut kept = at.tape.reshape(&x, &dims)?;
            if *watched {
                // What is kept lies on the path to the result, so that its gradient can be asked for.
                kept = at.tape.watch(&kept);
                x = at.tape.reshape(&kept, &[n, width])?;
            }
            self.values.insert(site, kept);
        }
        Ok(x)
    }
}

/// Where a run is when it visits a site.
pub(crate) struct Visit<'a> {
    pub(crate) tape: &'a Tape,
    pub(crate) spec: &'a ModelSpec,
    pub(crate) layout: &'a Layout,
}

impl Visit<'_> {
    /// Token numbers that an edit touches in this run, with their places.
    fn select(&self, edit: &Edit) -> (Vec<usize>, Vec<Place>) {
        let touched = self.layout.spots.iter().enumerate().filter(|(_, spot)| edit.touches(spot));
        touched.map(|(i, spot)| (i, Place { row: spot.row, position: spot.position })).unzip()
    }
}

/// A site by its name in a model: our name, an alias, or an error that lists what is near.
///
/// # Errors
/// An unknown name, a layer or point that the model does not have.
pub fn site_named(spec: &ModelSpec, name: &str) -> std::result::Result<Site, SiteError> {
    spec.site(name.parse()?)
}
