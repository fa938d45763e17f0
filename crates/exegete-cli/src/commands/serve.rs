//! `exegete serve`: the dashboard of a run, on this machine only, without the model.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Result;
use exegete_web::Dashboard;

use crate::args::Serve;
use crate::interrupt;
use crate::printer::Printer;

pub(crate) fn run(settings: &Serve, printer: &Printer) -> Result<()> {
    serve(&settings.run, settings.port, printer)
}

/// Serves until Ctrl-C.
pub(crate) fn serve(run: &Path, port: u16, printer: &Printer) -> Result<()> {
    interrupt::stop_listening();
    let dashboard = Dashboard::open(run)?;
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Ok(exegete_web::serve(addr, dashboard, |addr| {
        printer.line(format!("serving {} at http://{addr}/ (Ctrl-C ends it)", run.display()));
    })?)
}
