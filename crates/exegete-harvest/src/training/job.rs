//! What is to be trained: settings, and the sites that they speak of.

use exegete_base::settings::{Activation, KthForm, TrainSettings};
use exegete_base::{Site, SiteKind};
use exegete_model::{ModelSpec, site_named};
use serde_json::{Value, json};

use super::{DIR, STAGE};
use crate::{HarvestError, Result};

/// A dictionary to be trained.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its name in a grid; none for a run's only one.
    pub name: Option<String>,
    /// How it is trained.
    pub settings: TrainSettings,
    /// Seed of its first weights.
    pub seed: u64,
}

impl Job {
    /// Where it lies in the run.
    pub fn dir(&self) -> String {
        self.name.as_ref().map_or(DIR.into(), |name| format!("{DIR}/{name}"))
    }

    /// Its stage's name in the manifest.
    pub fn stage(&self) -> String {
        self.name.as_ref().map_or(STAGE.into(), |name| format!("{STAGE}/{name}"))
    }

    /// An error about it.
    pub(super) fn fault(&self, detail: &str) -> HarvestError {
        HarvestError::Request(self.said(detail))
    }

    /// A sentence about it.
    pub(super) fn said(&self, text: &str) -> String {
        match &self.name {
            Some(name) => format!("dictionary {name:?}: {text}"),
            None => text.into(),
        }
    }

    /// The sites that it reads and writes in a model.
    ///
    /// # Errors
    /// Sites that the model does not have, or that do not go together.
    pub fn sites(&self, spec: &ModelSpec) -> Result<Sites> {
        let TrainSettings { site, site_out, .. } = &self.settings;
        let sites = Sites::named(site.as_deref(), site_out.as_deref(), spec).map_err(|e| self.fault(&e))?;
        let (shape, activation) = (sites.shape(), self.settings.activation);
        let several = matches!(shape, Shape::Crosscoder | Shape::CrossLayer);
        let measured = activation == Activation::KthLargest && self.settings.kth_form != KthForm::A;
        if several && (measured || activation == Activation::Gated) {
            let detail =
                "no layout of crosscoders and cross-layer transcoders has a place for gated and kth-largest ones";
            return Err(self.fault(&format!("{detail}; take topk, batchtopk, relu or jumprelu")));
        }
        if activation == Activation::MatchingPursuit && shape != Shape::Autoencoder {
            return Err(
                self.fault("matching pursuit reads with its decoder: it is trained on one --site, without --site-out")
            );
        }
        if self.settings.reconstruction.is_end_to_end() && (several || !self.settings.prefixes.is_empty()) {
            let detail = "ce and kl are losses of the model with one site replaced, by the whole of a dictionary";
            return Err(self.fault(&format!("{detail}: they go with one --site and without --prefixes")));
        }
        if self.settings.skip && shape != Shape::Transcoder {
            return Err(self.fault("--skip is a path beside a transcoder's latents: it needs --site-out, of one site"));
        }
        if shape == Shape::CrossLayer && !self.settings.prefixes.is_empty() {
            return Err(self.fault("a cross-layer transcoder is not nested: leave --prefixes away"));
        }
        Ok(sites)
    }
}

/// The sites of a dictionary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sites {
    /// Those that it reads.
    pub reads: Vec<Site>,
    /// Those that it writes; none where they are those that it reads.
    pub writes: Vec<Site>,
}

/// What a dictionary is, by its sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// It reads and writes one site.
    Autoencoder,
    /// It reads and writes several sites, with one code for all.
    Crosscoder,
    /// It reads one site and writes another.
    Transcoder,
    /// Of several layers each has latents that read it and write all layers from it on.
    CrossLayer,
}

impl Sites {
    /// One site, read and written.
    pub fn one(site: Site) -> Self {
        Self { reads: vec![site], writes: Vec::new() }
    }

    /// Sites by their names, with commas between, a `*` for every layer; the default site where none is named.
    ///
    /// # Errors
    /// Sites that the model does not have, or that do not go together.
    pub fn named(site: Option<&str>, site_out: Option<&str>, spec: &ModelSpec) -> std::result::Result<Self, String> {
        let reads = site.map_or(Ok(vec![default_site(spec)]), |names| named(names, spec))?;
        let writes = site_out.map_or(Ok(Vec::new()), |names| named(names, spec))?;
        if !writes.is_empty() && writes.len() != reads.len() {
            let detail = format!("--site names {} sites and --site-out {}", reads.len(), writes.len());
            return Err(format!("{detail}; a transcoder writes as many as it reads"));
        }
        for sites in [&reads, &writes] {
            if let Some(i) = (1..sites.len()).find(|i| sites[..*i].contains(&sites[*i])) {
                return Err(format!("{} is named twice", sites[i]));
            }
            let widths: Vec<usize> = sites.iter().map(|site| spec.site_width(*site, 0)).collect();
            if let Some((site, _)) = sites.iter().zip(&widths).find(|(_, width)| **width == 0) {
                let detail = "has a value for each token of the window, and so no width that a dictionary could have";
                return Err(format!("{site} {detail}; name another site"));
            }
            if widths.iter().any(|width| *width != widths[0]) {
                return Err(format!("the sites of one dictionary have one width, and these have {widths:?}"));
            }
        }
        if writes == reads {
            return Err("--site-out names the sites that are read; leave it out for an autoencoder".into());
        }
        let every = |sites: &[Site]| {
            let one = |(i, site): (usize, &Site)| site.layer == Some(i) && site.kind == sites[0].kind;
            sites.len() == spec.n_layers && sites.iter().enumerate().all(one)
        };
        if writes.len() > 1 && !(every(&reads) && every(&writes)) {
            let detail = "a cross-layer transcoder reads one point of every layer and writes another";
            return Err(format!("{detail}: give each with a * for the layer, such as blocks.*.hook_mlp_out"));
        }
        Ok(Self { reads, writes })
    }

    /// What a dictionary of these sites is.
    pub fn shape(&self) -> Shape {
        match (self.reads.len(), self.writes.len()) {
            (1, 0) => Shape::Autoencoder,
            (1, _) => Shape::Transcoder,
            (_, 0) => Shape::Crosscoder,
            _ => Shape::CrossLayer,
        }
    }

    /// Those that are written.
    pub fn written(&self) -> &[Site] {
        if self.writes.is_empty() { &self.reads } else { &self.writes }
    }

    /// All of them, those that are read first.
    pub fn all(&self) -> impl Iterator<Item = Site> + '_ {
        self.reads.iter().chain(&self.writes).copied()
    }

    /// As manifests record them.
    pub fn recorded(&self) -> Value {
        let names = |sites: &[Site]| sites.iter().map(Site::to_string).collect::<Vec<_>>();
        json!({"reads": names(&self.reads), "writes": names(&self.writes)})
    }
}

/// The residual stream after a third of the layers: late enough for concepts, early enough that the model is run in a third
/// of its time.
pub fn default_site(spec: &ModelSpec) -> Site {
    Site::at(SiteKind::ResidPost, spec.n_layers / 3)
}

/// Sites with commas between them; a `*` stands for every layer.
fn named(names: &str, spec: &ModelSpec) -> std::result::Result<Vec<Site>, String> {
    let mut sites = Vec::new();
    for name in names.split(',').map(str::trim) {
        let each: Vec<String> = match name.contains('*') {
            true => (0..spec.n_layers).map(|layer| name.replacen('*', &layer.to_string(), 1)).collect(),
            false => vec![name.to_owned()],
        };
        for name in each {
            sites.push(site_named(spec, &name).map_err(|e| e.to_string())?);
        }
    }
    Ok(sites)
}
