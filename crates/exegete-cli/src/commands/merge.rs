//! `exegete merge`: shards of a harvest to the whole.

use anyhow::{Result, bail};
use exegete_harvest::merge;
use exegete_store::Run;

use super::harvest;
use super::training_run::PROGRAM;
use crate::args_harvest::Merge;
use crate::interrupt;
use crate::printer::Printer;

pub(crate) fn run(settings: &Merge, printer: &Printer) -> Result<()> {
    let same = |dir: &std::path::PathBuf| std::fs::canonicalize(dir).ok() == std::fs::canonicalize(&settings.out).ok();
    if settings.out.exists() && settings.runs.iter().any(same) {
        bail!("--out {} is one of the shards; give another directory", settings.out.display());
    }
    let shards: Vec<Run> = settings.runs.iter().map(|dir| Run::open(dir)).collect::<Result<_, _>>()?;
    let recorded = merge::check(&shards)?;
    let mut run = Run::create_or_resume(&settings.out, PROGRAM, recorded, &shards[0].manifest().inputs)?;
    interrupt::listen();
    printer.tell_in(run.dir(), "merge");
    merge::run(&mut run, &shards, printer)?;
    printer.finished();
    harvest::tell("merge", &run, printer)
}
