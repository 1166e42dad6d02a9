//! `octopus verify`: recomputes the audit chain, without changing anything.

use super::CliError;
use crate::audit::{Anchor, Audit, AuditKeys};
use crate::core::config::Config;
use crate::db;
use clap::Args;

/// What `verify` takes.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// An end of the chain that was noted earlier, from a checkpoint in the log or from `verify`
    #[arg(long, value_name = "SEQ:HASH")]
    anchor: Option<Anchor>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(config: &Config, args: &VerifyArgs) -> Result<(), CliError> {
    let database = db::open_existing(&config.database_url).await?;
    let result = match AuditKeys::load_existing(config) {
        Ok(keys) => Ok(Audit::new(keys).verify(&database, args.anchor.as_ref()).await),
        Err(error) => Err(error),
    };
    database.close().await;
    let found = result?.map_err(|error| CliError::Other(format!("cannot verify: {error}")))?;
    if args.json {
        let text = serde_json::to_string_pretty(&found);
        println!("{}", text.map_err(|error| CliError::Other(error.to_string()))?);
    } else if found.intact {
        println!("The audit chain is intact: {} rows.", found.verified_rows);
        println!("Its end, to be kept elsewhere: {}", found.head);
    }
    match found.first_bad {
        None => Ok(()),
        Some(fault) => Err(CliError::Other(format!(
            "the audit chain is broken at seq {}: {}; the {} rows before it are intact",
            fault.seq, fault.problem, found.verified_rows
        ))),
    }
}
