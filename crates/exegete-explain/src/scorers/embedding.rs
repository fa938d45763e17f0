//! Embedding: cosine between the vectors of the text and of the excerpts.
//!
//! Vectors of a decoder all point nearly the same way, so the mean over the excerpts on which the latent is silent is taken off first.
//! Source: EleutherAI/delphi (`scorers/embedding`), which asks a sentence encoder.

use serde_json::json;

use super::{Outcome, Task};
use crate::Result;

pub(super) fn score(task: &Task) -> Result<Vec<Outcome>> {
    let (texts, excerpts) = (task.with_control(), task.excerpts()?);
    let all: Vec<String> = texts.iter().chain(&excerpts).cloned().collect();
    let vectors = task.judge.embed(&all)?;
    let (of_texts, of_excerpts) = vectors.split_at(texts.len());
    let width = vectors.iter().map(Vec::len).max().unwrap_or(0);
    let mean = |of: &[Vec<f32>]| {
        let of: Vec<&Vec<f32>> = of.iter().filter(|v| v.len() == width).collect();
        let share = 1.0 / of.len().max(1) as f64;
        (0..width).map(|i| of.iter().map(|v| f64::from(v[i])).sum::<f64>() * share).collect::<Vec<f64>>()
    };
    let of_silent = mean(&of_excerpts[task.firing.len().min(of_excerpts.len())..]);
    // A text of its own is centred like the excerpts: what all texts share says nothing of this latent, but it is the same for all
    // excerpts, too.
    let cosine = |a: &[f32], b: &[f32]| {
        if a.len() != width || b.len() != width {
            return None;
        }
        let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
        for ((a, b), m) in a.iter().zip(b).zip(&of_silent) {
            let (a, b) = (f64::from(*a) - m, f64::from(*b) - m);
            ab += a * b;
            aa += a * a;
            bb += b * b;
        }
        Some(ab / (aa * bb).sqrt())
    };
    let row = |text: &Vec<f32>| of_excerpts.iter().map(|excerpt| cosine(text, excerpt)).collect();
    let values: Vec<Vec<Option<f64>>> = of_texts.iter().map(row).collect();
    Ok(task.outcomes(&values, |_, _| json!({"measure": "auroc"})))
}
