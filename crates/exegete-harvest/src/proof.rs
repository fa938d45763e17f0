//! Proof on load: what a dictionary does on a little text, beside what its publisher says.
//!
//! A dictionary that is read with a wrong convention, or at a wrong site, runs without a word; its numbers tell.

use exegete_sae::formats::Saved;
use exegete_sae::kinds::Rule;
use serde::Serialize;

use crate::measure::{CE_RECOVERED, Measured};

/// A measured L0 may be so far from the stated one, as a share of it: the texts differ.
const L0_TOLERANCE: f64 = 0.25;
/// The measured fraction of variance explained may be so far below the stated one: some publishers count position 0, whose
/// activations are large, or measure variance about 0.
const VARIANCE_TOLERANCE: f64 = 0.25;
/// The same where it was stated by our own training, on other documents.
const OUR_VARIANCE_TOLERANCE: f64 = 0.1;

/// Whether what was measured is what was stated.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "verdict", content = "why")]
pub enum Verdict {
    /// It is.
    #[serde(rename = "consistent")]
    Consistent(String),
    /// It is not, and why.
    #[serde(rename = "not consistent")]
    NotConsistent(String),
    /// Nothing was stated that could be compared, and nothing speaks against the dictionary.
    #[serde(rename = "no published figure")]
    NoFigure,
}

/// What is stated of a dictionary.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stated {
    /// Mean number of active latents.
    pub l0: Option<f64>,
    /// Whether that is the k by which it runs, or what comes of it, and so says nothing.
    pub is_k: bool,
    /// Fraction of variance explained.
    pub variance: Option<f64>,
    /// Whether that was measured as it is here.
    pub is_ours: bool,
}

impl Stated {
    /// What the files of a dictionary, or its release, state.
    pub fn of(saved: &Saved) -> Self {
        let encoders = saved.dictionary.encoders();
        // Of a token with fewer than k above 0 fewer are active, so that what is measured may be a little below.
        let is_k = |l0: f64| match encoders.first().map(|sae| &sae.rule) {
            Some(Rule::TopK(top)) => (l0 / (top.k * encoders.len()) as f64 - 1.0).abs() < 0.01,
            _ => false,
        };
        // In training, each of several sites weighs alike.
        let is_ours = saved.metadata.contains_key("exegete_fvu") && !saved.is_crosscoder() && encoders.len() == 1;
        let l0 = saved.published_l0;
        Self { l0, is_k: l0.is_some_and(is_k), variance: saved.published_variance, is_ours }
    }
}

/// Compares what was measured with what the publisher states.
pub fn verdict(measured: &Measured, stated: Stated) -> Verdict {
    let fvu = measured.value("FVU");
    if fvu.is_nan() || fvu >= 1.0 {
        return Verdict::NotConsistent(format!(
            "its reconstruction is worse than the mean of the activations (FVU {fvu:.2}): another site, another model, or a \
             convention that was understood wrongly"
        ));
    }
    let recovered = measured.value(CE_RECOVERED);
    if recovered < 0.0 {
        return Verdict::NotConsistent(format!(
            "with it the model does worse than with zeros (CE recovered {recovered:.2})"
        ));
    }
    let (mut said, mut is_off) = (Vec::new(), false);
    if let Some(l0) = stated.l0 {
        if !l0.is_finite() || l0 <= 0.0 {
            return Verdict::NotConsistent(format!("its files state an L0 of {l0}, which no dictionary has"));
        }
        let found = measured.value("L0");
        said.push(format!("L0 {found:.1} measured, {l0:.1} {}", if stated.is_k { "its k" } else { "stated" }));
        is_off |= (found - l0).abs() / l0 > L0_TOLERANCE;
    }
    if let Some(variance) = stated.variance {
        let found = 1.0 - fvu;
        said.push(format!("variance explained {found:.3} measured, {variance:.3} stated"));
        is_off |= variance - found > if stated.is_ours { OUR_VARIANCE_TOLERANCE } else { VARIANCE_TOLERANCE };
    }
    let is_compared = stated.variance.is_some() || stated.l0.is_some() && !stated.is_k;
    match (is_off, is_compared) {
        (true, _) => Verdict::NotConsistent(said.join("; ")),
        (false, true) => Verdict::Consistent(said.join("; ")),
        (false, false) => Verdict::NoFigure,
    }
}

#[cfg(test)]
mod tests {
    use exegete_base::stats::mean_of;
    use exegete_sae::Sae;
    use exegete_sae::kinds::{Relu, TopK};
    use exegete_sae::metrics::compat::Batches;

    use super::*;
    use crate::measure::Number;

    #[test]
    fn the_k_of_a_dictionary_is_no_figure() {
        let mut saved = Saved::new(Sae::zeros(4, 4, 40, Rule::TopK(TopK { k: 32 })), "saelens");
        for (l0, is_k) in [(32.0, true), (31.97, true), (16.0, false), (f64::NAN, false)] {
            saved.published_l0 = Some(l0);
            assert_eq!(Stated::of(&saved).is_k, is_k, "{l0}");
        }
        saved.published_l0 = None;
        assert!(!Stated::of(&saved).is_k);
        saved = Saved::new(Sae::zeros(4, 4, 40, Rule::Relu(Relu)), "saelens");
        saved.published_l0 = Some(32.0);
        assert!(!Stated::of(&saved).is_k);
    }

    fn measured(l0: f64, fvu: f64, recovered: f64) -> Measured {
        let number =
            |(name, value): (&'static str, f64)| Number { name, estimate: mean_of(&[value]), pairs: Vec::new() };
        Measured {
            tokens: 1000,
            numbers: [("L0", l0), ("FVU", fvu), (CE_RECOVERED, recovered)].map(number).into(),
            loss: [0.0; 3],
            kl: [0.0; 2],
            dead: mean_of(&[0.0]),
            dense: Vec::new(),
            densities: Vec::new(),
            batches: Batches::default(),
        }
    }

    #[test]
    fn what_is_stated_is_held_against_what_is_measured() {
        let good = measured(32.0, 0.1, 0.9);
        let of = |l0: f64, variance: f64| Stated { l0: Some(l0), variance: Some(variance), ..Stated::default() };
        let is_off = |measured: &Measured, stated| match verdict(measured, stated) {
            Verdict::NotConsistent(why) => Some(why),
            _ => None,
        };
        assert!(
            matches!(verdict(&good, of(30.0, 0.8)), Verdict::Consistent(why) if why.contains("0.900 measured, 0.800"))
        );
        assert_eq!(is_off(&good, of(26.0, 1.1)), None);
        assert!(is_off(&good, of(25.0, 0.9)).unwrap().contains("L0 32.0 measured, 25.0 stated"));
        assert!(is_off(&measured(32.0, 0.5, 0.9), of(32.0, 0.9)).unwrap().contains("0.500 measured, 0.900 stated"));
        // Our own figures were measured alike.
        let ours = Stated { is_ours: true, ..of(32.0, 0.95) };
        assert!(is_off(&measured(32.0, 0.17, 0.9), ours).is_some() && is_off(&good, ours).is_none());
        // What no figure says, and what speaks against a dictionary whatever is stated.
        let k = Stated { l0: Some(32.0), is_k: true, ..Stated::default() };
        assert_eq!(verdict(&good, k), Verdict::NoFigure);
        assert!(is_off(&measured(20.0, 0.1, 0.9), k).is_some());
        assert_eq!(verdict(&good, Stated::default()), Verdict::NoFigure);
        for l0 in [-20.0, 0.0, f64::NAN] {
            assert!(is_off(&good, of(l0, 0.9)).unwrap().contains("which no dictionary has"));
        }
        for bad in [measured(32.0, 1.5, 0.9), measured(32.0, f64::NAN, 0.9), measured(32.0, 0.1, -0.1)] {
            assert!(is_off(&bad, of(32.0, 0.9)).is_some());
        }
    }
}
