//! `octopus verify`: checks a database and its audit chain without changing anything.

use super::error::CliError;
use super::output::print;
use crate::audit::{self, Anchor, Audit, AuditKeys, KeyDifference, Verification};
use crate::core::config::Config;
use crate::db::{self, Check, Db, DbOptions};
use crate::features;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

/// Arguments of `octopus verify`.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// A backup or another SQLite file that no server has open (default: the database of
    /// DATABASE_URL, which a server may be using)
    file: Option<PathBuf>,
    /// An earlier head of the chain, from a checkpoint in the server's log, a backup, `anchor` or
    /// `verify` (default: the newest one in AUDIT_ANCHOR_FILE, unless FILE is given)
    #[arg(long, value_name = "SEQ:HASH")]
    anchor: Option<Anchor>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The output of `--json`.
#[derive(Serialize)]
struct Report<'r> {
    /// Whether no problem was found.
    ok: bool,
    #[serde(flatten)]
    chain: &'r Verification,
    checks: &'r [Check],
}

pub(super) async fn run(config: &Config, args: &VerifyArgs) -> Result<(), CliError> {
    let opened = match &args.file {
        Some(file) => DbOptions::open_file(file, false).await?,
        None => DbOptions::new().open(&config.database_url).await?,
    };
    let result = verify(config, args, &opened.db).await;
    opened.db.close().await;
    result
}

/// The anchor to compare with: that of the command line, or the newest one in `AUDIT_ANCHOR_FILE`.
/// A given FILE is not compared with `AUDIT_ANCHOR_FILE`: a backup is older than its newest anchor.
fn anchor(config: &Config, args: &VerifyArgs) -> Result<Option<Anchor>, CliError> {
    let file = config.audit.anchor_file.as_deref().filter(|_| args.file.is_none());
    let (None, Some(file)) = (&args.anchor, file) else { return Ok(args.anchor.clone()) };
    let found = audit::newest_anchor(file)
        .map_err(|error| CliError::Other(format!("cannot read {}: {error}", file.display())))?;
    if let Some(anchor) = &found
        && !args.json
    {
        print(format_args!("Compared with the anchor {anchor} of {}.", file.display()))?;
    }
    Ok(found)
}

async fn verify(config: &Config, args: &VerifyArgs, database: &Db) -> Result<(), CliError> {
    let checks = checks(database).await.map_err(|error| failed(&error))?;
    if !args.json {
        print_checks(&checks)?;
    }
    let chain = chain(config, database, anchor(config, args)?.as_ref()).await?;
    let problems: Vec<_> =
        check_problem(&checks).into_iter().chain(chain_problems(&chain)).collect();
    if args.json {
        let report = Report { ok: problems.is_empty(), chain: &chain, checks: &checks };
        let text = serde_json::to_string_pretty(&report);
        print(text.map_err(|error| CliError::Other(error.to_string()))?)?;
    } else if chain.intact {
        print_intact(&chain)?;
        print(format_args!("Its head, to be stored elsewhere: {}", chain.head))?;
    }
    if problems.is_empty() { Ok(()) } else { Err(CliError::Other(problems.join("\n"))) }
}

/// Checks a backup, prints each check and returns one sentence per problem. A chain that cannot be
/// verified is a problem. If the schema is older, only the file itself is checked.
pub(super) async fn problems(
    config: &Config,
    backup: &Db,
    is_older: bool,
) -> Result<Vec<String>, CliError> {
    let checks = if is_older { db::check_file(backup).await } else { checks(backup).await };
    let mut problems = match checks {
        Ok(checks) => {
            print_checks(&checks)?;
            Vec::from_iter(check_problem(&checks))
        }
        Err(error) => vec![failed(&error).to_string()],
    };
    if !is_older {
        match chain(config, backup, None).await {
            Ok(chain) if chain.intact => print_intact(&chain)?,
            Ok(chain) => problems.extend(chain_problems(&chain)),
            Err(error) => problems.push(error.to_string()),
        }
    }
    Ok(problems)
}

/// Runs the checks of the installation and of every feature.
async fn checks(database: &Db) -> sqlx::Result<Vec<Check>> {
    let tables: Vec<_> = features::ALL.iter().map(|feature| feature.checks).collect();
    db::check(database, &tables).await
}

async fn chain(
    config: &Config,
    database: &Db,
    anchor: Option<&Anchor>,
) -> Result<Verification, CliError> {
    let audit = Audit::new(AuditKeys::load_existing(config)?);
    audit.verify(database, anchor).await.map_err(|error| failed(&error))
}

fn failed(error: &sqlx::Error) -> CliError {
    CliError::Other(format!("cannot verify: {error}"))
}

/// Prints one line per check.
fn print_checks(checks: &[Check]) -> Result<(), CliError> {
    for Check { name, problems } in checks {
        if problems.is_empty() {
            print(format_args!("ok      {name}"))?;
        } else {
            print(format_args!("FAILED  {name}: {}", problems.join(", ")))?;
        }
    }
    Ok(())
}

fn print_intact(chain: &Verification) -> Result<(), CliError> {
    print(format_args!("The audit chain is intact: {} entries.", chain.verified_rows))
}

/// One sentence that names all failed checks.
fn check_problem(checks: &[Check]) -> Option<String> {
    let failed = checks.iter().filter(|check| !check.problems.is_empty());
    let failed: Vec<_> = failed.map(|check| check.name).collect();
    (!failed.is_empty()).then(|| format!("the database failed these checks: {}", failed.join(", ")))
}

/// One sentence per fault of the chain and per API key that differs from the audit log.
fn chain_problems(chain: &Verification) -> Vec<String> {
    let broken = chain.first_bad.as_ref().map(|fault| {
        format!(
            "the audit chain is broken at seq {}: {}; the {} entries before it are intact",
            fault.seq, fault.problem, chain.verified_rows
        )
    });
    broken.into_iter().chain(chain.key_differences.iter().map(key_problem)).collect()
}

/// A sentence for a property of an API key that differs from the audit log.
fn key_problem(found: &KeyDifference) -> String {
    let KeyDifference { api_key_id, field, logged, stored, .. } = found;
    format!("API key {api_key_id}: {field} is {stored}, and {logged} according to the audit log")
}
