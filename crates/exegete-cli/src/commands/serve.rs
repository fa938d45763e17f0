//! `exegete serve`: the dashboard of a run, on this machine unless an address is given, and without the model unless one is.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use exegete_web::{Access, Dashboard};

use crate::args::Common;
use crate::args_show::Serve;
use crate::interrupt;
use crate::printer::Printer;

use super::session::LiveSession;

pub(crate) fn run(settings: &Serve, common: &Common, printer: &Printer) -> Result<()> {
    let dashboard = Dashboard::open_beside(&settings.run, &settings.beside)?;
    let dashboard = match &settings.model {
        Some(model) => dashboard.with_session(Arc::new(LiveSession::open(&settings.run, model, common, printer)?)),
        None => dashboard,
    };
    let addr = SocketAddr::from((settings.bind, settings.port));
    let token = match &settings.token {
        None if !settings.bind.is_loopback() => Some(Access::new_token()?),
        token => token.clone(),
    };
    serve_with(dashboard, &settings.run, addr, (token, settings.host.clone()), printer)
}

/// Serves on this machine until Ctrl-C.
pub(crate) fn serve(run: &Path, port: u16, printer: &Printer) -> Result<()> {
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    serve_with(Dashboard::open(run)?, run, addr, (None, Vec::new()), printer)
}

fn serve_with(
    dashboard: Dashboard,
    run: &Path,
    addr: SocketAddr,
    (token, hosts): (Option<String>, Vec<String>),
    printer: &Printer,
) -> Result<()> {
    interrupt::stop_listening();
    let told = token.as_ref().map_or(String::new(), |token| format!("?token={token}"));
    Ok(exegete_web::serve(addr, (token, hosts), dashboard, |addr| {
        printer.line(format!("serving {} at http://{addr}/{told} (Ctrl-C ends it)", run.display()));
    })?)
}
