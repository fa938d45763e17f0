//! SelfIE adapters: a small trained map from directions to what stands at the placeholder, in place of a search over scales.
//!
//! The model is frozen; `f(x) = exp(log_scale) x + x U V^T + bias` (or a part of it) is all that is learnt, from pairs of a
//! direction and what is said of it. Source and file format: arXiv 2602.10352, agencyenterprise/selfie-adapters (a safetensors file with
//! the tensors `log_scale`, `bias`, `U`, `V`, `weight`, and `config_json` among its metadata). The vector goes in before layer 0, which is
//! the token embedding in models that do not scale it; the published adapters are of such a model.

mod train;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use exegete_base::sampling::pair_hash;
use exegete_base::settings::Insertion;
use exegete_model::{Model, Sampling};
use exegete_tensor::cpu::simd::dot;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use self::train::{Pair, Progressed, TrainSettings, Trained, train};
use crate::self_explain::asker::{Asker, Writing};
use crate::self_explain::{Inserted, choice};
use crate::{MethodError, Result};

/// Name of the method.
pub const NAME: &str = "adapter";
/// The template of the published adapters.
pub const TEMPLATE: &str = "selfie";
/// Keys of the metadata that other programs pass over.
const TEMPLATE_KEY: &str = "exegete_template";
const TRAINED_ON_KEY: &str = "exegete_trained_on";
/// The layer before which vectors go in.
const LAYER: usize = 0;

/// The form of the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// A learnt scale
    ScaleOnly,
    /// A scale and a bias: the smallest that works well
    #[default]
    ScalarAffine,
    /// The same and a matrix of low rank
    ScalarAffinePlusLowRank,
    /// A matrix of low rank and a bias
    LowRankOnly,
    /// Any matrix and a bias, which learns its examples by heart
    FullRank,
}

impl Form {
    fn has_scale(self) -> bool {
        matches!(self, Self::ScaleOnly | Self::ScalarAffine | Self::ScalarAffinePlusLowRank)
    }

    fn is_low_rank(self) -> bool {
        matches!(self, Self::LowRankOnly | Self::ScalarAffinePlusLowRank)
    }

    /// Its tensors with their shapes.
    fn tensors(self, d: usize, rank: usize) -> Vec<(&'static str, Vec<usize>)> {
        let mut tensors = Vec::new();
        if self.has_scale() {
            tensors.push(("log_scale", vec![1]));
        }
        if self.is_low_rank() {
            tensors.extend([("U", vec![d, rank]), ("V", vec![d, rank])]);
        }
        if self == Self::FullRank {
            tensors.push(("weight", vec![d, d]));
        }
        if self != Self::ScaleOnly {
            tensors.push(("bias", vec![d]));
        }
        tensors
    }
}

/// What a file says of the map.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Projection {
    /// Its form.
    #[serde(rename = "type")]
    pub form: Form,
    /// Whether directions are brought to unit length first.
    pub normalize_input: bool,
    /// The scale at which training began.
    #[serde(default)]
    pub init_scale: Option<f64>,
    /// The rank of `U V^T`.
    #[serde(default)]
    pub low_rank_rank: Option<usize>,
    /// The spread with which `U` and `V` began, over the scale.
    #[serde(default)]
    pub low_rank_init_factor: Option<f64>,
}

/// A trained map.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// What it is.
    pub projection: Projection,
    /// Width of the residual stream.
    pub d: usize,
    /// Steps that it was trained for.
    pub steps: u64,
    /// The least loss on pairs that it was not trained on, in nats a token.
    pub best_loss: Option<f64>,
    /// The template that it was trained with; none where the file does not say.
    pub template: Option<String>,
    /// Latents that it was trained on, ascending: what is said of them may be known by heart.
    pub trained_on: Vec<u32>,
    tensors: BTreeMap<&'static str, Vec<f32>>,
}

impl Adapter {
    /// One that was not trained.
    fn begun(projection: Projection, d: usize, seed: u64) -> Self {
        let (scale, rank) = (projection.init_scale.unwrap_or(1.0), projection.low_rank_rank.unwrap_or(0));
        let mut tensors = BTreeMap::new();
        for (name, shape) in projection.form.tensors(d, rank) {
            let spread = match name {
                "U" | "V" => scale * projection.low_rank_init_factor.unwrap_or(0.01) / (rank.max(1) as f64).sqrt(),
                "weight" => scale * (1.0 / d as f64).sqrt(),
                _ => 0.0,
            };
            let uniform = |i: usize, j: u64| {
                pair_hash(seed ^ j, i as u64, name.len() as u64 + u64::from(name == "V")) as f64 / u64::MAX as f64
            };
            let normal = |i: usize| (0..12).map(|j| uniform(i, j)).sum::<f64>() - 6.0;
            let n = shape.iter().product();
            let values = match name {
                "log_scale" => vec![scale.ln() as f32],
                _ if spread == 0.0 => vec![0f32; n],
                _ => (0..n).map(|i| (spread * normal(i)) as f32).collect(),
            };
            tensors.insert(name, values);
        }
        Self { projection, d, steps: 0, best_loss: None, template: None, trained_on: Vec::new(), tensors }
    }

    /// Opens a file.
    ///
    /// # Errors
    /// A file that is none, is not whole, or lacks a tensor that its form has, with the file's name.
    pub fn open(path: &Path) -> Result<Self> {
        let fail = |detail: String| MethodError::Request(format!("{}: {detail}", path.display()));
        let bytes = std::fs::read(path).map_err(|e| fail(e.to_string()))?;
        Self::from_bytes(&bytes).map_err(fail)
    }

    /// Reads a file's bytes; the error is a sentence without the file's name.
    ///
    /// # Errors
    /// As for [`Adapter::open`].
    pub fn from_bytes(bytes: &[u8]) -> std::result::Result<Self, String> {
        let whole = |e: safetensors::SafeTensorError| format!("not a whole safetensors file ({e})");
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(whole)?;
        let file = SafeTensors::deserialize(bytes).map_err(whole)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let config = metadata.get("config_json").ok_or("no adapter: its metadata have no config_json")?;
        let config: Value = serde_json::from_str(config).map_err(|e| format!("config_json: {e}"))?;
        let projection = config.get("projection").unwrap_or(&config);
        let projection: Projection =
            serde_json::from_value(projection.clone()).map_err(|e| format!("config_json: projection: {e}"))?;
        let rank = projection.low_rank_rank.unwrap_or(0);
        if projection.form.is_low_rank() && rank == 0 {
            return Err("config_json: low_rank_rank is missing".into());
        }
        let told: Option<usize> = metadata.get("model_dim").and_then(|d| d.parse().ok());
        let first = ["bias", "U", "weight"].iter().find_map(|name| file.tensor(name).ok()?.shape().first().copied());
        let d = told.or(first).ok_or("neither model_dim nor a tensor tells the width")?;
        let mut tensors = BTreeMap::new();
        for (name, shape) in projection.form.tensors(d, rank) {
            let view = file
                .tensor(name)
                .map_err(|_| format!("no tensor {name:?}, which a {:?} adapter has", projection.form))?;
            // A scale is stored with one axis or with none.
            let is_one = view.shape().is_empty() && shape == [1];
            if view.shape() != shape && !is_one {
                return Err(format!("tensor {name:?} has shape {:?}, expected {shape:?}", view.shape()));
            }
            let values: Vec<f32> = match view.dtype() {
                Dtype::F32 => view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
                Dtype::BF16 => {
                    let wide = |b: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
                    view.data().as_chunks::<2>().0.iter().map(wide).collect()
                }
                other => return Err(format!("tensor {name:?} is {other:?}, expected F32 or BF16")),
            };
            if let Some(bad) = values.iter().find(|x| !x.is_finite()) {
                return Err(format!("tensor {name:?} holds {bad}"));
            }
            tensors.insert(name, values);
        }
        let number = |key: &str| metadata.get(key).and_then(|text| text.parse::<f64>().ok()).filter(|x| x.is_finite());
        let steps = number("global_step").unwrap_or(0.0) as u64;
        if tensors.get("log_scale").is_some_and(|log: &Vec<f32>| !log[0].exp().is_finite()) {
            return Err("tensor \"log_scale\" is so large that the scale is no number".into());
        }
        let template = metadata.get(TEMPLATE_KEY).cloned();
        let trained_on =
            metadata.get(TRAINED_ON_KEY).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        Ok(Self { projection, d, steps, best_loss: number("best_val_loss"), template, trained_on, tensors })
    }

    /// The template to ask with: its own, or that of the published adapters.
    pub fn template(&self) -> &str {
        self.template.as_deref().unwrap_or(TEMPLATE)
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// The format's.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let failed = |e: safetensors::SafeTensorError| MethodError::Request(format!("cannot write the adapter: {e}"));
        let shapes = self.projection.form.tensors(self.d, self.projection.low_rank_rank.unwrap_or(0));
        let raw: Vec<(&str, Vec<usize>, Vec<u8>)> = shapes
            .into_iter()
            .map(|(name, shape)| (name, shape, self.tensors[name].iter().flat_map(|x| x.to_le_bytes()).collect()))
            .collect();
        let views: Vec<(&str, TensorView)> = raw
            .iter()
            .map(|(name, shape, bytes)| Ok((*name, TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(failed)?)))
            .collect::<Result<_>>()?;
        let mut metadata: HashMap<String, String> = HashMap::new();
        metadata.insert("config_json".into(), json!({"projection": self.projection}).to_string());
        metadata.insert("model_dim".into(), self.d.to_string());
        metadata.insert("global_step".into(), self.steps.to_string());
        metadata.insert("projection_num_params".into(), self.n_parameters().to_string());
        if let Some(template) = &self.template {
            metadata.insert(TEMPLATE_KEY.into(), template.clone());
        }
        if !self.trained_on.is_empty() {
            metadata.insert(TRAINED_ON_KEY.into(), json!(self.trained_on).to_string());
        }
        if let Some(loss) = self.best_loss {
            metadata.insert("best_val_loss".into(), loss.to_string());
        }
        safetensors::serialize(views, Some(metadata)).map_err(failed)
    }

    /// Values that are learnt.
    pub fn n_parameters(&self) -> usize {
        self.tensors.values().map(Vec::len).sum()
    }

    /// The learnt scale, where there is one.
    pub fn scale(&self) -> Option<f32> {
        self.tensors.get("log_scale").map(|log| log[0].exp())
    }

    /// The direction as the map takes it.
    fn input(&self, x: &[f32]) -> Vec<f32> {
        let by = if self.projection.normalize_input { 1.0 / (dot(x, x).sqrt() + 1e-8) } else { 1.0 };
        x.iter().map(|x| x * by).collect()
    }

    /// What stands at the placeholder for a direction.
    ///
    /// # Shapes
    /// `[D] -> [D]`
    ///
    /// # Errors
    /// A direction of another width.
    pub fn apply(&self, direction: &[f32]) -> Result<Vec<f32>> {
        let d = self.d;
        if direction.len() != d {
            let detail = format!("the adapter maps directions of {d} values, and this one has {}", direction.len());
            return Err(MethodError::Request(detail));
        }
        let x = self.input(direction);
        let mut y = self.tensors.get("bias").cloned().unwrap_or_else(|| vec![0f32; d]);
        if let Some(scale) = self.scale() {
            y.iter_mut().zip(&x).for_each(|(y, x)| *y += scale * x);
        }
        if let (Some(u), Some(v)) = (self.tensors.get("U"), self.tensors.get("V")) {
            let inner = self.inner(&x, u);
            y.iter_mut().zip(v.chunks_exact(inner.len())).for_each(|(y, row)| *y += dot(row, &inner));
        }
        if let Some(weight) = self.tensors.get("weight") {
            y.iter_mut().zip(weight.chunks_exact(d)).for_each(|(y, row)| *y += dot(row, &x));
        }
        Ok(y)
    }

    /// `x U`, `[R]`.
    fn inner(&self, x: &[f32], u: &[f32]) -> Vec<f32> {
        let mut inner = vec![0f32; u.len() / self.d];
        for (x, row) in x.iter().zip(u.chunks_exact(inner.len())) {
            inner.iter_mut().zip(row).for_each(|(sum, u)| *sum += x * u);
        }
        inner
    }

    /// Adds to each tensor's gradient that of one direction, from the gradient at what stands at the placeholder.
    fn add_gradient(&self, direction: &[f32], grad: &[f32], into: &mut BTreeMap<&'static str, Vec<f32>>) {
        let (d, x) = (self.d, self.input(direction));
        for (name, sum) in into {
            match *name {
                "bias" => sum.iter_mut().zip(grad).for_each(|(s, g)| *s += g),
                "log_scale" => sum[0] += self.scale().unwrap_or(0.0) * dot(&x, grad),
                "weight" => {
                    for (row, g) in sum.chunks_exact_mut(d).zip(grad) {
                        row.iter_mut().zip(&x).for_each(|(s, x)| *s += g * x);
                    }
                }
                "U" => {
                    let v = &self.tensors["V"];
                    let back = self.inner(grad, v);
                    for (row, x) in sum.chunks_exact_mut(back.len()).zip(&x) {
                        row.iter_mut().zip(&back).for_each(|(s, b)| *s += x * b);
                    }
                }
                _ => {
                    let inner = self.inner(&x, &self.tensors["U"]);
                    for (row, g) in sum.chunks_exact_mut(inner.len()).zip(grad) {
                        row.iter_mut().zip(&inner).for_each(|(s, i)| *s += g * i);
                    }
                }
            }
        }
    }
}

/// A model that says what directions mean, through an adapter.
pub struct AdapterExplainer<'m> {
    asker: Asker<'m>,
    adapter: Adapter,
}

impl<'m> AdapterExplainer<'m> {
    /// Prepares the template.
    ///
    /// # Errors
    /// An adapter of another width than the model's, a template that does not fit the vocabulary.
    pub fn new(model: &'m Model, template: &str, adapter: Adapter) -> Result<Self> {
        let d = model.spec.d_model;
        if adapter.d != d {
            let detail = format!("the adapter maps directions of {} values, and the model's have {d}", adapter.d);
            return Err(MethodError::Request(detail));
        }
        Ok(Self { asker: Asker::new(model, template, LAYER)?, adapter })
    }

    /// Different answers for a direction: the first greedy, the others drawn as the published ones are.
    ///
    /// # Errors
    /// A direction of another width, the model's.
    pub fn texts(&self, direction: &[f32], n: usize, tokens: usize, seed: u64) -> Result<Vec<String>> {
        let inserted = self.inserted(direction)?;
        let mut texts = Vec::new();
        if n > 0 {
            let how = Writing { tokens, sampling: Sampling::greedy(), guidance: None };
            texts.extend(self.asker.write(std::slice::from_ref(&inserted), &how)?);
        }
        if n > 1 {
            let sampling = Sampling { temperature: 0.7, top_p: 0.9, seed, ..Sampling::greedy() };
            texts.extend(self.asker.write(&vec![inserted; n - 1], &Writing { tokens, sampling, guidance: None })?);
        }
        Ok(choice::different(&texts, n).into_iter().map(|at| texts[at].clone()).collect())
    }

    /// How likely a text is for each of some directions: mean log-probability of its tokens, in nats. From which direction a text
    /// comes can be told by it.
    ///
    /// # Errors
    /// A direction of another width, a text without tokens, the model's.
    pub fn log_likelihoods(&self, directions: &[&[f32]], text: &str) -> Result<Vec<f64>> {
        let inserted: Vec<Inserted> = directions.iter().map(|x| self.inserted(x)).collect::<Result<_>>()?;
        let targets = train::target(&self.asker, text)?;
        let losses = train::losses(&self.asker, &inserted, &vec![targets; inserted.len()])?;
        Ok(losses.into_iter().map(|loss| -loss).collect())
    }

    /// Whether the adapter was trained on a latent.
    pub fn is_trained_on(&self, latent: u32) -> bool {
        self.adapter.trained_on.binary_search(&latent).is_ok()
    }

    fn inserted(&self, direction: &[f32]) -> Result<Inserted> {
        let vector = self.adapter.apply(direction)?;
        match dot(&vector, &vector).is_finite() {
            true => Ok(Inserted { vector, how: Insertion::Replace, factor: 1.0 }),
            false => {
                Err(MethodError::Request("the adapter makes a vector without a finite length of this direction".into()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn projection(form: Form) -> Projection {
        Projection {
            form,
            normalize_input: true,
            init_scale: Some(5.0),
            low_rank_rank: Some(2),
            low_rank_init_factor: Some(0.1),
        }
    }

    #[test]
    fn every_form_is_written_and_read_back() {
        for form in
            [Form::ScaleOnly, Form::ScalarAffine, Form::ScalarAffinePlusLowRank, Form::LowRankOnly, Form::FullRank]
        {
            let adapter = Adapter {
                steps: 7,
                best_loss: Some(1.5),
                template: Some("meaning".into()),
                trained_on: vec![3, 9],
                ..Adapter::begun(projection(form), 4, 1)
            };
            let bytes = adapter.to_bytes().unwrap();
            assert_eq!(Adapter::from_bytes(&bytes).unwrap(), adapter, "{form:?}");
            assert!(Adapter::from_bytes(&bytes[..bytes.len() - 1]).is_err());
        }
        let plain =
            safetensors::serialize([("bias", TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap())], None).unwrap();
        assert!(Adapter::from_bytes(&plain).unwrap_err().contains("config_json"));
        let mut endless = Adapter::begun(projection(Form::ScaleOnly), 4, 1);
        endless.tensors.insert("log_scale", vec![1000.0]);
        assert!(Adapter::from_bytes(&endless.to_bytes().unwrap()).unwrap_err().contains("log_scale"));
    }

    #[test]
    fn a_damaged_file_is_refused_or_read_and_never_more() {
        let whole = Adapter::begun(projection(Form::ScalarAffinePlusLowRank), 4, 1).to_bytes().unwrap();
        let mut read = 0;
        for i in 0..20_000u64 {
            let mut bytes = whole.clone();
            for change in 0..1 + i % 4 {
                let hash = pair_hash(i, change, 3);
                let at = (hash >> 16) as usize % bytes.len();
                match hash % 4 {
                    0 => bytes.truncate(at.max(1)),
                    1 => bytes[at] = (hash >> 8) as u8,
                    // A digit of a shape, an offset or a rank.
                    2 => bytes[at] = b"0123456789"[(hash >> 8) as usize % 10],
                    _ => bytes.insert(at, b"9{}[]\","[(hash >> 8) as usize % 7]),
                }
            }
            if let Ok(adapter) = Adapter::from_bytes(&bytes) {
                read += 1;
                let direction = vec![1.0; adapter.d.min(64)];
                assert_eq!(adapter.apply(&direction).is_ok(), adapter.d == direction.len());
            }
        }
        assert!((100..20_000).contains(&read), "{read}");
    }

    #[test]
    fn the_map_is_that_of_its_formula_and_gradients_are_differences() {
        let x = [0.3f32, -1.2, 0.5, 2.0];
        let unit: Vec<f32> = x.iter().map(|v| v / (dot(&x, &x).sqrt() + 1e-8)).collect();
        let scaled = Adapter::begun(projection(Form::ScaleOnly), 4, 1).apply(&x).unwrap();
        scaled.iter().zip(&unit).for_each(|(y, x)| assert!((y - 5.0 * x).abs() < 1e-5));
        let weights = [0.7f32, -0.2, 1.1, 0.4];
        let value = |adapter: &Adapter| dot(&adapter.apply(&x).unwrap(), &weights);
        for form in [Form::ScalarAffinePlusLowRank, Form::FullRank] {
            let adapter = Adapter::begun(projection(form), 4, 3);
            let mut grads: BTreeMap<&'static str, Vec<f32>> =
                adapter.tensors.iter().map(|(name, values)| (*name, vec![0f32; values.len()])).collect();
            adapter.add_gradient(&x, &weights, &mut grads);
            for (name, grad) in &grads {
                for (i, g) in grad.iter().enumerate() {
                    let moved = |by: f32| {
                        let mut other = adapter.clone();
                        other.tensors.get_mut(name).unwrap()[i] += by;
                        value(&other)
                    };
                    let difference = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                    assert!((difference - g).abs() < 1e-2 * g.abs().max(1.0), "{form:?} {name} {i}: {difference} {g}");
                }
            }
        }
    }
}
