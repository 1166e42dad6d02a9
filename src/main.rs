//! The `octopus` binary: parses the command line, runs it, tells how it went.

use clap::Parser;
use octopus::cli::Cli;
use std::process::ExitCode;

/// A password's hash takes 19 MiB for a moment: this gives them back, where the system's allocator
/// keeps them for each thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("octopus: {error}");
            ExitCode::FAILURE
        }
    }
}
