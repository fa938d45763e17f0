//! Hugging Face directories: `model.safetensors`, or shards named by `model.safetensors.index.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::quant::Encoding;
use super::tensor_bytes::TensorBytes;
use super::{WeightSource, map_file};
use crate::{ModelError, Result};

/// The safetensors files of a directory.
pub struct SafetensorsDir {
    dir: PathBuf,
    tensors: BTreeMap<String, TensorBytes>,
    metadata: BTreeMap<String, String>,
    /// Tensors that can be no weights, with the reason.
    other: BTreeMap<String, String>,
}

impl SafetensorsDir {
    /// Opens the directory's files and lists their tensors.
    ///
    /// # Errors
    /// No weights, a shard that is missing or damaged, an index that does not agree with its shards.
    pub fn open(dir: &Path) -> Result<Self> {
        let (single, index) = (dir.join("model.safetensors"), dir.join("model.safetensors.index.json"));
        let (paths, wanted) = if single.is_file() {
            (vec![single], None)
        } else if index.is_file() {
            let map = read_index(&index)?;
            let mut shards: Vec<&String> = map.values().collect();
            shards.sort();
            shards.dedup();
            (shards.iter().map(|s| dir.join(s)).collect(), Some(map))
        } else {
            let detail = "no model.safetensors and no model.safetensors.index.json in this directory";
            return Err(ModelError::weights(dir, detail));
        };
        let mut source =
            Self { dir: dir.into(), tensors: BTreeMap::new(), metadata: BTreeMap::new(), other: BTreeMap::new() };
        for path in paths {
            let map = Arc::new(map_file(&path)?);
            source.add(&path, &map)?;
        }
        if let Some(name) = wanted
            .iter()
            .flat_map(|m| m.keys())
            .find(|n| !source.tensors.contains_key(*n) && !source.other.contains_key(*n))
        {
            return Err(ModelError::weights(&index, format!("tensor {name:?} is in no shard")));
        }
        Ok(source)
    }

    fn add(&mut self, path: &Path, map: &Arc<Mmap>) -> Result<()> {
        let fail = |e: safetensors::SafeTensorError| {
            ModelError::format(path, format!("not a whole safetensors file ({e}); download it again"))
        };
        let parsed = SafeTensors::deserialize(map).map_err(fail)?;
        let (_, header) = SafeTensors::read_metadata(map).map_err(fail)?;
        self.metadata.extend(header.metadata().clone().unwrap_or_default());
        for (name, view) in parsed.tensors() {
            let encoding = match view.dtype() {
                Dtype::F64 => Encoding::F64,
                Dtype::F32 => Encoding::F32,
                Dtype::F16 => Encoding::F16,
                Dtype::BF16 => Encoding::Bf16,
                // Masks and counters of old checkpoints are no weights; one that is asked for is missed by name.
                _ => {
                    self.other.insert(name.clone(), format!("{:?}", view.dtype()));
                    continue;
                }
            };
            let from = view.data().as_ptr() as usize - map.as_ptr() as usize;
            let range = from..from + view.data().len();
            let Some(tensor) = TensorBytes::new(map.clone(), range, encoding, view.shape().to_vec()) else {
                // Scalars and empty tensors carry no weights either.
                self.other.insert(name.clone(), format!("shape {:?}", view.shape()));
                continue;
            };
            if self.tensors.insert(name.clone(), tensor).is_some() {
                return Err(ModelError::weights(path, format!("tensor {name:?} stands in two shards")));
            }
        }
        Ok(())
    }

    /// Notes that the file's writer left in its header.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }
}

fn read_index(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(path).map_err(|e| ModelError::io(path, e))?;
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| ModelError::format(path, format!("not JSON: {e}")))?;
    let map: BTreeMap<String, String> = serde_json::from_value(json["weight_map"].clone())
        .map_err(|e| ModelError::format(path, format!("key \"weight_map\": {e}")))?;
    match map.values().find(|s| s.contains(['/', '\\']) || s.starts_with('.')) {
        Some(shard) => Err(ModelError::format(path, format!("shard {shard:?} lies outside the directory"))),
        None => Ok(map),
    }
}

impl WeightSource for SafetensorsDir {
    fn path(&self) -> &Path {
        &self.dir
    }

    fn names(&self) -> Vec<String> {
        self.tensors.keys().chain(self.other.keys()).cloned().collect()
    }

    fn find(&self, name: &str) -> Option<&TensorBytes> {
        self.tensors.get(name)
    }

    fn unusable(&self, name: &str) -> Option<&str> {
        self.other.get(name).map(String::as_str)
    }
}
