//! Embedding: cosine between the vectors of the text and of the excerpts.
//!
//! Vectors of a decoder all point nearly the same way, so the mean over all other excerpts, either kind counting half, is taken off first. An
//! excerpt has no part in the mean that it is held against: otherwise one kind would lie nearer to it whatever the text.
//! Source: EleutherAI/delphi (`scorers/embedding`), which asks a sentence encoder.

use serde_json::json;

use super::{Outcome, Task};
use crate::Result;

pub(super) fn score(task: &Task) -> Result<Vec<Outcome>> {
    let (texts, excerpts) = (task.with_controls(), task.excerpts()?);
    let all: Vec<String> = texts.iter().chain(&excerpts).cloned().collect();
    let vectors = task.judge.embed(&all)?;
    let (of_texts, of_excerpts) = vectors.split_at(texts.len());
    let width = vectors.iter().map(Vec::len).max().unwrap_or(0);
    let sum = |of: &[Vec<f32>]| {
        let of: Vec<&Vec<f32>> = of.iter().filter(|v| v.len() == width).collect();
        let sum = (0..width).map(|i| of.iter().map(|v| f64::from(v[i])).sum::<f64>()).collect::<Vec<f64>>();
        (sum, of.len() as f64)
    };
    let n_firing = task.firing.len().min(of_excerpts.len());
    let kinds = [sum(&of_excerpts[..n_firing]), sum(&of_excerpts[n_firing..])];
    let cosine = |text: &[f32], at: usize| {
        let excerpt = &of_excerpts[at];
        if text.len() != width || excerpt.len() != width {
            return None;
        }
        let own = usize::from(at >= n_firing);
        let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
        for i in 0..width {
            let x = f64::from(excerpt[i]);
            let part = |kind: usize| {
                let (sum, n) = &kinds[kind];
                if kind == own { (sum[i] - x) / (n - 1.0) } else { sum[i] / n }
            };
            let mean = (part(0) + part(1)) / 2.0;
            let (a, b) = (f64::from(text[i]) - mean, x - mean);
            ab += a * b;
            aa += a * a;
            bb += b * b;
        }
        Some(ab / (aa * bb).sqrt())
    };
    let row = |text: &Vec<f32>| (0..of_excerpts.len()).map(|at| cosine(text, at)).collect();
    let values: Vec<Vec<Option<f64>>> = of_texts.iter().map(row).collect();
    Ok(task.outcomes(&values, |_, _| json!({"measure": "auroc"})))
}
