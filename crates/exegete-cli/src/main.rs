//! The command `exegete`.

mod args;
mod args_eval;
mod args_explain;
mod args_harvest;
mod args_interop;
mod args_show;
mod builtin;
mod commands;
mod config_file;
mod interrupt;
mod judged;
mod open_dictionary;
mod open_model;
mod printer;
mod resources;
mod run_dictionary;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command, LabCommand, ModelCommand, SaeCommand};
use crate::printer::Printer;

fn main() -> ExitCode {
    exegete_tensor::alloc::keep_freed_memory();
    // A pipe that closes (`| head`) ends the program quietly, as it does other command-line tools.
    interrupt::die_of_broken_pipes();
    let args = match config_file::expand(std::env::args().collect()) {
        Ok(words) => Args::parse_from(words),
        Err(error) => return Printer::new(false).usage_error(&error),
    };
    if let Err(error) = resources::set_up(&args.common) {
        return Printer::new(false).usage_error(&error);
    }
    // Run as one of the pool's own threads: a kernel then starts without waking another thread first.
    rayon::scope(|_| run(&args))
}

fn run(args: &Args) -> ExitCode {
    let printer = Printer::new(args.common.json);
    let common = &args.common;
    let result = match &args.command {
        Command::Tour(settings) => commands::tour::run(settings, common, &printer),
        Command::Model(ModelCommand::Info(settings)) => commands::model_info::run(settings, common, &printer),
        Command::Model(ModelCommand::Generate(settings)) => commands::model_generate::run(settings, common, &printer),
        Command::Model(ModelCommand::Lens(settings)) => commands::model_lens::run(settings, common, &printer),
        Command::Model(ModelCommand::SelfExplain(s)) => commands::model_self_explain::run(s, common, &printer),
        Command::Model(ModelCommand::Parity(settings)) => commands::model_parity::run(settings, common, &printer),
        Command::Sae(SaeCommand::Info(settings)) => commands::sae_info::run(settings, common, &printer),
        Command::Sae(SaeCommand::Eval(settings)) => commands::sae_eval::run(settings, common, &printer),
        Command::Sae(SaeCommand::Train(settings)) => commands::sae_train::run(settings, common, &printer),
        Command::Sae(SaeCommand::List(settings)) => commands::sae_list::run(settings, &printer),
        Command::Sae(SaeCommand::Convert(settings)) => commands::sae_convert::run(settings, &printer),
        Command::Lab(LabCommand::Train(settings)) => commands::lab::train::run(settings, common, &printer),
        Command::Lab(LabCommand::Abilities(settings)) => commands::lab::abilities::run(settings, common, &printer),
        Command::Lab(LabCommand::Corpus(settings)) => commands::lab::corpus::run(settings, common, &printer),
        Command::Lab(LabCommand::Truth(settings)) => commands::lab::truth::run(settings, common, &printer),
        Command::Lab(LabCommand::Superposition(s)) => commands::lab::superposition::run(s, common, &printer),
        Command::Lab(LabCommand::Bimt(s)) => commands::lab::bimt::run(s, common, &printer),
        Command::Harvest(settings) => commands::harvest::run(settings, common, &printer),
        Command::Merge(settings) => commands::merge::run(settings, &printer),
        Command::Explain(settings) => commands::explain::run(settings, common, &printer),
        Command::Adapter(settings) => commands::adapter::run(settings, common, &printer),
        Command::Score(settings) => commands::score::run(settings, common, &printer),
        Command::Report(settings) => commands::report::run(settings, &printer),
        Command::Show(settings) => commands::show::run(settings, &printer),
        Command::Serve(settings) => commands::serve::run(settings, common, &printer),
        Command::Export(settings) => commands::export::run(settings, &printer),
        Command::Import(settings) => commands::import::run(settings, &printer),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => printer.failure(&error),
    }
}
