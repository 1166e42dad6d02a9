//! Command-line interface; one module per subcommand.

mod anchor;
mod backup;
mod banner;
mod bootstrap;
mod command;
mod error;
mod healthcheck;
mod import;
mod init;
mod keys;
mod migrate;
mod openapi;
mod output;
mod restore;
mod serve;
mod verify;

pub use command::Cli;
pub use error::CliError;
