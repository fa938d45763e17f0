//! Linear layers by name in a PyTorch file: Goodfire's `encoder_linear` and `decoder_linear`, and the `encoder` and
//! `decoder` of others. ReLU; the decoder's bias is not taken off the input.
//!
//! Source: the model cards of Goodfire/Llama-3.1-8B-Instruct-SAE-l19 and qresearch/DeepSeek-R1-Distill-Llama-8B-SAE-l19.
//! `refs/sae_layouts/goodfire` proves it, in NumPy from the description.

use super::{Choices, Place, Saved};
use crate::kinds::{Relu, Rule, TopK};
use crate::{Result, Sae};

pub(super) const NAME: &str = "linear-layers";

/// Names of the two layers.
const LAYERS: [[&str; 2]; 2] = [["encoder_linear", "decoder_linear"], ["encoder", "decoder"]];

fn tensors_of([encoder, decoder]: [&str; 2]) -> [String; 4] {
    [format!("{encoder}.weight"), format!("{encoder}.bias"), format!("{decoder}.weight"), format!("{decoder}.bias")]
}

pub(super) fn fits(place: &Place) -> bool {
    LAYERS.iter().any(|layers| place.holds(&tensors_of(*layers).each_ref().map(String::as_str)))
}

pub(super) fn read(place: &Place, choices: &Choices) -> Result<Saved> {
    let mut t = place.tensors("")?;
    let layers = LAYERS.into_iter().find(|layers| t.has(&tensors_of(*layers)[0])).unwrap_or(LAYERS[0]);
    let [w_enc, b_enc, w_dec, b_dec] = tensors_of(layers);
    let (b_enc_F, b_dec_D) = (t.vector(&b_enc)?, t.vector(&b_dec)?);
    let (f, d) = (b_enc_F.len(), b_dec_D.len());
    let rule = choices.k.map_or(Rule::Relu(Relu), |k| Rule::TopK(TopK { k }));
    let mut sae = Sae { b_enc_F, b_dec_D, ..Sae::zeros(d, d, 0, rule) };
    sae.w_enc_FD = t.take(&w_enc, &[f, d])?;
    sae.w_dec_FD = t.turned(&w_dec, [f, d])?;
    t.finish("a dictionary of two linear layers")?;
    let mut saved = Saved::new(sae, NAME);
    if choices.k.is_none() {
        saved.note("read as ReLU without centring, as these releases are; where it was trained as TopK, give --k");
    }
    Ok(saved)
}
