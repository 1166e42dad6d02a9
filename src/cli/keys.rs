//! `octopus keys`: manages API keys on the host, directly in the database, for example after the
//! last admin key is lost. The audit log records each change as made by the host; a running server
//! applies it immediately.

use super::error::CliError;
use super::output::{hint, not_committed, print, print_result, print_secret};
use crate::audit::Origin;
use crate::core::clock::{Clock, Timestamp};
use crate::core::config::Config;
use crate::core::error::{Error, FieldError, Loc};
use crate::features::api_keys::model::{ApiKey, ApiKeyFilter, CreateApiKey, RotateApiKey};
use crate::features::api_keys::service::{self, UncommittedKey};
use crate::http::{self, Page, Rules};
use crate::state::AppState;
use chrono::SecondsFormat;
use clap::{Args, Subcommand};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// Keys read per page.
const PAGE: i64 = 1000;

/// Arguments of `octopus keys`.
#[derive(Debug, Args)]
pub(super) struct KeysArgs {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List API keys, without their secrets
    List {
        /// Include deactivated keys
        #[arg(long)]
        include_inactive: bool,
        /// Only keys whose names contain this text
        #[arg(long, value_name = "TEXT")]
        q: Option<String>,
        /// Only keys unused for this many days
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(i64).range(1..=3650))]
        unused_for_days: Option<i64>,
    },
    /// Create an API key and print its secret, which is shown only once
    Create {
        /// Name of the key
        #[arg(long)]
        name: String,
        /// Purpose of the key
        #[arg(long)]
        description: Option<String>,
        /// Scopes, separated by commas
        #[arg(long, default_value = "read")]
        scopes: String,
        /// Expiry, such as 2030-12-31T23:59:59Z (default: none)
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
        /// Addresses and networks allowed to use it, separated by commas (default: all)
        #[arg(long, value_name = "LIST")]
        allowed_ips: Option<String>,
        /// Rate limit in requests per minute
        #[arg(long, value_name = "N")]
        rate_limit_per_minute: Option<i64>,
    },
    /// Deactivate an API key
    Deactivate {
        /// Id of the key
        id: i64,
    },
    /// Replace an API key and print the new secret, which is shown only once
    Rotate {
        /// Id of the key
        id: i64,
        /// Grace period of the old key, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        grace_period_seconds: i64,
    },
}

pub(super) async fn run(config: Config, args: &KeysArgs) -> Result<(), CliError> {
    let app = AppState::open_existing(config, Clock::default()).await?;
    let result = execute(&app, args).await;
    app.db.close().await;
    result
}

async fn execute(app: &AppState, args: &KeysArgs) -> Result<(), CliError> {
    let host = Origin::HOST;
    match &args.command {
        Command::List { include_inactive, q, unused_for_days } => {
            let filter = ApiKeyFilter {
                include_inactive: *include_inactive,
                unused_for_days: *unused_for_days,
                q: q.clone(),
            };
            let keys = all_keys(app, &filter).await.map_err(|error| cli_error(&error))?;
            if args.json {
                return print(json_text(&keys)?);
            }
            print(table(&keys).trim_fmt())
        }
        Command::Create {
            name,
            description,
            scopes,
            expires_at,
            allowed_ips,
            rate_limit_per_minute,
        } => {
            let mut body = Map::from_iter([
                ("name".to_owned(), json!(name)),
                ("scopes".to_owned(), json!(scopes)),
            ]);
            let optional = [
                ("description", json!(description)),
                ("expires_at", json!(expires_at)),
                ("allowed_ips", json!(allowed_ips)),
                ("rate_limit_per_minute", json!(rate_limit_per_minute)),
            ];
            body.extend(optional.map(|(name, value)| (name.to_owned(), value)));
            let new = validated::<CreateApiKey>(app, body)?;
            let key = service::prepare(app, &host, &new, None).await;
            show_and_commit(app, key.map_err(|error| cli_error(&error))?, args.json).await
        }
        Command::Deactivate { id } => {
            let key = service::deactivate(app, &host, *id).await;
            let key = key.map_err(|error| cli_error(&error))?;
            if args.json {
                return print_result(json_text(&key)?);
            }
            let name = printable(&key.name);
            print_result(format_args!("API key {} ({name}) is deactivated.", key.id))
        }
        Command::Rotate { id, grace_period_seconds } => {
            let body =
                Map::from_iter([("grace_period_seconds".to_owned(), json!(grace_period_seconds))]);
            let rotation = validated::<RotateApiKey>(app, body)?;
            let key = service::prepare_rotation(app, &host, *id, rotation, None).await;
            show_and_commit(app, key.map_err(|error| cli_error(&error))?, args.json).await
        }
    }
}

async fn all_keys(app: &AppState, filter: &ApiKeyFilter) -> Result<Vec<ApiKey>, Error> {
    let mut keys: Vec<ApiKey> = vec![];
    loop {
        let skip = i64::try_from(keys.len()).unwrap_or(i64::MAX);
        let page = service::list(app, filter, Page { skip, limit: PAGE }.into()).await?.entries;
        if page.is_empty() {
            return Ok(keys);
        }
        keys.extend(page);
    }
}

/// Validates the arguments by the rules of the same request over HTTP.
fn validated<T: http::Checked>(
    app: &AppState,
    body: Map<String, Value>,
) -> Result<T::Valid, CliError> {
    let rules = Rules { now: app.clock.now(), config: &app.config };
    let bytes = Value::Object(body).to_string();
    http::check::<T>(bytes.as_bytes(), &rules).map_err(|error| cli_error(&error))
}

/// The error for a terminal: names each invalid field by its command-line option.
fn cli_error(error: &Error) -> CliError {
    let Error::Invalid(fields) = error else { return CliError::Other(error.to_string()) };
    let line = |field: &FieldError| {
        let name = match field.loc.last() {
            Some(Loc::Name(name)) => name.replace('_', "-"),
            _ => "input".to_owned(),
        };
        format!("--{name}: {}", field.msg.trim_start_matches("Value error, "))
    };
    CliError::Other(fields.iter().map(line).collect::<Vec<_>>().join("\n"))
}

fn json_text(value: &impl Serialize) -> Result<String, CliError> {
    serde_json::to_string_pretty(value).map_err(|error| CliError::Other(error.to_string()))
}

/// Prints the new key and then commits it. Standard output carries only the key, so that a script
/// can capture it.
async fn show_and_commit(app: &AppState, key: UncommittedKey, json: bool) -> Result<(), CliError> {
    let created = key.created();
    let text = if json { json_text(created)? } else { created.key.expose().to_owned() };
    print_secret(text).await?;
    let created = key.commit(app).await.map_err(|error| not_committed(&error))?;
    if !json {
        let (id, name) = (created.api_key.id, printable(&created.api_key.name));
        hint(format_args!("Created API key {id} ({name}). Store it now: it is never shown again."));
    }
    Ok(())
}

fn table(keys: &[ApiKey]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["ID", "NAME", "SCOPES", "ACTIVE", "EXPIRES", "LAST USED", "ADDRESSES"]);
    for key in keys {
        let active = if key.is_active { "yes" } else { "no" };
        table.add_row([
            key.id.to_string(),
            printable(&key.name),
            key.scopes.clone(),
            active.to_owned(),
            time(key.ends_at(), "never"),
            time(key.last_used_at, "never"),
            key.allowed_ips.clone().unwrap_or_else(|| "all".to_owned()),
        ]);
    }
    table
}

/// `text` without control characters, which a terminal would interpret.
fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

fn time(time: Option<Timestamp>, none: &str) -> String {
    time.map_or_else(|| none.to_owned(), |time| time.0.to_rfc3339_opts(SecondsFormat::Secs, true))
}
