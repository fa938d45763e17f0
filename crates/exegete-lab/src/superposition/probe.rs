//! Where superposition begins in `y = W_out ReLU(W_in x + b)`: in the hidden layer, or in the projection after it.
//!
//! A feature has an atom in the hidden layer, the direction `a_f` that it adds there, and `W_out a_f` after the
//! projection. The atom of the AND of two inputs is what both together do beyond what each does alone
//! ([`and_atom`]); of a feature that is one input, the change that it makes. Three views, each with its control:
//!
//! 1. neuron alignment: `max_j |cos(a_f, e_j)|`, the share of an atom's length on its largest neuron, and the number of
//!    features for which a neuron carries at least half of an atom's largest entry;
//! 2. the Gram matrix of the columns of `W_out` restricted to neurons that are active together: their mean absolute
//!    cosine, beside that of all pairs of neurons in use;
//! 3. capacity ([`super::geometry::capacity`]) of the atoms before the projection and after it, beside that of as many
//!    random directions of the same width.
//!
//! The verdict names the first place where features share dimensions, mean capacity below [`SHARED`]: `hidden`, else
//! `output`, else `none`. A layer that superposes in the hidden layer usually does so after it, too: the numbers say how
//! much each place adds.

use exegete_base::stats::{Estimate, ratio_of_sums};
use serde::{Deserialize, Serialize};

use super::draws::Draws;
use super::geometry::{capacity, cosine, mean, norm};
use super::mlp::Mlp;

/// Mean capacity below which features share dimensions: halfway between 1, a dimension each, and 1/2, antipodal pairs.
pub const SHARED: f64 = 0.75;

/// Length of an atom up to which its feature counts as absent.
const SILENT: f64 = 1e-6;

/// The first place of superposition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Features share dimensions of the hidden layer.
    Hidden,
    /// They are apart in the hidden layer and share dimensions after the projection.
    Output,
    /// They are apart in both.
    None,
}

impl Verdict {
    /// The word in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hidden => "hidden",
            Self::Output => "output",
            Self::None => "none",
        }
    }
}

/// What the probe found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Probe {
    /// Width of inputs and outputs.
    pub d: u64,
    /// Hidden neurons.
    pub n_neurons: u64,
    /// Features.
    pub n_features: u64,
    /// Features that add nothing to the hidden layer; they are left out of the means.
    pub n_silent: u64,
    /// Mean over features of the largest absolute cosine with a neuron's axis.
    pub alignment: Estimate,
    /// Mean over neurons in use of the features that they carry.
    pub features_per_neuron: Estimate,
    /// Mean absolute cosine between columns of `W_out` of two neurons that are active together; the unit is the input.
    pub coactive_cosine: Estimate,
    /// The same over all pairs of neurons in use.
    pub all_cosine: f64,
    /// Mean capacity of the atoms before the projection.
    pub capacity_hidden: Estimate,
    /// Mean capacity after it.
    pub capacity_output: Estimate,
    /// Mean capacity of as many random directions in the hidden layer.
    pub capacity_hidden_random: f64,
    /// Mean capacity of as many random directions in the output.
    pub capacity_output_random: f64,
    /// Capacity of each feature that is not silent, before the projection.
    pub capacity_hidden_F: Vec<f64>,
    /// And after it.
    pub capacity_output_F: Vec<f64>,
    /// The first place of superposition.
    pub verdict: Verdict,
}

/// The atom of the AND of inputs `a` and `b`, `[M]`: `h(a and b) - h(a) - h(b) + h(neither)`, what the neurons do for
/// the two together that is not the sum of what they do for each.
pub fn and_atom(mlp: &Mlp, a: usize, b: usize) -> Vec<f32> {
    let hidden = |on: &[usize]| {
        let mut x = vec![0f32; mlp.d];
        on.iter().for_each(|i| x[*i] = 1.0);
        mlp.hidden(&x)
    };
    let (both, only_a, only_b, neither) = (hidden(&[a, b]), hidden(&[a]), hidden(&[b]), hidden(&[]));
    (0..mlp.n_neurons()).map(|j| both[j] - only_a[j] - only_b[j] + neither[j]).collect()
}

/// Probes a layer.
///
/// # Shapes
/// `atoms_FM`: `F` atoms of `[M]`. `inputs_ND [N, D]`: inputs as the layer meets them, from which it is seen which
/// neurons are active together.
pub fn probe(mlp: &Mlp, atoms_FM: &[Vec<f32>], inputs_ND: &[f32], draws: &mut Draws) -> Probe {
    let (d, m) = (mlp.d, mlp.n_neurons());
    let atoms: Vec<Vec<f32>> = atoms_FM.iter().filter(|a| norm(a) > SILENT).cloned().collect();
    let projected: Vec<f32> = atoms.iter().flat_map(|a| mlp.project(a)).collect();
    let (before, after) = (capacity(&atoms.concat(), m), capacity(&projected, d));
    let random = |width: usize, draws: &mut Draws| {
        let rows: Vec<f32> = (0..atoms.len() * width).map(|_| draws.normal() as f32).collect();
        mean(&capacity(&rows, width)).value
    };
    let largest = |a: &[f32]| a.iter().fold(0f32, |most, v| most.max(v.abs()));
    let alignment: Vec<f64> = atoms.iter().map(|a| f64::from(largest(a)) / norm(a)).collect();
    let mut carried = vec![0f64; m];
    for a in &atoms {
        let half = 0.5 * largest(a);
        carried.iter_mut().zip(a).filter(|(_, v)| v.abs() >= half).for_each(|(count, _)| *count += 1.0);
    }
    let used: Vec<usize> = (0..m).filter(|j| carried[*j] > 0.0).collect();
    let (coactive_cosine, all_cosine) = cosines(mlp, &used, inputs_ND);
    let (capacity_hidden, capacity_output) = (mean(&before), mean(&after));
    Probe {
        d: d as u64,
        n_neurons: m as u64,
        n_features: atoms_FM.len() as u64,
        n_silent: (atoms_FM.len() - atoms.len()) as u64,
        alignment: mean(&alignment),
        features_per_neuron: mean(&used.iter().map(|j| carried[*j]).collect::<Vec<f64>>()),
        coactive_cosine,
        all_cosine,
        capacity_hidden,
        capacity_output,
        capacity_hidden_random: random(m, draws),
        capacity_output_random: random(d, draws),
        capacity_hidden_F: before,
        capacity_output_F: after,
        verdict: match (capacity_hidden.value < SHARED, capacity_output.value < SHARED) {
            (true, _) => Verdict::Hidden,
            (false, true) => Verdict::Output,
            (false, false) => Verdict::None,
        },
    }
}

/// Mean absolute cosine of the columns of `W_out` over pairs of neurons active on one input, and over all pairs.
fn cosines(mlp: &Mlp, used: &[usize], inputs_ND: &[f32]) -> (Estimate, f64) {
    let m = mlp.n_neurons();
    let columns: Vec<Vec<f32>> = (0..m).map(|j| mlp.column(j)).collect();
    let mut gram = vec![0f64; m * m];
    for (i, j) in used.iter().flat_map(|i| used.iter().map(move |j| (*i, *j))) {
        gram[i * m + j] = cosine(&columns[i], &columns[j]).abs();
    }
    let over = |neurons: &[usize]| -> (f64, f64) {
        let pairs = neurons.iter().enumerate().flat_map(|(at, i)| neurons[at + 1..].iter().map(move |j| (*i, *j)));
        pairs.fold((0.0, 0.0), |(sum, n), (i, j)| (sum + gram[i * m + j], n + 1.0))
    };
    let of_input = |x: &[f32]| {
        let hidden = mlp.hidden(x);
        over(&used.iter().copied().filter(|j| hidden[*j] > 0.0).collect::<Vec<usize>>())
    };
    let of_inputs: Vec<(f64, f64)> = inputs_ND.chunks_exact(mlp.d).map(of_input).filter(|(_, n)| *n > 0.0).collect();
    let (sum, n) = over(used);
    (ratio_of_sums(&of_inputs), sum / n)
}
