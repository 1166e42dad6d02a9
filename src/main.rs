//! The `octopus` binary: parses the command line, runs the command and sets the exit code.

use clap::Parser;
use octopus::cli::{Cli, CliError};
use std::io::{Write, stderr};
use std::process::ExitCode;
use tokio::runtime::Runtime;

/// The allocator of the whole process, SQLite included.
///
/// Hashing a password allocates 19 MiB for a short time. The system allocator keeps that memory per
/// thread; mimalloc returns it to the system. mimalloc also reuses the buffers of some hundred
/// kilobytes that SQLite's JSON functions allocate.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code when the reader of standard output ended early: that of a shell for a process that
/// SIGPIPE ended.
const CLOSED_PIPE: u8 = 141;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_closed_pipe() => ExitCode::from(CLOSED_PIPE),
        Err(error) => {
            // If stderr fails, there is nowhere left to report it.
            let _ = writeln!(stderr(), "octopus: {error}");
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
