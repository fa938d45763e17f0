//! Weights as the bytes of a safetensors file, under the names that a family gives them.

use std::collections::HashMap;

use half::bf16;
use safetensors::tensor::{Dtype, TensorView};

use super::Residence;
use crate::families::Understood;
use crate::parts::Weight;
use crate::{ModelError, Result};

/// The file `model.safetensors` of a model: every weight, as f32 or bf16, each in one tensor of its own.
///
/// # Errors
/// A family that joins weights in one tensor or turns them; [`Residence::Stored`]; values of another number.
pub fn safetensors_bytes(
    understood: &Understood,
    residence: Residence,
    mut value: impl FnMut(Weight) -> Vec<f32>,
) -> Result<Vec<u8>> {
    let spec = &understood.spec;
    let request = |detail: String| ModelError::Request(detail);
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for w in spec.weights() {
        let stored = (understood.locate)(spec, w);
        let ([name], false, true) = (stored.tensors.as_slice(), stored.transposed, stored.plus == 0.0) else {
            return Err(request(format!("this family keeps {w} in a form that is not written")));
        };
        let (values, shape) = (value(w), spec.weight_shape(w));
        if values.len() != shape.iter().product::<usize>() {
            return Err(request(format!("{} values for weight {w} of shape {shape:?}", values.len())));
        }
        let (dtype, bytes) = match residence {
            Residence::F32 => (Dtype::F32, values.iter().flat_map(|x| x.to_le_bytes()).collect()),
            Residence::Bf16 => (Dtype::BF16, values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect()),
            Residence::Stored => return Err(request("weights are written in f32 or bf16".into())),
        };
        tensors.push((name.clone(), dtype, shape, bytes));
    }
    let views: Vec<(&str, TensorView)> = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| Ok((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes)?)))
        .collect::<std::result::Result<_, safetensors::SafeTensorError>>()
        .map_err(|e| request(e.to_string()))?;
    // What readers of the format expect to find, whatever program wrote it.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize(views, Some(metadata)).map_err(|e| request(e.to_string()))
}
