//! Keys and values of positions already run.

use exegete_tensor::{Tensor, TensorError, Value, f32s, tensor, zeros};

use crate::{ModelError, ModelSpec, Result};

/// A cache for a batch of sequences that grow together.
pub struct KvCache {
    layers: Vec<(Tensor, Tensor)>,
    n_rows: usize,
    capacity: usize,
    len: usize,
}

impl KvCache {
    /// An empty cache with room for `capacity` positions a row.
    ///
    /// # Errors
    /// The engine's.
    pub fn new(spec: &ModelSpec, n_rows: usize, capacity: usize) -> Result<Self> {
        let width = spec.n_kv_heads * spec.d_head;
        let one = || zeros((n_rows, capacity, width));
        let layers = (0..spec.n_layers).map(|_| Ok((one()?, one()?))).collect::<Result<_>>()?;
        Ok(Self { layers, n_rows, capacity, len: 0 })
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Positions there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// A cache of `n_rows` rows that all begin with this cache's only row.
    ///
    /// # Errors
    /// This cache has more than one row, or more positions than `capacity`.
    pub fn fork(&self, n_rows: usize, capacity: usize) -> Result<Self> {
        if self.n_rows != 1 || self.len > capacity {
            let detail = format!("a cache of {} rows and {} positions into room for {capacity}", self.n_rows, self.len);
            return Err(ModelError::Request(format!("cannot fork {detail}")));
        }
        let copy = |from: &Tensor| -> Result<Tensor> {
            let width = from.elem_count() / self.capacity;
            let data = f32s(from)?;
            let mut out = vec![0f32; n_rows * capacity * width];
            for row in out.chunks_exact_mut(capacity * width) {
                row[..self.len * width].copy_from_slice(&data[..self.len * width]);
            }
            Ok(tensor(out, (n_rows, capacity, width))?)
        };
        let layers = self.layers.iter().map(|(k, v)| Ok((copy(k)?, copy(v)?))).collect::<Result<_>>()?;
        Ok(Self { layers, n_rows, capacity, len: self.len })
    }

    /// Writes new keys and values behind those of a layer; [`KvCache::advance`] makes them count.
    pub(crate) fn append(&self, layer: usize, keys: &Value, values: &Value) -> Result<(Value, Value)> {
        if keys.is_recorded() || values.is_recorded() {
            let detail = "gradients through a key-value cache are not kept; run without a cache";
            return Err(ModelError::Request(detail.into()));
        }
        let (k, v) = &self.layers[layer];
        for (cache, new) in [(k, keys), (v, values)] {
            cache.slice_set(new.tensor(), 1, self.len).map_err(TensorError::from)?;
        }
        Ok((k.into(), v.into()))
    }

    pub(crate) fn advance(&mut self, by: usize) {
        self.len += by;
    }

    pub(crate) fn check(&self, n_rows: usize, more: usize) -> Result<()> {
        if n_rows != self.n_rows || self.len + more > self.capacity {
            let held = format!("{} rows, {} of {} positions", self.n_rows, self.len, self.capacity);
            return Err(ModelError::Request(format!(
                "a cache of {held} cannot take {n_rows} rows of {more} positions"
            )));
        }
        Ok(())
    }
}
