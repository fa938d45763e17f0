//! What an edit can do: replace, add, project out, scale. Each is a [`SiteFn`], one struct each.

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
                if place.row >= b || place.position >= len {
                    return Err(missing(b));
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
