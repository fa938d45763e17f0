//! `exegete lab train`: the organism is trained, or trained further.

use anyhow::Result;
use exegete_lab::organism::{Trainer, train};
use exegete_model::Residence;
use exegete_tensor::device_named;
use serde_json::json;

use crate::args::{Common, Dtype, LabTrain};
use crate::interrupt;
use crate::printer::Printer;

pub(crate) fn run(settings: &LabTrain, common: &Common, printer: &Printer) -> Result<()> {
    let residence = match common.dtype {
        Dtype::F32 => Residence::F32,
        Dtype::Bf16 => Residence::Bf16,
    };
    let device = device_named(&common.device)?;
    let mut trainer = Trainer::open(&settings.out, &settings.organism, common.seed, residence, device)?;
    let spec = &trainer.model().spec;
    printer.note(&format!(
        "organism    {} parameters, {} tokens, {:.2e} operations",
        spec.n_parameters(),
        settings.organism.tokens,
        trainer.flops_a_token() * settings.organism.tokens as f64,
    ));
    interrupt::listen();
    train(&mut trainer, printer)?;
    let at = trainer.state().at;
    let model = settings.out.join("model");
    printer.json(&json!({"steps": at.step, "tokens": at.tokens, "documents": at.documents, "model": model}));
    printer.line(format!("lab train: done steps={} tokens={} model={}", at.step, at.tokens, model.display()));
    Ok(())
}
