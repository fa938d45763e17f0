//! Hugging Face directories: `model.safetensors`, or shards named by `model.safetensors.index.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

use super::quant::Encoding;
use super::{WeightSource, map_file};
use crate::{ModelError, Result};

/// The safetensors files of a directory.
pub struct SafetensorsDir {
    dir: PathBuf,
    files: Vec<(PathBuf, memmap2::Mmap)>,
    tensors: BTreeMap<String, (usize, Vec<usize>)>,
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
        let mut source = Self { dir: dir.into(), files: Vec::new(), tensors: BTreeMap::new() };
        for path in paths {
            let map = map_file(&path)?;
            let parsed = SafeTensors::deserialize(&map).map_err(|e| {
                ModelError::format(&path, format!("not a whole safetensors file ({e}); download it again"))
            })?;
            for (name, view) in parsed.tensors() {
                let entry = (source.files.len(), view.shape().to_vec());
                if source.tensors.insert(name.clone(), entry).is_some() {
                    return Err(ModelError::weights(&path, format!("tensor {name:?} stands in two shards")));
                }
            }
            source.files.push((path, map));
        }
        if let Some(name) = wanted.iter().flat_map(|m| m.keys()).find(|n| !source.tensors.contains_key(*n)) {
            return Err(ModelError::weights(&index, format!("tensor {name:?} is in no shard")));
        }
        Ok(source)
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

    fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        self.tensors.iter().map(|(name, (_, shape))| (name.clone(), shape.clone())).collect()
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let (file, _) =
            self.tensors.get(name).ok_or_else(|| ModelError::weights(&self.dir, format!("no tensor {name:?}")))?;
        let (path, map) = &self.files[*file];
        let fail = |e: safetensors::SafeTensorError| ModelError::format(path, format!("tensor {name:?}: {e}"));
        let parsed = SafeTensors::deserialize(map).map_err(fail)?;
        let view = parsed.tensor(name).map_err(fail)?;
        let encoding = match view.dtype() {
            Dtype::F32 => Encoding::F32,
            Dtype::F16 => Encoding::F16,
            Dtype::BF16 => Encoding::Bf16,
            other => {
                let detail = format!("tensor {name:?} has element type {other:?}; handled are F32, F16, BF16");
                return Err(ModelError::format(path, detail));
            }
        };
        Ok(encoding.decode(view.data()))
    }
}
