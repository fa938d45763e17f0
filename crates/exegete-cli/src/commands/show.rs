//! `exegete show`: a latent in the terminal.

use std::io::IsTerminal;

use anyhow::Result;
use exegete_web::{Colours, Dashboard, latent_lines};

use crate::args_show::{Colour, Show};
use crate::printer::Printer;

pub(crate) fn run(settings: &Show, printer: &Printer) -> Result<()> {
    let dashboard = Dashboard::open(&settings.run)?;
    let dictionary = settings.dictionary.as_deref().unwrap_or_default();
    let detail = dashboard.latent(dictionary, settings.latent, settings.view.name())?;
    let colours = Colours(match settings.color {
        Colour::Always => true,
        Colour::Never => false,
        // https://no-color.org
        Colour::Auto => {
            std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
        }
    });
    for line in latent_lines(&detail, colours) {
        printer.line(line);
    }
    printer.json(&serde_json::to_value(&detail)?);
    Ok(())
}
