//! `exegete lab corpus`: documents of the organism's language, with their labels.

use anyhow::{Context, Result, bail};
use exegete_lab::corpus;
use exegete_lab::language::Language;
use serde_json::json;

use crate::args::{Common, LabCorpus};
use crate::commands::out_dir;
use crate::interrupt;
use crate::open_model;
use crate::printer::Printer;

pub(crate) fn run(settings: &LabCorpus, common: &Common, printer: &Printer) -> Result<()> {
    if settings.tokens == 0 {
        bail!("--tokens must be at least 1");
    }
    out_dir::check(&settings.out)?;
    let model = open_model::open_plain(&settings.model, common, printer)?;
    interrupt::listen();
    let (language, out) = (Language::new(), &settings.out);
    let tokenizer = model.tokenizer()?;
    let mut written = None;
    out_dir::write(out, |dir| {
        written = Some(corpus::write(dir, &language, tokenizer, settings.tokens, common.seed, printer)?);
        Ok(())
    })?;
    let written = written.context("nothing was written")?;
    let (text, concepts) = (out.join(corpus::DOCUMENTS), out.join(corpus::CONCEPTS));
    printer.json(&json!({"written": written, "seed": common.seed, "text": text, "concepts": concepts}));
    printer.line(format!(
        "lab corpus: done documents={} tokens={} labels={} text={}",
        written.documents,
        written.tokens,
        written.spans,
        text.display()
    ));
    Ok(())
}
