//! The state of a training: parameters with their moments, and how far it is.

use std::collections::HashMap;
use std::path::Path;

use exegete_model::{ModelSpec, Part, Weight};
use exegete_store::run::changes;
use exegete_tensor::optim::Parameter;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use crate::language::Draw;
use crate::{LabError, Result};

/// Spread of the initial weights (GPT-2's).
const SPREAD: f64 = 0.02;
/// Spread of the initial embedding. From 0.02 it would stay small beside what the first layers write, and which word
/// stands where would be a few hundredths of the residual stream's variance, too little for a dictionary to spend latents
/// on.
const SPREAD_OF_EMBEDDING: f64 = 0.5;

/// The key of the file's metadata.
const HISTORY: &str = "history";

/// How far a training is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progressed {
    /// Steps taken.
    pub step: u64,
    /// Tokens read.
    pub tokens: u64,
    /// Documents read.
    pub documents: u64,
}

/// What differs between the settings that a training was begun with and those that it would go on with, and what to do.
pub(super) fn other_settings(begun_with: &str, settings: &str) -> String {
    let read = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| serde_json::json!({}));
    let changes = changes(&read(begun_with), &read(settings)).join("; ");
    format!("begun with other settings ({changes}); give those settings, or another --out")
}

/// Parameters, moments, and how far the training is.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainState {
    /// In the order of [`ModelSpec::weights`].
    pub parameters: Vec<(Weight, Parameter)>,
    /// How far it is.
    pub at: Progressed,
}

impl TrainState {
    /// The state before the first step: matrices of a normal distribution, narrower for what writes to the residual
    /// stream (Radford et al. 2019), gains of one.
    pub fn new(spec: &ModelSpec, seed: u64) -> Self {
        let mut draw = Draw::new(seed ^ 0x776f_7264);
        let narrow = SPREAD / (2.0 * spec.n_layers as f64).sqrt();
        let parameters = spec.weights().into_iter().map(|w| {
            let n = spec.weight_shape(w).iter().product::<usize>();
            let spread = match w.part {
                Part::Embed => SPREAD_OF_EMBEDDING,
                Part::O | Part::Down => narrow,
                _ => SPREAD,
            };
            let values = match spec.weight_shape(w).len() {
                1 => vec![1.0; n],
                _ => (0..n).map(|_| (spread * draw.normal()) as f32).collect(),
            };
            (w, Parameter::new(values))
        });
        Self { parameters: parameters.collect(), at: Progressed::default() }
    }

    /// The values of a weight.
    pub fn values(&self, w: Weight) -> &[f32] {
        self.parameters.iter().find(|(found, _)| *found == w).map_or(&[], |(_, p)| &p.values)
    }

    /// The state as a safetensors file, with `settings` in its metadata.
    ///
    /// # Errors
    /// The format's.
    pub fn to_bytes(&self, settings: &str) -> Result<Vec<u8>> {
        let bytes = |x: &[f32]| -> Vec<u8> { x.iter().flat_map(|x| x.to_le_bytes()).collect() };
        let all: Vec<(String, Vec<u8>)> = self
            .parameters
            .iter()
            .flat_map(|(w, p)| {
                [(w.to_string(), bytes(&p.values)), (format!("{w}.m"), bytes(&p.m)), (format!("{w}.v"), bytes(&p.v))]
            })
            .collect();
        let fail = |e: safetensors::SafeTensorError| LabError::Failed(e.to_string());
        let views =
            all.iter().map(|(name, bytes)| Ok((name, TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes)?)));
        let views = views.collect::<std::result::Result<Vec<_>, safetensors::SafeTensorError>>().map_err(fail)?;
        // One key: the format writes several in any order, and the same state is to have the same bytes.
        let history = serde_json::json!({"settings": settings, "at": self.at}).to_string();
        let metadata = HashMap::from([(HISTORY.to_owned(), history)]);
        safetensors::serialize(views, Some(metadata)).map_err(fail)
    }

    /// Reads the state that [`TrainState::to_bytes`] made, if it is of the same settings.
    ///
    /// # Errors
    /// A file of another kind, another model or other settings, and what to do about it.
    pub fn read(path: &Path, spec: &ModelSpec, settings: &str) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(LabError::io(path))?;
        let wrong = |detail: &str| LabError::format(path, format!("not a state of this training: {detail}"));
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| wrong(&e.to_string()))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| wrong(&e.to_string()))?;
        let history = header.metadata().as_ref().and_then(|m| m.get(HISTORY)).map(String::as_str).unwrap_or_default();
        let history: serde_json::Value = serde_json::from_str(history).unwrap_or_default();
        let begun_with = history["settings"].as_str().unwrap_or_default();
        if begun_with != settings {
            return Err(wrong(&other_settings(begun_with, settings)));
        }
        let at: Progressed = serde_json::from_value(history["at"].clone()).map_err(|e| wrong(&e.to_string()))?;
        let array = |name: String, n: usize| -> Result<Vec<f32>> {
            let tensor = file.tensor(&name).map_err(|_| wrong(&format!("tensor {name:?} is missing")))?;
            if tensor.dtype() != Dtype::F32 || tensor.shape() != [n] {
                return Err(wrong(&format!("tensor {name:?} has shape {:?}, {n} values are needed", tensor.shape())));
            }
            Ok(tensor.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
        };
        let parameters = spec
            .weights()
            .into_iter()
            .map(|w| {
                let n = spec.weight_shape(w).iter().product();
                let values = array(w.to_string(), n)?;
                Ok((w, Parameter { values, m: array(format!("{w}.m"), n)?, v: array(format!("{w}.v"), n)? }))
            })
            .collect::<Result<_>>()?;
        Ok(Self { parameters, at })
    }
}
