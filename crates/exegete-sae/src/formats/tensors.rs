//! The tensors of a file, taken one by one; what is left at the end was not understood.

use std::collections::BTreeMap;
use std::path::PathBuf;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError};

use super::transposed;
use crate::containers::{Array, Arrays};
use crate::{Result, SaeError};

/// Named arrays with their shapes, as they are to be written.
pub(super) type Named<'a> = Vec<(&'a str, Vec<usize>, Vec<f32>)>;

/// The bytes of a safetensors file in f32.
pub(super) fn safetensors_of(arrays: &Named<'_>) -> Result<Vec<u8>> {
    let fail = |e: SafeTensorError| SaeError::Shape(e.to_string());
    let bytes: Vec<Vec<u8>> = arrays.iter().map(|(_, _, v)| v.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let views: BTreeMap<&str, TensorView> = arrays
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), data)| Ok((*name, TensorView::new(Dtype::F32, shape.clone(), data).map_err(fail)?)))
        .collect::<Result<_>>()?;
    safetensors::serialize(&views, None).map_err(fail)
}

/// The tensors of a file.
pub(super) struct Tensors {
    pub(super) path: PathBuf,
    arrays: Arrays,
}

impl Tensors {
    pub(super) fn new(path: PathBuf, arrays: Arrays) -> Self {
        Self { path, arrays }
    }

    pub(super) fn fail(&self, detail: impl Into<String>) -> SaeError {
        SaeError::format(&self.path, detail)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.arrays.arrays.contains_key(name)
    }

    /// A plain fact that lay beside the tensors.
    pub(super) fn fact(&self, name: &str) -> Option<&serde_json::Value> {
        self.arrays.facts.get(name)
    }

    fn take_any(&mut self, name: &str) -> Result<Array> {
        self.arrays.arrays.remove(name).ok_or_else(|| {
            let there: Vec<&str> = self.arrays.arrays.keys().map(String::as_str).take(12).collect();
            self.fail(format!("tensor {name:?} is missing; left are {}", there.join(", ")))
        })
    }

    /// A tensor of a shape.
    pub(super) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let array = self.take_any(name)?;
        match array.shape == shape {
            true => Ok(array.values),
            false => Err(self.fail(format!("tensor {name:?} has shape {:?}, expected {shape:?}", array.shape))),
        }
    }

    /// A vector, however long.
    pub(super) fn vector(&mut self, name: &str) -> Result<Vec<f32>> {
        let array = self.take_any(name)?;
        match array.shape.len() {
            1 => Ok(array.values),
            _ => Err(self.fail(format!("tensor {name:?} has shape {:?}, expected one axis", array.shape))),
        }
    }

    /// A single number.
    pub(super) fn number(&mut self, name: &str) -> Result<f32> {
        let array = self.take_any(name)?;
        match array.values[..] {
            [one] => Ok(one),
            _ => Err(self.fail(format!("tensor {name:?} has shape {:?}, expected a single number", array.shape))),
        }
    }

    /// A matrix `[rows, cols]`, or none if there is no such tensor.
    pub(super) fn matrix_if_there(&mut self, name: &str, shape: [usize; 2]) -> Result<Option<Vec<f32>>> {
        if self.has(name) { self.take(name, &shape).map(Some) } else { Ok(None) }
    }

    /// A matrix that is stored as `[cols, rows]`, as `[rows, cols]`.
    pub(super) fn turned(&mut self, name: &str, [rows, cols]: [usize; 2]) -> Result<Vec<f32>> {
        Ok(transposed(&self.take(name, &[cols, rows])?, cols, rows))
    }

    /// Names that begin so.
    pub(super) fn names_with(&self, prefix: &str) -> Vec<String> {
        self.arrays.arrays.keys().filter(|name| name.starts_with(prefix)).cloned().collect()
    }

    /// The shape of a tensor.
    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.arrays.arrays.get(name).map(|a| &a.shape[..])
    }

    /// Takes tensors that have no part in running a dictionary.
    pub(super) fn ignore(&mut self, names: &[&str]) {
        names.iter().for_each(|name| drop(self.arrays.arrays.remove(*name)));
    }

    /// Refuses a tensor that nobody has taken.
    pub(super) fn finish(&self, what: &str) -> Result<()> {
        match self.arrays.arrays.keys().next() {
            None => Ok(()),
            Some(name) => {
                let detail = format!("tensor {name:?} does not belong to {what}; is it another kind or layout?");
                Err(self.fail(detail))
            }
        }
    }
}
