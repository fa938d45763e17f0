//! What a dictionary costs the model that it is put into: of losses and logits that come in as arrays.

use exegete_tensor::cpu::loss::log_sum_exp;
use rayon::prelude::*;

/// Kullback-Leibler divergence of what other logits say from what the clean ones say, `KL(clean || other)`, in nats.
///
/// # Shapes
/// `clean_NV, other_NV -> [N]`
pub fn kl_divergence(clean_NV: &[f32], other_NV: &[f32], vocab: usize) -> Vec<f64> {
    let one = |(clean, other): (&[f32], &[f32])| {
        let (clean_lse, other_lse) = (f64::from(log_sum_exp(clean)), f64::from(log_sum_exp(other)));
        let term = |(c, o): (&f32, &f32)| {
            let (log_p, log_q) = (f64::from(*c) - clean_lse, f64::from(*o) - other_lse);
            log_p.exp() * (log_p - log_q)
        };
        clean.iter().zip(other).map(term).sum::<f64>()
    };
    clean_NV.par_chunks_exact(vocab).zip(other_NV.par_chunks_exact(vocab)).map(one).collect()
}

/// CE recovered as a ratio: `(loss with zeros - loss with the reconstruction) / (loss with zeros - loss as it is)`.
pub fn ce_recovered(clean: f64, with: f64, zeros: f64) -> (f64, f64) {
    (zeros - with, zeros - clean)
}

/// KL score as a ratio: `(KL with zeros - KL with the reconstruction) / KL with zeros`.
pub fn kl_score(with: f64, zeros: f64) -> (f64, f64) {
    (zeros - with, zeros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_is_no_way_from_itself_whatever_is_added_to_its_logits() {
        let clean = [0.3f32, -1.0, 2.0, 0.0, 0.0, 0.0];
        let moved: Vec<f32> = clean.iter().map(|l| l + 5.0).collect();
        assert!(kl_divergence(&clean, &moved, 3).iter().all(|kl| kl.abs() < 1e-6));
        // From the even distribution over three to one that is nearly sure: log(sum of e^l) - mean l - log 3.
        let kl = kl_divergence(&[0.0; 3], &[6.0, 0.0, 0.0], 3)[0];
        assert!((kl - ((6f64.exp() + 2.0).ln() - 2.0 - 3f64.ln())).abs() < 1e-5, "{kl}");
    }
}
