//! `octopus verify`: looks whether a database is in order and its audit chain unbroken, without
//! changing anything.

use super::CliError;
use crate::audit::{self, Anchor, Audit, AuditKeys, KeyDifference, Verification};
use crate::core::config::Config;
use crate::db::{self, Check, Db};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

/// What `verify` takes.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// A backup or another SQLite file that no server has open (default: the database of
    /// DATABASE_URL, in use or not)
    file: Option<PathBuf>,
    /// An end of the chain that was noted earlier, from a checkpoint in the log, a backup, `anchor`
    /// or `verify` (default: the newest one in AUDIT_ANCHOR_FILE, unless FILE is given)
    #[arg(long, value_name = "SEQ:HASH")]
    anchor: Option<Anchor>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'r> {
    /// Whether all is well.
    ok: bool,
    #[serde(flatten)]
    chain: &'r Verification,
    checks: &'r [Check],
}

pub(super) async fn run(config: &Config, args: &VerifyArgs) -> Result<(), CliError> {
    let database = match &args.file {
        Some(file) => db::open_file(file).await?,
        None => db::open_existing(&config.database_url).await?,
    };
    let found = look(config, args, &database).await;
    database.close().await;
    found
}

/// The anchor to compare with: that of the command line, or the newest one in `AUDIT_ANCHOR_FILE`
/// for the database itself. A backup is older than that.
fn anchor(config: &Config, args: &VerifyArgs) -> Result<Option<Anchor>, CliError> {
    let file = config.audit.anchor_file.as_deref().filter(|_| args.file.is_none());
    let (None, Some(file)) = (&args.anchor, file) else { return Ok(args.anchor.clone()) };
    let found = audit::newest_anchor(file)
        .map_err(|error| CliError::Other(format!("cannot read {}: {error}", file.display())))?;
    if let Some(anchor) = &found
        && !args.json
    {
        println!("Compared with the anchor {anchor} of {}.", file.display());
    }
    Ok(found)
}

async fn look(config: &Config, args: &VerifyArgs, database: &Db) -> Result<(), CliError> {
    let checks = db::check(database).await.map_err(|error| failed(&error))?;
    if !args.json {
        print(&checks);
    }
    let chain = chain(config, database, anchor(config, args)?.as_ref()).await?;
    let problems: Vec<_> = of_checks(&checks).into_iter().chain(of_chain(&chain)).collect();
    if args.json {
        let report = Report { ok: problems.is_empty(), chain: &chain, checks: &checks };
        let text = serde_json::to_string_pretty(&report);
        println!("{}", text.map_err(|error| CliError::Other(error.to_string()))?);
    } else if chain.intact {
        println!("The audit chain is intact: {} rows.", chain.verified_rows);
        println!("Its end, to be kept elsewhere: {}", chain.head);
    }
    if problems.is_empty() { Ok(()) } else { Err(CliError::Other(problems.join("\n"))) }
}

/// What is wrong with a backup, a sentence each; that its chain cannot be verified is one. Prints
/// what was looked at. Of an older schema only the file itself is looked at.
pub(super) async fn problems(
    config: &Config,
    backup: &Db,
    is_older: bool,
) -> Result<Vec<String>, CliError> {
    let checks = if is_older { db::check_file(backup).await } else { db::check(backup).await };
    let mut problems = match checks {
        Ok(checks) => {
            print(&checks);
            Vec::from_iter(of_checks(&checks))
        }
        Err(error) => vec![failed(&error).to_string()],
    };
    if !is_older {
        match chain(config, backup, None).await {
            Ok(chain) if chain.intact => {
                println!("The audit chain is intact: {} rows.", chain.verified_rows);
            }
            Ok(chain) => problems.extend(of_chain(&chain)),
            Err(error) => problems.push(error.to_string()),
        }
    }
    Ok(problems)
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

/// A line for each check.
fn print(checks: &[Check]) {
    for Check { name, problems } in checks {
        if problems.is_empty() {
            println!("ok      {name}");
        } else {
            println!("FAILED  {name}: {}", problems.join(", "));
        }
    }
}

/// A sentence for all checks that failed.
fn of_checks(checks: &[Check]) -> Option<String> {
    let failed = checks.iter().filter(|check| !check.problems.is_empty());
    let failed: Vec<_> = failed.map(|check| check.name).collect();
    (!failed.is_empty()).then(|| format!("the database is not in order: {}", failed.join(", ")))
}

/// A sentence for each thing that is wrong with the chain or not as it says.
fn of_chain(chain: &Verification) -> Vec<String> {
    let broken = chain.first_bad.as_ref().map(|fault| {
        format!(
            "the audit chain is broken at seq {}: {}; the {} rows before it are intact",
            fault.seq, fault.problem, chain.verified_rows
        )
    });
    broken.into_iter().chain(chain.key_differences.iter().map(of_key)).collect()
}

/// A sentence for a key that is not as the log says.
fn of_key(found: &KeyDifference) -> String {
    let KeyDifference { api_key_id, field, logged, stored, .. } = found;
    format!("API key {api_key_id}: {field} is {stored}, and {logged} according to the audit log")
}
