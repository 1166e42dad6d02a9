//! The `octopus` binary: parses the command line, runs the command and sets the exit code.

use clap::Parser;
use octopus::cli::{Cli, CliError};
use std::process::ExitCode;
use tokio::runtime::Runtime;

/// The allocator of the whole process, SQLite included.
///
/// Hashing a password allocates 19 MiB for a short time. The system allocator keeps that memory per
/// thread; mimalloc returns it to the system. mimalloc also reuses the buffers of some hundred
/// kilobytes that SQLite's JSON functions allocate.
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
    // A DNS lookup by the system resolver cannot be cancelled. Do not wait for one that hangs.
    runtime.shutdown_background();
    result
}
