//! `exegete lab superposition`.

use anyhow::{Result, bail};

use crate::args::{Common, Lab};
use crate::printer::Printer;

pub(crate) fn run(_settings: &Lab<exegete_lab::superposition::Settings>, _common: &Common, _printer: &Printer) -> Result<()> {
    bail!("not there yet")
}
