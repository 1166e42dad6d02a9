//! The `octopus` binary: parses the command line, runs it, tells how it went.

use clap::Parser;
use octopus::cli::Cli;
use std::process::ExitCode;

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
