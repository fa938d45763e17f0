//! `exegete lab corpus`: documents of the organism's language, with their labels.

use anyhow::{Result, bail};
use exegete_lab::corpus;
use exegete_lab::language::Language;
use serde_json::json;

use crate::args::{Common, LabCorpus};
use crate::interrupt;
use crate::open_model;
use crate::printer::Printer;

pub(crate) fn run(settings: &LabCorpus, common: &Common, printer: &Printer) -> Result<()> {
    if settings.tokens == 0 {
        bail!("--tokens must be at least 1");
    }
    if std::fs::read_dir(&settings.out).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{} is not empty; give a new or empty directory as --out", settings.out.display());
    }
    let model = open_model::open_plain(&settings.model, common, printer)?;
    interrupt::listen();
    let (language, out) = (Language::new(), &settings.out);
    let written = corpus::write(out, &language, model.tokenizer()?, settings.tokens, common.seed, printer)?;
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
