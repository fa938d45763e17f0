//! dictionary_learning: `ae.pt` (a state dictionary) and `config.json`, whose `trainer.dict_class` names the kind.
//!
//! Source: saprmarks/dictionary_learning, dictionary.py and trainers. A BatchTopK dictionary with a threshold of 0 or more is
//! run by it, and a TopK one by its k, as the package (0.1.0) does unless asked otherwise.
//! `refs/sae_peers/dl_*` prove it, by the project's own code.

use super::tensors::Tensors;
use super::{Choices, Place, Saved};
use crate::kinds::{BatchTopK, Gated, JumpRelu, Relu, Rule, TopK};
use crate::{Result, Sae, SaeError};

pub(super) const NAME: &str = "dictionary-learning";
pub(super) const FILES: [&str; 2] = ["config.json", "ae.pt"];

pub(super) fn fits(place: &Place) -> bool {
    FILES.iter().all(|file| place.has(file))
}

pub(super) fn read(place: &Place, _: &Choices) -> Result<Saved> {
    let (config_path, config) = place.json(FILES[0])?;
    let trainer = &config["trainer"];
    let class = trainer["dict_class"].as_str().unwrap_or_default();
    let mut t = place.tensors(FILES[1])?;
    let mut notes = Vec::new();
    let sae = match class {
        "AutoEncoder" => auto_encoder(&mut t, &mut notes)?,
        "AutoEncoderNew" => {
            let (mut sae, d) = linear(&mut t, "decoder.bias", Rule::Relu(Relu))?;
            sae.w_dec_FD = t.turned("decoder.weight", [sae.b_enc_F.len(), d])?;
            sae
        }
        "GatedAutoEncoder" => gated(&mut t)?,
        "AutoEncoderTopK" | "BatchTopKSAE" => {
            let (mut sae, d) = linear(&mut t, "b_dec", Rule::Relu(Relu))?;
            sae.w_dec_FD = t.turned("decoder.weight", [sae.b_enc_F.len(), d])?;
            sae.centres_input = true;
            sae.rule = by_threshold(&mut t, sae.b_enc_F.len(), class == "BatchTopKSAE", &mut notes)?;
            sae
        }
        "MatryoshkaBatchTopKSAE" => {
            let mut sae = plain(&mut t, Rule::Relu(Relu))?;
            sae.centres_input = true;
            sae.rule = by_threshold(&mut t, sae.b_enc_F.len(), true, &mut notes)?;
            t.ignore(&["group_sizes"]);
            sae
        }
        "JumpReluAutoEncoder" => {
            let threshold_F = t.vector("threshold")?;
            plain(&mut t, Rule::JumpRelu(JumpRelu { threshold_F }))?
        }
        _ => {
            let detail = format!(
                "dict_class {} is not handled; handled are AutoEncoder, AutoEncoderNew, GatedAutoEncoder, \
                 AutoEncoderTopK, BatchTopKSAE, MatryoshkaBatchTopKSAE, JumpReluAutoEncoder",
                trainer["dict_class"]
            );
            return Err(SaeError::format(&config_path, detail));
        }
    };
    t.finish(class)?;
    for (key, size) in [("activation_dim", sae.d_in), ("dict_size", sae.b_enc_F.len())] {
        if let Some(said) = trainer[key].as_u64().filter(|said| *said != size as u64) {
            return Err(SaeError::format(&config_path, format!("key {key:?} is {said}, but the tensors have {size}")));
        }
    }
    let mut saved = Saved::new(sae, NAME);
    saved.metadata = trainer.as_object().cloned().unwrap_or_default();
    saved.notes = notes;
    saved.published_l0 = trainer["k"].as_f64().or_else(|| trainer["target_l0"].as_f64());
    let name = trainer["submodule_name"].as_str().unwrap_or_default();
    if let (Some(layer), Some(("resid_post", _))) = (trainer["layer"].as_u64(), name.split_once("_layer_")) {
        saved.fact("hook_name", format!("blocks.{layer}.hook_resid_post"));
    }
    Ok(saved)
}

/// `encoder.weight [F, D]` with its bias, and a decoder bias.
fn linear(t: &mut Tensors, decoder_bias: &str, rule: Rule) -> Result<(Sae, usize)> {
    let (b_enc_F, b_dec_D) = (t.vector("encoder.bias")?, t.vector(decoder_bias)?);
    let (f, d) = (b_enc_F.len(), b_dec_D.len());
    let w_enc_FD = t.take("encoder.weight", &[f, d])?;
    Ok((Sae { b_enc_F, b_dec_D, w_enc_FD, ..Sae::zeros(d, d, 0, rule) }, d))
}

/// `W_enc [D, F]`, `W_dec [F, D]`.
fn plain(t: &mut Tensors, rule: Rule) -> Result<Sae> {
    let (b_enc_F, b_dec_D) = (t.vector("b_enc")?, t.vector("b_dec")?);
    let (f, d) = (b_enc_F.len(), b_dec_D.len());
    let (w_enc_FD, w_dec_FD) = (t.turned("W_enc", [f, d])?, t.take("W_dec", &[f, d])?);
    Ok(Sae { b_enc_F, b_dec_D, w_enc_FD, w_dec_FD, ..Sae::zeros(d, d, 0, rule) })
}

/// One bias, taken off the input and added to the output. The package gives the decoder unit columns when it loads.
fn auto_encoder(t: &mut Tensors, notes: &mut Vec<String>) -> Result<Sae> {
    let (mut sae, d) = linear(t, "bias", Rule::Relu(Relu))?;
    let f = sae.b_enc_F.len();
    sae.w_dec_FD = t.turned("decoder.weight", [f, d])?;
    sae.centres_input = true;
    let norm = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>().sqrt();
    let mut furthest = 0f32;
    for latent in 0..f {
        let row = &mut sae.w_dec_FD[latent * d..(latent + 1) * d];
        let size = norm(row);
        furthest = furthest.max((size - 1.0).abs());
        if size > 0.0 {
            row.iter_mut().for_each(|x| *x /= size);
        }
        sae.w_enc_FD[latent * d..(latent + 1) * d].iter_mut().for_each(|x| *x *= size);
        sae.b_enc_F[latent] *= size;
    }
    if furthest > 1e-3 {
        notes
            .push(format!("decoder columns were up to {furthest:.3} from unit length; the lengths are in the encoder"));
    }
    Ok(sae)
}

fn gated(t: &mut Tensors) -> Result<Sae> {
    let (r_mag, gate, mag) = (t.vector("r_mag")?, t.vector("gate_bias")?, t.vector("mag_bias")?);
    let b_dec_D = t.vector("decoder_bias")?;
    let (f, d) = (gate.len(), b_dec_D.len());
    let rule = Rule::Gated(Gated::new(&r_mag, &gate, &mag));
    let mut sae = Sae { b_enc_F: gate, b_dec_D, centres_input: true, ..Sae::zeros(d, d, 0, rule) };
    sae.w_enc_FD = t.take("encoder.weight", &[f, d])?;
    sae.w_dec_FD = t.turned("decoder.weight", [f, d])?;
    // The encoder is a linear layer without a bias of its own.
    t.ignore(&["encoder.bias"]);
    Ok(sae)
}

/// By the threshold where the kind has one, else by k.
fn by_threshold(t: &mut Tensors, f: usize, over_batch: bool, notes: &mut Vec<String>) -> Result<Rule> {
    let k = t.number("k")? as usize;
    let threshold = if t.has("threshold") { t.number("threshold")? } else { -1.0 };
    if threshold >= 0.0 && over_batch {
        notes.push(format!("run by its threshold of {threshold:.4}, as the package does; it was trained with k = {k}"));
        return Ok(Rule::JumpRelu(JumpRelu { threshold_F: vec![threshold; f] }));
    }
    match over_batch {
        false => {
            if threshold >= 0.0 {
                notes.push(format!("run by k = {k}, as the package does; a threshold of {threshold:.4} was saved too"));
            }
            Ok(Rule::TopK(TopK { k }))
        }
        true => {
            notes.push(format!(
                "no threshold was saved: the {k} largest a token are kept over the tokens of a call, so that a token's \
                 code depends on the others"
            ));
            Ok(Rule::BatchTopK(BatchTopK { k }))
        }
    }
}
