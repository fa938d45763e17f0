//! The keys by which configurations describe rotary positions, old spelling (`rope_theta`, `rope_scaling`) and new
//! (`rope_parameters`), and every kind of scaling that transformers knows for text models.

use std::f64::consts::PI;
use std::path::Path;

use super::config::{Config, Rule, Rules};
use crate::rope::{Frequencies, Rope, check_rotated, inverse_frequencies};
use crate::{ModelError, Result};

/// Keys inside `rope_scaling` and `rope_parameters`.
pub(super) const SCALING: Rules = &[
    ("rope_theta", Rule::Handled),
    ("rope_type", Rule::Handled),
    ("type", Rule::Handled),
    ("factor", Rule::Handled),
    ("partial_rotary_factor", Rule::Handled),
    ("original_max_position_embeddings", Rule::Handled),
    ("low_freq_factor", Rule::Handled),
    ("high_freq_factor", Rule::Handled),
    ("attention_factor", Rule::Handled),
    ("beta_fast", Rule::Handled),
    ("beta_slow", Rule::Handled),
    ("mscale", Rule::Handled),
    ("mscale_all_dim", Rule::Handled),
    ("truncate", Rule::Handled),
    ("short_factor", Rule::Handled),
    ("long_factor", Rule::Handled),
    // Written by early LongRoPE releases beside the factors; transformers does not read them.
    ("short_mscale", Rule::Only("null")),
    ("long_mscale", Rule::Only("null")),
];

/// What surrounds a description of rotary positions.
pub(super) struct Around {
    /// Base where none is given.
    pub(super) theta: f64,
    /// Width of a head.
    pub(super) d_head: usize,
    /// Part of the head that is rotated, where none is given.
    pub(super) partial: f64,
    /// `max_position_embeddings`.
    pub(super) max_positions: usize,
    /// `original_max_position_embeddings` beside the description.
    pub(super) original: Option<usize>,
}

/// Reads the rotation of a model that has one for all layers.
///
/// # Errors
/// A kind of scaling that is not known, a key that it needs and lacks.
pub(super) fn read(path: &Path, c: &Config, around: &Around) -> Result<Rope> {
    let old = c.nested("rope_scaling", SCALING)?;
    match (c.nested("rope_parameters", SCALING)?, old) {
        (Some(new), _) => scaled(path, Some(&new), around),
        (None, old) => scaled(path, old.as_ref(), around),
    }
}

/// Reads one description; `None` stands for no scaling.
pub(super) fn scaled(path: &Path, description: Option<&Config>, around: &Around) -> Result<Rope> {
    let Some(d) = description else {
        return Ok(Rope::plain(around.theta, rotated(path, around.d_head, around.partial)?));
    };
    let theta = d.number_or("rope_theta", around.theta)?;
    let rotated = rotated(path, around.d_head, d.number_or("partial_rotary_factor", around.partial)?)?;
    let plain = inverse_frequencies(theta, rotated);
    let kind = d.text("rope_type")?.or(d.text("type")?).unwrap_or("default");
    let fixed = |inv: Vec<f32>, factor: f64| Rope { frequencies: Frequencies::Fixed(inv), factor: factor as f32 };
    // What stands beside the description counts more than what stands in it, as in transformers.
    let original = || match around.original {
        Some(given) => Ok::<_, ModelError>(given),
        None => d.size_or("original_max_position_embeddings", around.max_positions),
    };
    Ok(match kind {
        "default" => fixed(plain, 1.0),
        "linear" => {
            let factor = d.number("factor")? as f32;
            fixed(plain.iter().map(|f| f / factor).collect(), 1.0)
        }
        "dynamic" => {
            let factor = d.number("factor")?;
            if rotated <= 2 {
                return Err(ModelError::config(path, "dynamic rope scaling needs more than 2 rotated dimensions"));
            }
            let frequencies = Frequencies::Dynamic { theta, rotated, factor, original: around.max_positions };
            Rope { frequencies, factor: 1.0 }
        }
        "llama3" => fixed(llama3(d, &plain, original()? as f64)?, 1.0),
        "yarn" => {
            let (inv, factor) = yarn(d, theta, rotated, around.max_positions as f64, original()? as f64)?;
            fixed(inv, factor)
        }
        "longrope" | "su" => longrope(path, d, &plain, around, original()?)?,
        other => {
            let known = "default, linear, dynamic, llama3, yarn, longrope";
            return Err(ModelError::config(path, format!("rope type {other:?} is not handled; handled are {known}")));
        }
    })
}

/// Rotated dimensions of a head, checked before anything of that length is made.
fn rotated(path: &Path, d_head: usize, partial: f64) -> Result<usize> {
    let rotated = (d_head as f64 * partial) as usize;
    let fail = |detail| ModelError::config(path, format!("rotated part {partial} of a head: {detail}"));
    check_rotated(rotated, d_head).map_err(fail)?;
    Ok(rotated)
}

/// Llama 3.1: long waves are stretched by `factor`, short ones kept, those between interpolated.
fn llama3(d: &Config, plain: &[f32], original: f64) -> Result<Vec<f32>> {
    let (factor, low, high) = (d.number("factor")?, d.number("low_freq_factor")?, d.number("high_freq_factor")?);
    let stretch = |f: &f32| {
        let (inv, wave) = (*f, 2.0 * PI as f32 / f);
        if wave > (original / low) as f32 {
            return inv / factor as f32;
        }
        if wave < (original / high) as f32 {
            return inv;
        }
        let smooth = (original as f32 / wave - low as f32) / (high - low) as f32;
        (1.0 - smooth) * inv / factor as f32 + smooth * inv
    };
    Ok(plain.iter().map(stretch).collect())
}

/// YaRN (Peng et al. 2023): interpolation by frequency, and a factor for attention.
fn yarn(d: &Config, theta: f64, rotated: usize, max_positions: f64, original: f64) -> Result<(Vec<f32>, f64)> {
    let factor = d.number_or("factor", max_positions / original)?;
    let mscale = |scale: f64, by: f64| if scale <= 1.0 { 1.0 } else { 0.1 * by * scale.ln() + 1.0 };
    let (one, all) = (d.number_or("mscale", 0.0)?, d.number_or("mscale_all_dim", 0.0)?);
    let usual = if one != 0.0 && all != 0.0 { mscale(factor, one) / mscale(factor, all) } else { mscale(factor, 1.0) };
    let attention = d.number_or("attention_factor", usual)?;
    let dimension = |rotations: f64| rotated as f64 * (original / (rotations * 2.0 * PI)).ln() / (2.0 * theta.ln());
    let (fast, slow) = (d.number_or("beta_fast", 32.0)?, d.number_or("beta_slow", 1.0)?);
    let (mut low, mut high) = (dimension(fast), dimension(slow));
    if d.flag_or("truncate", true)? {
        (low, high) = (low.floor(), high.ceil());
    }
    let (low, mut high) = (low.max(0.0), high.min(rotated as f64 - 1.0));
    if low == high {
        high += 0.001;
    }
    let mixed = |(i, inv): (usize, f32)| {
        let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0) as f32;
        inv / factor as f32 * ramp + inv * (1.0 - ramp)
    };
    Ok((inverse_frequencies(theta, rotated).into_iter().enumerate().map(mixed).collect(), attention))
}

/// LongRoPE: a divisor for each plane, one list for short contexts and one for long.
fn longrope(path: &Path, d: &Config, plain: &[f32], around: &Around, original: usize) -> Result<Rope> {
    let (short, long) = (d.numbers("short_factor")?, d.numbers("long_factor")?);
    let fits = short.len() == plain.len() && long.len() == plain.len();
    if !fits || short.iter().chain(&long).any(|f| *f <= 0.0) {
        let (n, m, want) = (short.len(), long.len(), plain.len());
        let detail = format!("{n} short and {m} long rotation factors; {want} positive ones of each are needed");
        return Err(ModelError::config(path, detail));
    }
    let factor = d.number_or("factor", around.max_positions as f64 / original as f64)?;
    let usual = if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / (original as f64).ln()).sqrt() };
    let by = |divisors: &[f64]| plain.iter().zip(divisors).map(|(f, by)| f / *by as f32).collect();
    Ok(Rope {
        frequencies: Frequencies::Long { short: by(&short), long: by(&long), original },
        factor: d.number_or("attention_factor", usual)? as f32,
    })
}
