//! `exegete lab superposition`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use exegete_lab::superposition::{Report, Settings, run as study};

use super::{superposition_figures as figures, superposition_tables as tables};
use crate::args::{Common, Lab};
use crate::commands::out_dir;
use crate::interrupt;
use crate::printer::Printer;

pub(crate) fn run(settings: &Lab<Settings>, common: &Common, printer: &Printer) -> Result<()> {
    common.refuse_device("these models are too small for anything but the cpu")?;
    common.refuse_dtype("these models are trained in f32")?;
    settings.settings.check()?;
    out_dir::check(&settings.out)?;
    interrupt::listen();
    let report = study(&settings.settings, common.seed, printer)?;
    out_dir::write(&settings.out, |into| write(into, &report))?;
    for line in tables::text(&report) {
        printer.line(line);
    }
    printer.line(format!("\nfigures and tables: {}", settings.out.display()));
    printer.json(&serde_json::to_value(&report)?);
    Ok(())
}

/// Figures, tables and the report.
fn write(into: &Path, report: &Report) -> Result<()> {
    let put = |name: &str, text: &str| {
        let path = into.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())
    };
    for (name, svg) in figures::all(report)? {
        put(name, &svg)?;
    }
    for (name, csv) in tables::csv(report) {
        put(name, &csv)?;
    }
    put("report.json", &serde_json::to_string_pretty(report)?)
}
