//! `exegete lab bimt`.

mod figures;
mod tables;

use anyhow::Result;
use exegete_lab::bimt::{self, Report, Settings};

use crate::args::{Common, Lab};
use crate::commands::out_dir;
use crate::interrupt;
use crate::printer::Printer;

pub(crate) fn run(lab: &Lab<Settings>, common: &Common, printer: &Printer) -> Result<()> {
    common.refuse_device("these networks are too small for anything but the cpu")?;
    common.refuse_dtype("these networks are trained in f32")?;
    lab.settings.check(common.seed)?;
    interrupt::listen();
    let mut found = None;
    out_dir::write(&lab.out, |dir| {
        let report = bimt::run(&lab.settings, common.seed, printer)?;
        let mut files = tables::write(dir, &report)?;
        files.extend(figures::write(dir, &report)?);
        found = Some((report, files));
        Ok(())
    })?;
    let Some((report, files)) = found else { return Ok(()) };
    tell(&report, &files, lab, printer)
}

fn tell(report: &Report, files: &[String], lab: &Lab<Settings>, printer: &Printer) -> Result<()> {
    for line in tables::text(report) {
        printer.line(line);
    }
    printer.line(format!("{} files in {}", files.len(), lab.out.display()));
    let mut value = serde_json::to_value(report)?;
    value["out"] = lab.out.display().to_string().into();
    value["files"] = files.into();
    printer.json(&value);
    Ok(())
}
