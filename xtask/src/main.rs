//! All automation of the repository: `cargo xtask COMMAND`, one file per command.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool for developers has no printer")]

mod bench;
mod doc_commands;
mod fuzz;
mod gate;
mod golden;
mod models;
mod organism;
mod python;
mod shell;
mod tidy;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Automation of the exegete repository")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything a change must pass: fmt, clippy, tests, API docs, documents, tidy.
    Gate,
    /// Put the test model into the cache, unless it is there.
    Models,
    /// Run the Python generators of the goldens in refs/.
    Golden {
        /// The folder in refs/; all of them without it.
        case: Option<String>,
    },
    /// Run a benchmark against its Python peer and append the rows to bench/history.jsonl.
    Bench {
        /// Which benchmark.
        name: String,
        /// Print the rows as JSON lines.
        #[arg(long)]
        json: bool,
        /// Few rounds, for work on the benchmark itself; the rows are not kept.
        #[arg(long)]
        quick: bool,
        /// Only the rows whose name begins so.
        #[arg(long)]
        only: Option<String>,
    },
    /// Hold the organism that is carried to what it is to be able to do, and its dictionary to the controls.
    Organism,
    /// Fuzz the readers of foreign files, and print how far it got.
    Fuzz {
        /// The target in fuzz/fuzz_targets/, or how the names of several begin; all of them without it.
        target: Option<String>,
        /// Seconds for each target; without it 1200 for a container, 300 for a layout, 60 for any other.
        #[arg(long)]
        secs: Option<u32>,
        /// `address`, or `none` where the address sanitizer does not run.
        #[arg(long, default_value = "address")]
        sanitizer: String,
    },
    /// Checks of the tree that no compiler makes: file sizes, ignored tests, machine paths.
    Tidy,
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Gate => gate::run(),
        Command::Models => models::run(),
        Command::Golden { case } => golden::run(case.as_deref()),
        Command::Bench { name, json, quick, only } => bench::run(&name, json, quick, only.as_deref()),
        Command::Organism => organism::run(),
        Command::Fuzz { target, secs, sanitizer } => fuzz::run(target.as_deref(), secs, &sanitizer),
        Command::Tidy => tidy::run(),
    }
}
