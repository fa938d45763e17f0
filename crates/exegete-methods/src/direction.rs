//! Directions: vectors at a site, named on the command line.
//!
//! `FILE.safetensors[#name]` is a tensor in a file, `SAE@latent` a decoder row, `tokens('a')-tokens('b')` the
//! difference of two texts' residuals at their last token (a single `tokens('a')` is the residual itself), `embedding('a')` the mean
//! of a text's token embeddings, `random(7)` a direction drawn at random, by the number.

use std::path::Path;

use exegete_base::Site;
use exegete_base::axes::Axis;
use exegete_base::sampling::pair_hash;
use exegete_model::{Batch, Hooks, Logits, Model};
use exegete_sae::{Dictionary, Sae};
use exegete_tensor::{Tape, f32s};
use safetensors::{Dtype, SafeTensors};

use crate::{MethodError, Result};

/// Resolves a direction's name to a vector for `site`; `open` opens the dictionary of a name.
///
/// # Errors
/// A name of no known form, a missing file, tensor or latent, a vector of another width than the site's.
pub fn resolve(name: &str, model: &Model, site: Site, open: &dyn Fn(&str) -> Result<Sae>) -> Result<Vec<f32>> {
    if site.kind.row().axes.contains(&Axis::Keys) {
        let detail = format!("{site} has a value for each key, so no direction of a fixed width fits it");
        return Err(MethodError::Request(detail));
    }
    let vector = if name.starts_with("tokens(") {
        from_tokens(name, model, site)?
    } else if let Some(text) = name.strip_prefix("embedding('").and_then(|rest| rest.strip_suffix("')")) {
        embedding(model, text)?
    } else if let Some(number) = name.strip_prefix("random(").and_then(|rest| rest.strip_suffix(')')) {
        let number =
            number.parse().map_err(|_| MethodError::Request(format!("{name:?}: {number:?} is no whole number")))?;
        random(model.spec.site_width(site, 0), number, 0)
    } else if let Some((sae, latent)) = name.rsplit_once('@') {
        from_dictionary(name, &open(sae)?, latent)?
    } else {
        let (file, tensor) = name.split_once('#').map_or((name, None), |(file, tensor)| (file, Some(tensor)));
        if !file.ends_with(".safetensors") {
            let forms = "FILE.safetensors[#name], SAE@latent, tokens('a')-tokens('b'), embedding('a'), random(7)";
            return Err(MethodError::Request(format!("{name:?} is no direction; a direction is one of {forms}")));
        }
        from_file(Path::new(file), tensor)?
    };
    let width = model.spec.site_width(site, 0);
    if vector.len() != width {
        let detail = format!("direction {name:?} has {} values, but {site} has width {width}", vector.len());
        return Err(MethodError::Request(detail));
    }
    Ok(vector)
}

/// The values of a site at the last token of a text.
///
/// # Errors
/// The model's.
pub fn at_last_token(model: &Model, text: &str, site: Site) -> Result<Vec<f32>> {
    let tokenizer = model.tokenizer()?;
    let mut ids: Vec<u32> = tokenizer.bos(exegete_model::Bos::Auto)?.into_iter().collect();
    ids.extend(tokenizer.encode_prompt(text)?);
    let mut hooks = Hooks::none().tap(site);
    hooks.stop_after_layer = site.layer;
    let logits = if site.layer.is_none() { Logits::All } else { Logits::None };
    model.run(&Tape::new(), &Batch::one(&ids), None, &mut hooks, logits)?;
    let value = hooks.value(site).ok_or_else(|| MethodError::Request(format!("{site} was not reached")))?;
    let values = f32s(value.tensor())?;
    Ok(values[values.len() / ids.len() * (ids.len() - 1)..].to_vec())
}

/// A direction drawn at random, by hash: the same for a seed and a number everywhere.
pub fn random(width: usize, seed: u64, number: u64) -> Vec<f32> {
    let uniform = |i: usize| pair_hash(seed, number, i as u64) as f64 / u64::MAX as f64;
    // The sum of twelve uniform numbers is near enough to normal for a direction.
    let normal = |i: usize| (0..12).map(|j| uniform(i * 12 + j)).sum::<f64>() - 6.0;
    (0..width).map(|i| normal(i) as f32).collect()
}

/// The mean of a text's token embeddings, as the residual stream begins with them.
fn embedding(model: &Model, text: &str) -> Result<Vec<f32>> {
    let ids = model.tokenizer()?.encode_prompt(text)?;
    if ids.is_empty() {
        return Err(MethodError::Request(format!("embedding({text:?}): the text has no tokens")));
    }
    let (mut mean, mut row) = (vec![0f32; model.spec.d_model], vec![0f32; model.spec.d_model]);
    let share = model.spec.embed_scale / ids.len() as f32;
    for id in ids {
        model.weights.embed.row(id as usize, &mut row);
        mean.iter_mut().zip(&row).for_each(|(m, x)| *m += x * share);
    }
    Ok(mean)
}

fn from_tokens(name: &str, model: &Model, site: Site) -> Result<Vec<f32>> {
    let wrong = || MethodError::Request(format!("{name:?} is not of the form tokens('a')-tokens('b')"));
    let inner = name.strip_prefix("tokens('").and_then(|rest| rest.strip_suffix("')")).ok_or_else(wrong)?;
    match inner.split_once("')-tokens('") {
        None => at_last_token(model, inner, site),
        Some((a, b)) => {
            let (a, b) = (at_last_token(model, a, site)?, at_last_token(model, b, site)?);
            Ok(a.iter().zip(&b).map(|(a, b)| a - b).collect())
        }
    }
}

fn from_dictionary(name: &str, sae: &Sae, latent: &str) -> Result<Vec<f32>> {
    let latent: usize =
        latent.parse().map_err(|_| MethodError::Request(format!("{name:?}: {latent:?} is no latent's number")))?;
    if latent >= sae.n_latents() {
        return Err(MethodError::Request(format!("{name:?}: the dictionary has latents 0..={}", sae.n_latents() - 1)));
    }
    Ok(sae.decoder_row(latent).to_vec())
}

fn from_file(path: &Path, tensor: Option<&str>) -> Result<Vec<f32>> {
    Ok(read(path, tensor)?.0)
}

/// The only tensor of a safetensors file, row after row, and how wide a row is.
///
/// # Errors
/// A file that is none, has several tensors, or one without two axes.
pub fn table(path: &Path) -> Result<(Vec<f32>, usize)> {
    let (values, shape) = read(path, None)?;
    match shape.as_slice() {
        [_, width] if *width > 0 => Ok((values, *width)),
        other => {
            Err(MethodError::Request(format!("{}: a table of vectors has two axes, not {other:?}", path.display())))
        }
    }
}

fn read(path: &Path, tensor: Option<&str>) -> Result<(Vec<f32>, Vec<usize>)> {
    let fail = |detail: String| MethodError::Request(format!("{}: {detail}", path.display()));
    let bytes = std::fs::read(path).map_err(|e| fail(e.to_string()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| fail(format!("not a whole safetensors file ({e})")))?;
    let mut names = file.names();
    names.sort_unstable();
    let name = match (tensor, names.as_slice()) {
        (Some(name), _) => name,
        (None, [only]) => only,
        (None, several) => return Err(fail(format!("name one of its tensors with #name: {}", several.join(", ")))),
    };
    let view = file.tensor(name).map_err(|_| fail(format!("no tensor {name:?}; it has {}", names.join(", "))))?;
    if view.dtype() != Dtype::F32 {
        return Err(fail(format!("tensor {name:?} is {:?}, expected F32", view.dtype())));
    }
    let values = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    Ok((values, view.shape().to_vec()))
}
