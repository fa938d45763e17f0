//! Keys and values of positions already run, and prefixes that many continuations share.

use std::sync::Arc;

use exegete_tensor::cpu::attention::KeySpan;
use exegete_tensor::{Value, f32s};

use crate::{ModelError, ModelSpec, Result};

/// Keys and values of a layer, `[rows, capacity, width]` each.
type Layers = Vec<(Vec<f32>, Vec<f32>)>;

/// Positions that are held once and continued by any number of rows.
#[derive(Clone)]
struct Segment {
    layers: Arc<Layers>,
    capacity: usize,
    /// For each row of the cache: which row of the segment it continues, and how many positions of it.
    rows_B: Vec<(usize, usize)>,
}

/// A cache for sequences that grow together; rows may differ in length.
pub struct KvCache {
    prefix: Vec<Segment>,
    layers: Layers,
    width: usize,
    capacity: usize,
    /// Positions of each row in `layers`.
    lens_B: Vec<usize>,
    context: usize,
}

/// A cache that grows no more, to be continued by many: its memory is shared, never copied.
#[derive(Clone)]
pub struct Prefix {
    segments: Vec<Segment>,
    n_layers: usize,
    width: usize,
    lens_B: Vec<usize>,
}

impl KvCache {
    /// An empty cache with room for `capacity` positions a row.
    ///
    /// # Errors
    /// It would not fit into memory.
    pub fn new(spec: &ModelSpec, n_rows: usize, capacity: usize) -> Result<Self> {
        let width = spec.n_kv_heads * spec.d_head;
        Self::behind(Vec::new(), (spec.n_layers, width), n_rows, capacity, capacity)
    }

    fn behind(
        prefix: Vec<Segment>,
        (n_layers, width): (usize, usize),
        n_rows: usize,
        capacity: usize,
        context: usize,
    ) -> Result<Self> {
        let values = [n_rows, capacity, width].iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let bytes = values.and_then(|n| n.checked_mul(8 * n_layers)).unwrap_or(usize::MAX);
        let what = || format!("a key-value cache of {n_rows} rows of {capacity} positions");
        crate::memory::check(bytes, what, "run fewer rows or shorter texts")?;
        let one = || vec![0f32; n_rows * capacity * width];
        let layers = (0..n_layers).map(|_| (one(), one())).collect();
        Ok(Self { prefix, layers, width, capacity, lens_B: vec![0; n_rows], context })
    }

    /// Rows.
    pub fn n_rows(&self) -> usize {
        self.lens_B.len()
    }

    /// Positions held of a row.
    pub fn len(&self, row: usize) -> usize {
        self.prefix.iter().map(|s| s.rows_B[row].1).sum::<usize>() + self.lens_B[row]
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        (0..self.n_rows()).all(|row| self.len(row) == 0)
    }

    /// The most positions that a row can come to hold.
    pub(crate) fn context(&self) -> usize {
        self.context
    }

    /// Ends its growth, so that it can be continued by many.
    pub fn freeze(self) -> Prefix {
        let lens_B: Vec<usize> = (0..self.n_rows()).map(|row| self.len(row)).collect();
        let rows_B = self.lens_B.iter().copied().enumerate().collect();
        let (n_layers, mut segments) = (self.layers.len(), self.prefix);
        segments.push(Segment { layers: Arc::new(self.layers), capacity: self.capacity, rows_B });
        Prefix { segments, n_layers, width: self.width, lens_B }
    }

    /// Writes new keys and values behind those of a layer; [`KvCache::advance`] makes them count.
    pub(crate) fn append(&mut self, layer: usize, lens_B: &[usize], keys: &Value, values: &Value) -> Result<()> {
        if keys.is_recorded() || values.is_recorded() {
            let detail = "gradients through a key-value cache are not kept; run without a cache";
            return Err(ModelError::Request(detail.into()));
        }
        let (own_keys, own_values) = &mut self.layers[layer];
        for (own, new) in [(own_keys, keys), (own_values, values)] {
            let (new, mut from) = (f32s(new.tensor())?, 0);
            for (row, n) in lens_B.iter().enumerate() {
                let at = (row * self.capacity + self.lens_B[row]) * self.width;
                own[at..at + n * self.width].copy_from_slice(&new[from..from + n * self.width]);
                from += n * self.width;
            }
        }
        Ok(())
    }

    /// The keys and values of each row, with `lens_B` appended ones.
    pub(crate) fn spans(&self, layer: usize, lens_B: &[usize]) -> Vec<Vec<KeySpan<'_>>> {
        (0..self.n_rows())
            .map(|row| {
                let shared = self.prefix.iter().map(|s| {
                    let (from, len) = s.rows_B[row];
                    slice(&s.layers[layer], s.capacity, self.width, from, len)
                });
                let own = slice(&self.layers[layer], self.capacity, self.width, row, self.lens_B[row] + lens_B[row]);
                shared.chain([own]).collect()
            })
            .collect()
    }

    pub(crate) fn advance(&mut self, lens_B: &[usize]) {
        self.lens_B.iter_mut().zip(lens_B).for_each(|(len, by)| *len += by);
    }

    pub(crate) fn check(&self, more_B: &[usize]) -> Result<()> {
        let fits = |(len, more): (&usize, &usize)| len + more <= self.capacity;
        if more_B.len() != self.n_rows() || !self.lens_B.iter().zip(more_B).all(fits) {
            let held = format!("{} rows with {:?} of {} positions", self.n_rows(), self.lens_B, self.capacity);
            return Err(ModelError::Request(format!("a cache of {held} cannot take {more_B:?} more")));
        }
        Ok(())
    }
}

/// The first `len` positions of a row.
fn slice((keys, values): &(Vec<f32>, Vec<f32>), capacity: usize, width: usize, row: usize, len: usize) -> KeySpan<'_> {
    let range = row * capacity * width..(row * capacity + len) * width;
    KeySpan { keys: &keys[range.clone()], values: &values[range], len }
}

impl Prefix {
    /// Rows.
    pub fn n_rows(&self) -> usize {
        self.lens_B.len()
    }

    /// Positions of a row.
    pub fn len(&self, row: usize) -> usize {
        self.lens_B[row]
    }

    /// Whether it holds no positions.
    pub fn is_empty(&self) -> bool {
        self.lens_B.iter().all(|len| *len == 0)
    }

    /// Lays rows of two continuations of one prefix behind each other, as if neither had seen the other: row i holds
    /// what row `rows[i].0` of this holds, then what row `rows[i].1` of `other` has of its own. Positions stay what they
    /// were when each was run.
    ///
    /// # Errors
    /// A row that does not exist, an `other` of another model.
    pub fn beside(&self, other: &Self, rows: &[(usize, usize)]) -> Result<Self> {
        let Some(own) = other.segments.last().filter(|_| (other.n_layers, other.width) == (self.n_layers, self.width))
        else {
            return Err(ModelError::Request("prefixes of two models cannot be laid together".into()));
        };
        if let Some((a, b)) = rows.iter().find(|(a, b)| *a >= self.n_rows() || *b >= other.n_rows()) {
            let detail = format!("rows {a} and {b} of prefixes of {} and {} rows", self.n_rows(), other.n_rows());
            return Err(ModelError::Request(detail));
        }
        let taken = |s: &Segment, of: &dyn Fn(&(usize, usize)) -> usize| Segment {
            layers: s.layers.clone(),
            capacity: s.capacity,
            rows_B: rows.iter().map(|pair| s.rows_B[of(pair)]).collect(),
        };
        let mut segments: Vec<Segment> = self.segments.iter().map(|s| taken(s, &|pair| pair.0)).collect();
        segments.push(taken(own, &|pair| pair.1));
        let lens_B = rows.iter().map(|(a, b)| self.lens_B[*a] + own.rows_B[*b].1).collect();
        Ok(Self { segments, n_layers: self.n_layers, width: self.width, lens_B })
    }

    /// A cache whose row i continues row `rows[i]`, with room for `more` positions each.
    ///
    /// # Errors
    /// A row that does not exist, a cache that would not fit into memory.
    pub fn fork(&self, rows: &[usize], more: usize) -> Result<KvCache> {
        if let Some(row) = rows.iter().find(|r| **r >= self.n_rows()) {
            return Err(ModelError::Request(format!("row {row} of a prefix of {} rows", self.n_rows())));
        }
        let continued = |s: &Segment| {
            let rows_B = rows.iter().map(|r| s.rows_B[*r]).collect();
            Segment { layers: s.layers.clone(), capacity: s.capacity, rows_B }
        };
        let segments = self.segments.iter().map(continued).collect();
        let longest = rows.iter().map(|r| self.lens_B[*r]).max().unwrap_or(0);
        KvCache::behind(segments, (self.n_layers, self.width), rows.len(), more, longest + more)
    }
}
