//! `exegete sae info`: what a dictionary is.

use anyhow::Result;
use exegete_sae::Dictionary;
use exegete_sae::formats::saelens;
use serde_json::json;

use crate::args::SaeInfo;
use crate::builtin;
use crate::printer::Printer;

pub(crate) fn run(settings: &SaeInfo, printer: &Printer) -> Result<()> {
    let saved = saelens::load(&builtin::dictionary(&settings.sae)?)?;
    let sae = &saved.dictionary;
    let norms = |rows: &[f32]| -> (f32, f32) {
        let norm = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>().sqrt();
        rows.chunks(sae.d_in).map(norm).fold((f32::MAX, 0.0), |(low, high), n| (low.min(n), high.max(n)))
    };
    let (encoder, decoder) = (norms(&sae.w_enc_FD), norms(&sae.w_dec_FD));
    printer.line(format!("kind      {} (k = {})", sae.kind(), sae.k));
    printer.line(format!("input     {} wide, decoder bias taken off: {}", sae.d_in, sae.centres_input));
    printer.line(format!("latents   {}", sae.n_latents()));
    printer.line(format!(
        "norms     encoder rows {:.3} to {:.3}, decoder rows {:.3} to {:.3}",
        encoder.0, encoder.1, decoder.0, decoder.1
    ));
    for (key, value) in &saved.metadata {
        printer.line(format!("          {key}: {value}"));
    }
    printer.json(&json!({
        "kind": sae.kind(), "k": sae.k, "d_in": sae.d_in, "n_latents": sae.n_latents(), "metadata": saved.metadata,
        "encoder_norms": [encoder.0, encoder.1], "decoder_norms": [decoder.0, decoder.1],
    }));
    Ok(())
}
