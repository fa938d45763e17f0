//! Directions: vectors at a site, named on the command line.
//!
//! `FILE.safetensors[#name]` is a tensor in a file, `SAE@latent` a decoder row, `tokens('a')-tokens('b')` the
//! difference of two texts' residuals at their last token (a single `tokens('a')` is the residual itself).

use std::path::Path;

use exegete_base::Site;
use exegete_base::axes::Axis;
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
    } else if let Some((sae, latent)) = name.rsplit_once('@') {
        from_dictionary(name, &open(sae)?, latent)?
    } else {
        let (file, tensor) = name.split_once('#').map_or((name, None), |(file, tensor)| (file, Some(tensor)));
        if !file.ends_with(".safetensors") {
            let forms = "FILE.safetensors[#name], SAE@latent, tokens('a')-tokens('b')";
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
    Ok(view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
}
