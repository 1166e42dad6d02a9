//! The `octopus` binary: parses the command line, runs it, tells how it went.

use clap::Parser;
use octopus::cli::{Cli, CliError};
use std::process::ExitCode;
use tokio::runtime::Runtime;

/// A password's hash takes 19 MiB for a moment, and SQLite's JSON some hundred kilobytes: this gives
/// the first back, where the system's allocator keeps them for each thread, and keeps the second. It
/// is SQLite's allocator, too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("octopus: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), CliError> {
    let cli = Cli::parse();
    let runtime = Runtime::new().map_err(|error| CliError::Other(error.to_string()))?;
    let result = runtime.block_on(cli.run());
    // The system's look-up of a host cannot be cancelled: the end does not wait for one that hangs.
    runtime.shutdown_background();
    result
}
