//! What an edit can do: replace, add, add at the activation's own length, project out, set a component, scale, ablate
//! heads, cut attention edges. Each is a [`SiteFn`], one struct each. Clamping the latents of a dictionary is
//! `exegete_sae::Clamp`.

use exegete_tensor::{Place, Result, SiteFn, Tensor, TensorError, f32s, tensor};

/// Vectors to insert.
#[derive(Debug, Clone)]
pub enum Vectors {
    /// The same vector everywhere.
    One(Vec<f32>),
    /// One vector for each batch row, `[B, D]`.
    PerRow(Vec<Vec<f32>>),
    /// One vector for each place, `[B, T, D]`: another run's activations.
    PerPlace(Tensor),
}

impl Vectors {
    fn with<R>(&self, place: Place, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
        let missing = |len: usize| TensorError::Index { op: "edit", index: place.row as u64, len };
        match self {
            Self::One(v) => Ok(f(v)),
            Self::PerRow(rows) => Ok(f(rows.get(place.row).ok_or_else(|| missing(rows.len()))?)),
            Self::PerPlace(t) => {
                let (b, len, d) = t.dims3()?;
                if place.row >= b {
                    return Err(missing(b));
                }
                if place.position >= len {
                    return Err(TensorError::Index { op: "edit position", index: place.position as u64, len });
                }
                let at = (place.row * len + place.position) * d;
                Ok(f(&f32s(t)?[at..at + d]))
            }
        }
    }
}

/// Maps each row of `x` and keeps its shape.
fn map_rows(x: &Tensor, places: &[Place], f: impl Fn(&mut [f32], Place) -> Result<()>) -> Result<Tensor> {
    let (n, d) = x.dims2()?;
    let mut out = f32s(x)?.to_vec();
    if n != places.len() {
        return Err(TensorError::shape("edit", format!("{n} rows, {} places", places.len())));
    }
    for (row, place) in out.chunks_exact_mut(d).zip(places) {
        f(row, *place)?;
    }
    tensor(out, (n, d))
}

fn check_len(got: usize, want: usize) -> Result<()> {
    match got == want {
        true => Ok(()),
        false => Err(TensorError::shape("edit", format!("a vector of {got} values for a site of width {want}"))),
    }
}

/// `x' = v`: the activation is replaced.
pub struct Replace(pub Vectors);

impl SiteFn for Replace {
    fn forward(&self, x_ND: &Tensor, places: &[Place]) -> Result<Tensor> {
        map_rows(x_ND, places, |row, place| {
            self.0.with(place, |v| {
                check_len(v.len(), row.len())?;
                row.copy_from_slice(v);
                Ok(())
            })?
        })
    }

    fn backward(&self, x_ND: &Tensor, _: &[Place], _: &Tensor) -> Result<Tensor> {
        exegete_tensor::zeros(x_ND.dims())
    }
}

/// `x' = x + scale * v`.
pub struct Add {
    /// What is added.
    pub vectors: Vectors,
    /// Its factor.
    pub scale: f32,
}

impl SiteFn for Add {
    fn forward(&self, x_ND: &Tensor, places: &[Place]) -> Result<Tensor> {
        map_rows(x_ND, places, |row, place| {
            self.vectors.with(place, |v| {
                check_len(v.len(), row.len())?;
                row.iter_mut().zip(v).for_each(|(x, v)| *x += self.scale * v);
                Ok(())
            })?
        })
    }

    fn backward(&self, _: &Tensor, _: &[Place], grad_ND: &Tensor) -> Result<Tensor> {
        Ok(grad_ND.clone())
    }
}

/// `x' = x - (x . u) u` with `u = v / |v|`: nothing is left along the direction.
pub struct ProjectOut(Vec<f32>);

impl ProjectOut {
    /// From a direction of any length; the zero vector projects nothing out.
    pub fn new(direction: &[f32]) -> Self {
        let norm = direction.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let inv = if norm > 0.0 { 1.0 / norm } else { 0.0 };
        Self(direction.iter().map(|v| (f64::from(*v) * inv) as f32).collect())
    }
}

impl SiteFn for ProjectOut {
    fn forward(&self, x_ND: &Tensor, places: &[Place]) -> Result<Tensor> {
        map_rows(x_ND, places, |row, _| {
            check_len(self.0.len(), row.len())?;
            let along: f32 = row.iter().zip(&self.0).map(|(x, u)| x * u).sum();
            row.iter_mut().zip(&self.0).for_each(|(x, u)| *x -= along * u);
            Ok(())
        })
    }

    fn backward(&self, _: &Tensor, places: &[Place], grad_ND: &Tensor) -> Result<Tensor> {
        // The projection is symmetric: its transpose is itself.
        self.forward(grad_ND, places)
    }
}

/// `x' = factor * x`.
pub struct Scale(pub f32);

impl SiteFn for Scale {
    fn forward(&self, x_ND: &Tensor, places: &[Place]) -> Result<Tensor> {
        map_rows(x_ND, places, |row, _| {
            row.iter_mut().for_each(|x| *x *= self.0);
            Ok(())
        })
    }

    fn backward(&self, _: &Tensor, places: &[Place], grad_ND: &Tensor) -> Result<Tensor> {
        self.forward(grad_ND, places)
    }
}

/// `x' = x + scale * |x| * v / |v|`: what is added is as long as the activation itself (Karvonen et al. 2025,
/// "Activation Oracles").
pub struct AddAtNorm {
    /// What is added; its length does not count, and the zero vector adds nothing.
    pub vectors: Vectors,
    /// Its factor.
    pub scale: f32,
}

fn norm(x: &[f32]) -> f32 {
    x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt() as f32
}

impl SiteFn for AddAtNorm {
    fn forward(&self, x_ND: &Tensor, places: &[Place]) -> Result<Tensor> {
        map_rows(x_ND, places, |row, place| {
            self.vectors.with(place, |v| {
                check_len(v.len(), row.len())?;
                let by = match norm(v) {
                    0.0 => 0.0,
                    length => self.scale * norm(row) / length,
                };
                row.iter_mut().zip(v).for_each(|(x, v)| *x += by * v);
                Ok(())
            })?
        })
    }

    fn backward(&self, x_ND: &Tensor, places: &[Place], grad_ND: &Tensor) -> Result<Tensor> {
        // d|x| / dx = x / |x|
        let (n, d) = x_ND.dims2()?;
        let (x, mut out) = (f32s(x_ND)?, f32s(grad_ND)?.to_vec());
        for ((x, g), place) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)).zip(places) {
            let by = self.vectors.with(*place, |v| {
                let along: f32 = g.iter().zip(v).map(|(g, v)| g * v).sum();
                match norm(v) * norm(x) {
                    0.0 => 0.0,
                    lengths => self.scale * along / lengths,
                }
            })?;
            g.iter_mut().zip(x).for_each(|(g, x)| *g += by * x);
        }
        tensor(out, (n, d))
    }
}

/// `x' = x + (value - x . u) u` with `u = v / |v|`: the component along a direction becomes `value`.
pub struct SetComponent {
    unit: Vec<f32>,
    value: f32,
}

impl SetComponent {
    /// From a direction of any length; the zero vector sets nothing.
    pub fn new(direction: &[f32], value: f32) -> Self {
        Self { unit: ProjectOut::new(direction).0, value }
    }
}

impl SiteFn for SetComponent {
    fn forward(&self, x_ND: &Tensor, places: &[Place]) -> Result<Tensor> {
        map_rows(x_ND, places, |row, _| {
            check_len(self.unit.len(), row.len())?;
            let along: f32 = row.iter().zip(&self.unit).map(|(x, u)| x * u).sum();
            row.iter_mut().zip(&self.unit).for_each(|(x, u)| *x += (self.value - along) * u);
            Ok(())
        })
    }

    fn backward(&self, x_ND: &Tensor, places: &[Place], grad_ND: &Tensor) -> Result<Tensor> {
        ProjectOut(self.unit.clone()).backward(x_ND, places, grad_ND)
    }
}

/// Multiplies the values of some heads, at a site that has heads (`attn.hook_z`, `attn.hook_q`): 0 ablates them.
pub struct ScaleHeads {
    /// The heads.
    pub heads: Vec<usize>,
    /// Values of a head.
    pub width: usize,
    /// Factor.
    pub factor: f32,
}

impl SiteFn for ScaleHeads {
    fn forward(&self, x_ND: &Tensor, places: &[Place]) -> Result<Tensor> {
        map_rows(x_ND, places, |row, _| {
            for head in &self.heads {
                let (from, to) = (head * self.width, (head + 1) * self.width);
                let len = row.len() / self.width.max(1);
                let values = row.get_mut(from..to);
                let values = values.ok_or(TensorError::Index { op: "edit", index: *head as u64, len })?;
                values.iter_mut().for_each(|x| *x *= self.factor);
            }
            Ok(())
        })
    }

    fn backward(&self, _: &Tensor, places: &[Place], grad_ND: &Tensor) -> Result<Tensor> {
        self.forward(grad_ND, places)
    }
}

/// At `attn.hook_attn_scores`: the chosen queries do not see some keys; their attention goes to the others. A query
/// that sees no key at all mixes nothing.
pub struct CutEdges {
    /// Heads; all where `None`.
    pub heads: Option<Vec<usize>>,
    /// Query heads of the model.
    pub n_heads: usize,
    /// Positions of the keys.
    pub keys: Vec<usize>,
}

impl CutEdges {
    /// Offsets in a row of `[H * S]` scores that are cut.
    fn cut(&self, width: usize) -> Result<Vec<usize>> {
        let n_keys = width / self.n_heads.max(1);
        let all: Vec<usize> = (0..self.n_heads).collect();
        let heads = self.heads.as_ref().unwrap_or(&all);
        if let Some(head) = heads.iter().find(|h| **h >= self.n_heads) {
            return Err(TensorError::Index { op: "edit", index: *head as u64, len: self.n_heads });
        }
        // A key that does not exist yet is not seen anyway.
        let keys = || self.keys.iter().filter(|k| **k < n_keys);
        Ok(heads.iter().flat_map(|h| keys().map(move |k| h * n_keys + k)).collect())
    }

    fn put(&self, x: &Tensor, places: &[Place], value: f32) -> Result<Tensor> {
        let cut = self.cut(x.dims2()?.1)?;
        map_rows(x, places, |row, _| {
            cut.iter().for_each(|i| row[*i] = value);
            Ok(())
        })
    }
}

impl SiteFn for CutEdges {
    fn forward(&self, x_ND: &Tensor, places: &[Place]) -> Result<Tensor> {
        self.put(x_ND, places, f32::NEG_INFINITY)
    }

    fn backward(&self, _: &Tensor, places: &[Place], grad_ND: &Tensor) -> Result<Tensor> {
        self.put(grad_ND, places, 0.0)
    }
}
