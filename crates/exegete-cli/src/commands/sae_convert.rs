//! `exegete sae convert`: a dictionary in another layout, with a check that it computes the same.

use anyhow::{Context, Result, bail};
use exegete_sae::Dictionary;
use exegete_sae::formats::{self, Choices};
use exegete_store::write_atomic;
use serde_json::json;

use super::out_dir;
use super::sae_info;
use crate::args::SaeConvert;
use crate::printer::Printer;

/// Inputs of the check, at each of the sizes.
const INPUTS: usize = 16;
/// Sizes of the check's inputs, as multiples of one: where thresholds lie, nobody says.
const SIZES: [f32; 4] = [0.1, 1.0, 10.0, 100.0];
/// Values may differ by so much of the largest: folded scales are rounded once more.
const TOLERANCE: f32 = 1e-5;

pub(crate) fn run(settings: &SaeConvert, printer: &Printer) -> Result<()> {
    out_dir::check(&settings.out)?;
    let saved = sae_info::load(&settings.sae, printer)?;
    let files = formats::write(&saved, &settings.to)?;
    let as_written = Choices { format: Some(settings.to.clone()), ..Choices::default() };
    let mut checked = None;
    out_dir::write(&settings.out, |dir| {
        for (name, bytes) in &files {
            write_atomic(&dir.join(name), |w| std::io::Write::write_all(w, bytes))?;
        }
        let again = formats::load(dir, &as_written)?;
        checked = Some(compare(&*saved.dictionary, &*again.dictionary)?);
        Ok(())
    })?;
    let (active, worst) = checked.context("nothing was written")?;
    printer.json(&json!({
        "from": saved.format, "to": settings.to, "out": settings.out, "compared": active, "largest_difference": worst,
    }));
    printer.line(format!(
        "sae convert: done from={} to={} compared={active} activations, largest difference {worst:.1e} of the largest value \
         out={}",
        saved.format,
        settings.to,
        settings.out.display()
    ));
    Ok(())
}

/// Runs both on the same inputs: how many activations were compared, and the largest difference as a share of the largest
/// value.
fn compare(ours: &dyn Dictionary, written: &dyn Dictionary) -> Result<(usize, f32)> {
    let (mut active, mut worst) = (0, 0f32);
    for (i, size) in SIZES.into_iter().enumerate() {
        let n = INPUTS * ours.d_in();
        let x: Vec<f32> = (0..n).map(|at| size * (((at + i * n) as f32 * 0.618_034).fract() * 3.5 - 1.75)).collect();
        let run = |sae: &dyn Dictionary| -> Result<_> {
            let codes = sae.encode(&x)?;
            let mut out = vec![0f32; INPUTS * sae.d_out()];
            sae.reconstruct(&x, &codes, &mut out)?;
            Ok((codes, out))
        };
        let ((a, x_a), (b, x_b)) = (run(ours)?, run(written)?);
        if a.latents() != b.latents() || a.n_tokens() != b.n_tokens() {
            bail!("what was written has other latents active; nothing is left of it");
        }
        active += a.n_active();
        for (a, b) in [(a.values(), b.values()), (&x_a, &x_b)] {
            let largest = a.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
            worst = a.iter().zip(b).fold(worst, |w, (a, b)| w.max((a - b).abs() / largest));
        }
    }
    if active == 0 {
        bail!("no latent was active on any input of the check, so that nothing is proved; nothing is left of it");
    }
    if worst.is_nan() || worst > TOLERANCE {
        bail!("what was written computes other values, by {worst:.1e} of the largest; nothing is left of it");
    }
    Ok((active, worst))
}
