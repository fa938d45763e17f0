//! safetensors. Source: huggingface/safetensors.

use safetensors::{Dtype, SafeTensors};

use super::{Array, Arrays, Element};

/// Reads all arrays, and the texts of the metadata as facts.
pub(super) fn read(bytes: &[u8]) -> Result<Arrays, String> {
    let whole = |e| format!("neither a zip archive, an .npy array nor a whole safetensors file ({e}); get it again");
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(whole)?;
    let file = SafeTensors::deserialize(bytes).map_err(whole)?;
    let mut out = Arrays::default();
    for (key, text) in header.metadata().iter().flatten() {
        out.facts.insert(key.clone(), text.clone().into());
    }
    for (name, view) in file.iter() {
        let element = match view.dtype() {
            Dtype::F16 => Element::F16,
            Dtype::BF16 => Element::Bf16,
            Dtype::F32 => Element::F32,
            Dtype::F64 => Element::F64,
            Dtype::U8 | Dtype::BOOL => Element::U8,
            Dtype::I8 => Element::I8,
            Dtype::I16 => Element::I16,
            Dtype::I32 => Element::I32,
            Dtype::I64 => Element::I64,
            other => return Err(format!("tensor {name:?} has elements of type {other:?}, which are not handled")),
        };
        let values = view.data().chunks_exact(element.size()).map(|b| element.value(b)).collect();
        out.arrays.insert(name.to_owned(), Array { shape: view.shape().to_vec(), element, values });
    }
    Ok(out)
}
