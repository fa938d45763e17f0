//! The SAELens directory, version 6: `cfg.json` and `sae_weights.safetensors`.
//!
//! Tensors: `W_enc [D, F]`, `b_enc [F]`, `W_dec [F, D]`, `b_dec [D]`, f32. Source: jbloomAus/SAELens.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};

use crate::kinds::TopK;
use crate::{Result, SaeError};

/// Name of the configuration file.
pub const CONFIG: &str = "cfg.json";
/// Name of the weights file.
pub const WEIGHTS: &str = "sae_weights.safetensors";

/// A dictionary with the open map of facts that travels with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Saved {
    /// The dictionary.
    pub dictionary: TopK,
    /// SAELens's `metadata`: model and hook names, and whatever else; unknown keys are kept.
    pub metadata: Map<String, Value>,
}

/// The two files' contents, ready to be written by whoever owns the directory.
///
/// # Errors
/// Arrays that do not fit together.
pub fn to_bytes(saved: &Saved) -> Result<(Vec<u8>, Vec<u8>)> {
    let sae = &saved.dictionary;
    sae.check()?;
    let f = sae.b_enc_F.len();
    let config = json!({
        "architecture": "topk", "d_in": sae.d_in, "d_sae": f, "k": sae.k, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": sae.centres_input, "normalize_activations": "none", "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": false, "metadata": saved.metadata,
    });
    let w_enc_DF = transposed(&sae.w_enc_FD, f, sae.d_in);
    let bytes = |v: &[f32]| -> Vec<u8> { v.iter().flat_map(|x| x.to_le_bytes()).collect() };
    let arrays = [
        ("W_enc", vec![sae.d_in, f], bytes(&w_enc_DF)),
        ("b_enc", vec![f], bytes(&sae.b_enc_F)),
        ("W_dec", vec![f, sae.d_in], bytes(&sae.w_dec_FD)),
        ("b_dec", vec![sae.d_in], bytes(&sae.b_dec_D)),
    ];
    let views: BTreeMap<&str, TensorView> = arrays
        .iter()
        .map(|(name, shape, data)| Ok((*name, TensorView::new(Dtype::F32, shape.clone(), data)?)))
        .collect::<std::result::Result<_, safetensors::SafeTensorError>>()
        .map_err(|e| SaeError::Shape(e.to_string()))?;
    let weights = safetensors::serialize(&views, None).map_err(|e| SaeError::Shape(e.to_string()))?;
    let config = serde_json::to_vec_pretty(&config).map_err(|e| SaeError::Shape(e.to_string()))?;
    Ok((config, weights))
}

/// Reads a directory.
///
/// # Errors
/// Missing or damaged files, another architecture than TopK, conventions that are not handled.
pub fn load(dir: &Path) -> Result<Saved> {
    let read = |name: &str| {
        let path = dir.join(name);
        std::fs::read(&path).map_err(|source| SaeError::Io { path: path.clone(), source }).map(|bytes| (path, bytes))
    };
    let (config_path, config) = read(CONFIG)?;
    let config: Value =
        serde_json::from_slice(&config).map_err(|e| SaeError::format(&config_path, format!("not JSON: {e}")))?;
    let facts = Facts::read(&config_path, &config)?;
    let (path, bytes) = read(WEIGHTS)?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| SaeError::format(&path, format!("not a whole safetensors file ({e}); get it again")))?;
    let known = ["W_enc", "b_enc", "W_dec", "b_dec"];
    if let Some(name) = file.names().into_iter().find(|n| !known.contains(n)) {
        let detail = format!("tensor {name:?} does not belong to a topk dictionary; is the architecture right?");
        return Err(SaeError::format(&path, detail));
    }
    let array = |name: &str, shape: &[usize]| -> Result<Vec<f32>> {
        let view = file.tensor(name).map_err(|_| SaeError::format(&path, format!("missing tensor {name:?}")))?;
        if view.shape() != shape || view.dtype() != Dtype::F32 {
            let found = format!("{:?} {:?}", view.dtype(), view.shape());
            return Err(SaeError::format(&path, format!("tensor {name:?} is {found}, expected F32 {shape:?}")));
        }
        Ok(view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    };
    let (d, f) = (facts.d_in, facts.d_sae);
    let mut dictionary = TopK {
        d_in: d,
        k: facts.k,
        w_enc_FD: transposed(&array("W_enc", &[d, f])?, d, f),
        b_enc_F: array("b_enc", &[f])?,
        w_dec_FD: array("W_dec", &[f, d])?,
        b_dec_D: array("b_dec", &[d])?,
        centres_input: facts.centres_input,
    };
    if facts.rescales {
        fold_decoder_norms(&mut dictionary);
    }
    dictionary.check().map_err(|e| SaeError::format(&config_path, e.to_string()))?;
    let metadata = config["metadata"].as_object().cloned().unwrap_or_default();
    Ok(Saved { dictionary, metadata })
}

struct Facts {
    d_in: usize,
    d_sae: usize,
    k: usize,
    centres_input: bool,
    rescales: bool,
}

impl Facts {
    fn read(path: &Path, config: &Value) -> Result<Self> {
        let fail = |detail: String| SaeError::format(path, detail);
        let size = |key: &str| {
            let value = config[key].as_u64().and_then(|v| usize::try_from(v).ok()).filter(|v| (1..1 << 32).contains(v));
            value.ok_or_else(|| fail(format!("key {key:?} must be a whole number from 1, but is {}", config[key])))
        };
        if config["architecture"] != "topk" {
            return Err(fail(format!("architecture {} is not handled; handled is \"topk\"", config["architecture"])));
        }
        for (key, handled) in [("normalize_activations", "none"), ("reshape_activations", "none")] {
            if !config[key].is_null() && config[key] != handled {
                return Err(fail(format!("key {key:?} is {}; only {handled:?} is handled", config[key])));
            }
        }
        let flag = |key: &str, default: bool| match &config[key] {
            Value::Null => Ok(default),
            Value::Bool(b) => Ok(*b),
            other => Err(fail(format!("key {key:?} must be true or false, but is {other}"))),
        };
        Ok(Self {
            d_in: size("d_in")?,
            d_sae: size("d_sae")?,
            k: size("k")?,
            // Missing means true: SAELens's default, and that of its releases before version 6.
            centres_input: flag("apply_b_dec_to_input", true)?,
            rescales: flag("rescale_acts_by_decoder_norm", false)?,
        })
    }
}

/// Where activations are reported as `h * |w|` and decoded by `w / |w|`: the same dictionary with unit rows.
fn fold_decoder_norms(sae: &mut TopK) {
    let d = sae.d_in;
    for f in 0..sae.b_enc_F.len() {
        let row = &mut sae.w_dec_FD[f * d..(f + 1) * d];
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        if norm > 0.0 {
            row.iter_mut().for_each(|x| *x /= norm);
        }
        sae.w_enc_FD[f * d..(f + 1) * d].iter_mut().for_each(|x| *x *= norm);
        sae.b_enc_F[f] *= norm;
    }
}

/// `[rows, cols]` to `[cols, rows]`.
fn transposed(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    let mut out = vec![0f32; x.len()];
    for r in 0..rows {
        for c in 0..cols {
            out[c * rows + r] = x[r * cols + c];
        }
    }
    out
}
