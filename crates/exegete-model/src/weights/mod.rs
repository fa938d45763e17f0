//! Weights: sources of named tensors (one file a format), and what the forward pass keeps of them.

pub mod gguf;
pub mod llama2c;
mod load;
pub mod process;
pub mod quant;
mod safetensors;
mod save;
mod tensor_bytes;

use std::path::Path;

pub use self::load::{LoadOptions, Residence};
pub use self::process::Processing;
pub use self::safetensors::SafetensorsDir;
pub use self::save::safetensors_bytes;
pub use self::tensor_bytes::TensorBytes;
use exegete_tensor::{Device, Matrix, Value, tensor};

use crate::parts::{Part, Weight};
use crate::{ModelError, Result};

/// A file, or files, of named tensors.
pub trait WeightSource {
    /// Where it lies, for messages.
    fn path(&self) -> &Path;

    /// The names of its tensors.
    fn names(&self) -> Vec<String>;

    /// A tensor.
    fn find(&self, name: &str) -> Option<&TensorBytes>;

    /// Why a tensor that is there can be no weight: its type or shape.
    fn unusable(&self, _name: &str) -> Option<&str> {
        None
    }

    /// Whether it holds a tensor.
    fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The shape of a tensor, outermost axis first.
    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.find(name).map(TensorBytes::shape)
    }

    /// A tensor's values in f32, row-major.
    ///
    /// # Errors
    /// There is no such tensor.
    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let tensor = self.find(name).ok_or_else(|| ModelError::weights(self.path(), format!("no tensor {name:?}")))?;
        Ok(tensor.values())
    }
}

/// A linear map.
#[derive(Clone)]
pub struct Linear {
    /// `[out, in]`
    pub w: Matrix,
    /// `[out]`
    pub bias: Option<Value>,
}

/// Gain and bias of a norm.
#[derive(Debug, Clone)]
pub struct NormWeights {
    /// `[d]`
    pub gain: Value,
    /// `[d]`; LayerNorm only.
    pub bias: Option<Value>,
}

/// Weights of an MLP.
#[derive(Clone)]
pub enum MlpWeights {
    /// One MLP for all tokens.
    Dense {
        /// Where the MLP is gated.
        gate: Option<Linear>,
        /// Into the neurons.
        up: Linear,
        /// Out of them.
        down: Linear,
    },
    /// A mixture of experts.
    Mixture {
        /// `[n_experts, d_model]`
        router: Linear,
        /// Gate, up and down of each expert.
        experts: Vec<[Matrix; 3]>,
    },
}

/// Weights of one block.
#[derive(Clone)]
#[allow(missing_docs)] // The names are those of the table of parts, which says what they are.
pub struct LayerWeights {
    pub norm1: Option<NormWeights>,
    pub q: Linear,
    pub k: Linear,
    pub v: Linear,
    pub q_norm: Option<Value>,
    pub k_norm: Option<Value>,
    pub o: Linear,
    pub norm_attn: Option<NormWeights>,
    pub norm2: Option<NormWeights>,
    pub mlp: MlpWeights,
    pub norm_mlp: Option<NormWeights>,
}

/// All weights. Matrices of a kind lie in one stack with an axis of layers; a block's are views of them.
#[derive(Clone)]
pub struct Weights {
    /// `[vocab, d_model]`
    pub embed: Matrix,
    /// `[max_positions, d_model]`
    pub pos_embed: Option<Value>,
    /// One entry a layer.
    pub layers: Vec<LayerWeights>,
    /// The final norm.
    pub norm_final: NormWeights,
    /// `[vocab, d_model]`; the embedding itself where they are tied.
    pub unembed: Linear,
}

impl Weights {
    /// A matrix, if that is what `w` is.
    pub fn matrix(&self, w: Weight) -> Option<&Matrix> {
        let layer = w.layer.map(|l| &self.layers[l]);
        match (w.part, layer) {
            _ if w.bias => None,
            (Part::Embed, _) => Some(&self.embed),
            (Part::Unembed, _) => Some(&self.unembed.w),
            (Part::Q, Some(l)) => Some(&l.q.w),
            (Part::K, Some(l)) => Some(&l.k.w),
            (Part::V, Some(l)) => Some(&l.v.w),
            (Part::O, Some(l)) => Some(&l.o.w),
            (part, Some(l)) => match &l.mlp {
                MlpWeights::Dense { gate, up, down } => match part {
                    Part::Gate => gate.as_ref().map(|l| &l.w),
                    Part::Up => Some(&up.w),
                    Part::Down => Some(&down.w),
                    _ => None,
                },
                MlpWeights::Mixture { router, experts } => match (part, w.expert) {
                    (Part::Router, _) => Some(&router.w),
                    (Part::ExpertGate, Some(e)) => experts.get(e).map(|x| &x[0]),
                    (Part::ExpertUp, Some(e)) => experts.get(e).map(|x| &x[1]),
                    (Part::ExpertDown, Some(e)) => experts.get(e).map(|x| &x[2]),
                    _ => None,
                },
            },
            _ => None,
        }
    }

    /// A vector (a gain, a bias) or the position embedding, if that is what `w` is.
    pub fn vector(&self, w: Weight) -> Option<&Value> {
        let layer = w.layer.map(|l| &self.layers[l]);
        let picked = match (w.part, layer) {
            (Part::NormFinal, _) => Some(&self.norm_final),
            (Part::Norm1, Some(l)) => l.norm1.as_ref(),
            (Part::Norm2, Some(l)) => l.norm2.as_ref(),
            (Part::NormAttn, Some(l)) => l.norm_attn.as_ref(),
            (Part::NormMlp, Some(l)) => l.norm_mlp.as_ref(),
            _ => None,
        };
        if let Some(norm) = picked {
            return if w.bias { norm.bias.as_ref() } else { Some(&norm.gain) };
        }
        match (w.part, layer, w.bias) {
            (Part::PosEmbed, _, false) => self.pos_embed.as_ref(),
            (Part::QNorm, Some(l), false) => l.q_norm.as_ref(),
            (Part::KNorm, Some(l), false) => l.k_norm.as_ref(),
            (Part::Unembed, _, true) => self.unembed.bias.as_ref(),
            (Part::Q, Some(l), true) => l.q.bias.as_ref(),
            (Part::K, Some(l), true) => l.k.bias.as_ref(),
            (Part::V, Some(l), true) => l.v.bias.as_ref(),
            (Part::O, Some(l), true) => l.o.bias.as_ref(),
            (part, Some(l), true) => match (&l.mlp, part) {
                (MlpWeights::Dense { gate, .. }, Part::Gate) => gate.as_ref()?.bias.as_ref(),
                (MlpWeights::Dense { up, .. }, Part::Up) => up.bias.as_ref(),
                (MlpWeights::Dense { down, .. }, Part::Down) => down.bias.as_ref(),
                _ => None,
            },
            _ => None,
        }
    }

    /// A weight's values: a matrix unpacked, `[out, in]`.
    ///
    /// # Errors
    /// The model has no such weight.
    pub fn value(&self, w: Weight) -> Result<Value> {
        if let Some(vector) = self.vector(w) {
            return Ok(Value::from(vector.tensor()));
        }
        let matrix = self.matrix(w).ok_or_else(|| ModelError::Request(format!("this model has no weight {w}")))?;
        let mut out = vec![0f32; matrix.n() * matrix.k()];
        matrix.rows(0..matrix.n(), &mut out);
        Ok(tensor(out, (matrix.n(), matrix.k()))?.into())
    }

    /// Gives every matrix that is multiplied with a copy on a device, if one is named. The embedding is read by rows,
    /// and stays.
    ///
    /// # Errors
    /// The device's, such as too little memory.
    pub fn on(mut self, device: Option<&Device>) -> Result<Self> {
        let Some(device) = device else { return Ok(self) };
        let linear = |l: &mut Linear| -> Result<()> {
            l.w = l.w.clone().on(device)?;
            Ok(())
        };
        for layer in &mut self.layers {
            [&mut layer.q, &mut layer.k, &mut layer.v, &mut layer.o].into_iter().try_for_each(linear)?;
            match &mut layer.mlp {
                MlpWeights::Dense { gate, up, down } => {
                    gate.iter_mut().chain([up, down]).try_for_each(linear)?;
                }
                MlpWeights::Mixture { router, experts } => {
                    linear(router)?;
                    for matrix in experts.iter_mut().flatten() {
                        *matrix = matrix.clone().on(device)?;
                    }
                }
            }
        }
        linear(&mut self.unembed)?;
        Ok(self)
    }

    /// Bytes of all matrices, as they are kept.
    pub fn matrix_bytes(&self) -> usize {
        let linears = |l: &LayerWeights| {
            let attention = [&l.q, &l.k, &l.v, &l.o].map(|l| l.w.bytes()).iter().sum::<usize>();
            attention
                + match &l.mlp {
                    MlpWeights::Dense { gate, up, down } => {
                        gate.as_ref().map_or(0, |g| g.w.bytes()) + up.w.bytes() + down.w.bytes()
                    }
                    MlpWeights::Mixture { router, experts } => {
                        router.w.bytes() + experts.iter().flatten().map(Matrix::bytes).sum::<usize>()
                    }
                }
        };
        self.embed.bytes() + self.layers.iter().map(linears).sum::<usize>()
    }
}

/// Maps a file into memory.
pub(crate) fn map_file(path: &Path) -> Result<memmap2::Mmap> {
    let file = std::fs::File::open(path).map_err(|e| ModelError::io(path, e))?;
    // SAFETY: the map is read-only; a file that another program truncates meanwhile is outside what we can guard.
    unsafe { memmap2::Mmap::map(&file) }.map_err(|e| ModelError::io(path, e))
}
