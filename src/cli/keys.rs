//! `octopus keys`: API keys from the host, directly in the database, for the day the last admin key
//! is lost. Every change is audited as made by the host; a running server notices it at once.

use super::CliError;
use crate::audit::Origin;
use crate::core::clock::{Clock, Timestamp};
use crate::core::config::Config;
use crate::core::error::{Error, FieldError, Loc};
use crate::features::api_keys::model::{
    ApiKey, CreateApiKey, CreatedApiKey, KeyFilter, RotateApiKey,
};
use crate::features::api_keys::service;
use crate::http::{self, Page, Rules};
use crate::state::AppState;
use chrono::SecondsFormat;
use clap::{Args, Subcommand};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// Keys listed at a time.
const PAGE: i64 = 1000;

/// What `keys` takes.
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
    /// List API keys, never their secrets
    List {
        /// List those switched off, too
        #[arg(long)]
        include_inactive: bool,
        /// Only keys with this in their names
        #[arg(long, value_name = "TEXT")]
        q: Option<String>,
        /// Only keys that were not used for so many days
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(i64).range(1..=3650))]
        unused_for_days: Option<i64>,
    },
    /// Make an API key, and print its secret this once
    Create {
        /// What people call it
        #[arg(long)]
        name: String,
        /// What it is for
        #[arg(long)]
        description: Option<String>,
        /// Scopes with commas
        #[arg(long, default_value = "read")]
        scopes: String,
        /// When it ends, such as 2030-12-31T23:59:59Z
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
        /// Addresses and networks it may be used from, with commas
        #[arg(long, value_name = "LIST")]
        allowed_ips: Option<String>,
        /// Requests a minute
        #[arg(long, value_name = "N")]
        rate_limit_per_minute: Option<i64>,
    },
    /// Switch an API key off
    Deactivate {
        /// Its id
        id: i64,
    },
    /// Put a new API key in the place of one, and print its secret this once
    Rotate {
        /// Its id
        id: i64,
        /// How long the old one still works
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        grace_period_seconds: i64,
    },
}

pub(super) async fn run(config: Config, args: &KeysArgs) -> Result<(), CliError> {
    let app = AppState::open_existing(config, Clock::default()).await?;
    let done = execute(&app, args).await;
    app.db.close().await;
    done
}

async fn execute(app: &AppState, args: &KeysArgs) -> Result<(), CliError> {
    let host = Origin::HOST;
    match &args.command {
        Command::List { include_inactive, q, unused_for_days } => {
            let filter = KeyFilter {
                include_inactive: *include_inactive,
                unused_for_days: *unused_for_days,
                q: q.clone(),
            };
            let keys = all_keys(app, &filter).await.map_err(|error| sentence(&error))?;
            if args.json {
                return print_json(&keys);
            }
            println!("{}", table(&keys).trim_fmt());
            Ok(())
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
            let new = checked::<CreateApiKey>(app, body)?;
            let created = service::create(app, &host, &new, None).await;
            print_created(&created.map_err(|error| sentence(&error))?, args.json)
        }
        Command::Deactivate { id } => {
            let key = service::deactivate(app, &host, *id).await;
            let key = key.map_err(|error| sentence(&error))?;
            if args.json {
                return print_json(&key);
            }
            println!("API key {} ({}) is switched off.", key.id, printable(&key.name));
            Ok(())
        }
        Command::Rotate { id, grace_period_seconds } => {
            let body =
                Map::from_iter([("grace_period_seconds".to_owned(), json!(grace_period_seconds))]);
            let rotation = checked::<RotateApiKey>(app, body)?;
            let created = service::rotate(app, &host, *id, rotation, None).await;
            print_created(&created.map_err(|error| sentence(&error))?, args.json)
        }
    }
}

async fn all_keys(app: &AppState, filter: &KeyFilter) -> Result<Vec<ApiKey>, Error> {
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

/// What the arguments say, by the rules of the same request over HTTP.
fn checked<T: http::Checked>(
    app: &AppState,
    body: Map<String, Value>,
) -> Result<T::Valid, CliError> {
    let rules = Rules { now: app.clock.now(), config: &app.config };
    let bytes = Value::Object(body).to_string();
    http::check::<T>(bytes.as_bytes(), &rules).map_err(|error| sentence(&error))
}

/// An error for a terminal: fields that break their rules by their names here.
fn sentence(error: &Error) -> CliError {
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

fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(value);
    println!("{}", text.map_err(|error| CliError::Other(error.to_string()))?);
    Ok(())
}

/// The key alone on standard output, so that it can go straight into a file or a variable.
fn print_created(created: &CreatedApiKey, json: bool) -> Result<(), CliError> {
    if json {
        return print_json(created);
    }
    let key = &created.api_key;
    eprintln!(
        "Made API key {} ({}). Store it now: it is never shown again.",
        key.id,
        printable(&key.name)
    );
    println!("{}", created.key);
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

/// Without what a terminal would obey.
fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

fn time(time: Option<Timestamp>, none: &str) -> String {
    time.map_or_else(|| none.to_owned(), |time| time.0.to_rfc3339_opts(SecondsFormat::Secs, true))
}
