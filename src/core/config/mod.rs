//! The configuration: read once, from the environment and `.env`, and checked as a whole before
//! anything starts. `.env.example` lists every variable with its default.

mod audit;
mod backups;
mod bootstrap;
mod database_url;
mod limits;
mod quota;
mod rate_limits;
mod reader;
mod retention;
mod sessions;
mod webhook;

pub use audit::AuditConfig;
pub use backups::Backups;
pub use database_url::{DatabaseUrl, DatabaseUrlError};
pub use limits::Limits;
pub use quota::StorageQuota;
pub use rate_limits::RateLimits;
pub use reader::Problems;
pub use retention::Retention;
pub use sessions::SessionLimits;
pub use webhook::Webhook;

use crate::core::{key_format, network};
use axum::http::HeaderValue;
use ipnet::IpNet;
use reader::Reader;
use secrecy::{ExposeSecret, SecretString};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// What our documentation and that of the Python original write where a secret belongs; set to one
/// of these is not set.
const PLACEHOLDERS: [&str; 20] = [
    "your-secret-api-key-here",
    "your-master-api-key-here",
    "your-api-key-here",
    "your-secret-key-here",
    "changeme",
    "change-me",
    "default-api-key",
    "your-secret-api-key",
    "your-secret-key",
    "your-master-key-here",
    "your-master-key",
    "your_actual_master_key",
    "your-actual-key-here",
    "your-actual-key",
    "your-admin-key",
    "your-key-here",
    "octopus_xyz...your-key-here",
    "octopus_abc123...your-key-here",
    "octopus_abc123...your-actual-key",
    "octopus_abc123...your-actual-key-here",
];

/// A key shorter than this that nobody made at random could be guessed.
pub const KEY_MIN_LENGTH: usize = 32;

/// Whether `secret` is what some documentation writes where one belongs.
pub fn is_placeholder(secret: &str) -> bool {
    PLACEHOLDERS.iter().any(|placeholder| placeholder.eq_ignore_ascii_case(secret.trim()))
}

/// Who may register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// Anybody.
    Open,
    /// Holders of a key with the `write` scope.
    Key,
    /// Nobody.
    Closed,
}

/// How new passwords are hashed; both kinds are always verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordHasher {
    /// argon2id with m=19456 KiB, t=2, p=1.
    Argon2id,
    /// bcrypt with cost 12, for passwords of at most 72 bytes.
    Bcrypt,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

/// All of it. Secrets do not appear in its `Debug`.
#[derive(Clone, Debug)]
pub struct Config {
    /// `HOST` and `PORT`.
    pub listen: SocketAddr,
    /// `DATABASE_URL`.
    pub database_url: DatabaseUrl,
    /// `BACKUP_…`; `None` makes none.
    pub backups: Option<Backups>,
    /// `AUTO_MIGRATE`.
    pub auto_migrate: bool,
    /// `MASTER_API_KEY`, unless it is a placeholder.
    pub master_api_key: Option<SecretString>,
    /// `BOOTSTRAP_TOKEN`.
    pub bootstrap_token: Option<SecretString>,
    /// `BOOTSTRAP_WINDOW_MINUTES`; `None` has no end.
    pub bootstrap_window: Option<Duration>,
    /// `ALLOWED_HOSTS`, in lower case.
    pub allowed_hosts: Vec<String>,
    /// `REGISTRATION`.
    pub registration: Registration,
    /// `TRUSTED_PROXIES`.
    pub trusted_proxies: Vec<IpNet>,
    /// `RATE_LIMIT_…`.
    pub rate_limits: RateLimits,
    /// `SESSION_…`.
    pub sessions: SessionLimits,
    /// `…RETENTION_DAYS`.
    pub retention: Retention,
    /// `AUDIT_…`.
    pub audit: AuditConfig,
    /// `PASSWORD_MIN_LENGTH`, in characters.
    pub password_min_length: usize,
    /// `PASSWORD_HASHER`.
    pub password_hasher: PasswordHasher,
    /// Deadlines and bounds.
    pub limits: Limits,
    /// `USER_MAX_…`.
    pub storage_quota: StorageQuota,
    /// `CLEANUP_INTERVAL_SECONDS`.
    pub cleanup_interval: Duration,
    /// `WEBHOOK_…`.
    pub webhook: Option<Webhook>,
    /// `CORS_ALLOWED_ORIGINS`.
    pub cors_allowed_origins: Vec<HeaderValue>,
    /// `DOCS_ENABLED`.
    pub docs_enabled: bool,
    /// `METRICS_ADDR`.
    pub metrics_addr: Option<SocketAddr>,
    /// `LOG_FORMAT`.
    pub log_format: LogFormat,
    /// `RUST_LOG`.
    pub log_filter: String,
}

impl Config {
    /// Reads the process's environment and, for what is not set there, `.env` in the working
    /// directory.
    pub fn from_environment() -> Result<Self, Problems> {
        let mut variables = HashMap::new();
        match dotenvy::from_filename_iter(".env") {
            Ok(lines) => {
                for line in lines {
                    // The line itself stays out of the message: it may hold a secret.
                    let (name, value) = line.map_err(|error| {
                        let at = match error {
                            dotenvy::Error::LineParse(_, index) => format!(" near column {index}"),
                            _ => String::new(),
                        };
                        Problems(vec![format!(".env has a line that is not NAME=value{at}")])
                    })?;
                    variables.insert(name, value);
                }
            }
            Err(dotenvy::Error::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Problems(vec![format!(".env cannot be read: {error}")])),
        }
        variables.extend(std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }));
        Self::from_variables(variables)
    }

    /// Reads `variables` alone.
    pub fn from_variables(variables: HashMap<String, String>) -> Result<Self, Problems> {
        let mut r = Reader::new(variables);
        let listen = listen(&mut r);
        let database_url = database_url(&mut r);
        let config = Self {
            listen,
            backups: backups::read(&mut r, &database_url),
            database_url,
            auto_migrate: r.flag("AUTO_MIGRATE", true),
            master_api_key: master_api_key(&mut r),
            bootstrap_token: r.secret("BOOTSTRAP_TOKEN"),
            bootstrap_window: bootstrap::window(&mut r),
            allowed_hosts: bootstrap::allowed_hosts(&mut r),
            registration: r.choice(
                "REGISTRATION",
                &[
                    ("open", Registration::Open),
                    ("key", Registration::Key),
                    ("closed", Registration::Closed),
                ],
                Registration::Open,
            ),
            trusted_proxies: trusted_proxies(&mut r),
            rate_limits: rate_limits::read(&mut r),
            sessions: sessions::read(&mut r),
            retention: Retention::read(&mut r),
            audit: audit::read(&mut r),
            password_min_length: password_min_length(&mut r),
            password_hasher: r.choice(
                "PASSWORD_HASHER",
                &[("argon2id", PasswordHasher::Argon2id), ("bcrypt", PasswordHasher::Bcrypt)],
                PasswordHasher::Argon2id,
            ),
            limits: limits::read(&mut r),
            storage_quota: StorageQuota::read(&mut r),
            cleanup_interval: r.seconds("CLEANUP_INTERVAL_SECONDS", 60),
            webhook: webhook::webhook(&mut r),
            cors_allowed_origins: cors_allowed_origins(&mut r),
            docs_enabled: r.flag("DOCS_ENABLED", true),
            metrics_addr: metrics_addr(&mut r),
            log_format: r.choice(
                "LOG_FORMAT",
                &[
                    ("auto", LogFormat::Auto),
                    ("json", LogFormat::Json),
                    ("pretty", LogFormat::Pretty),
                ],
                LogFormat::Auto,
            ),
            log_filter: r.text("RUST_LOG").unwrap_or_else(|| "info".to_owned()),
        };
        r.finish(config)
    }
}

fn listen(r: &mut Reader) -> SocketAddr {
    let local = IpAddr::from([127, 0, 0, 1]);
    let host = match r.text("HOST").as_deref() {
        Some("localhost") => local,
        _ => r.parsed("HOST", local, "an IP address, such as 127.0.0.1 or 0.0.0.0"),
    };
    SocketAddr::new(host, r.parsed("PORT", 8000, "a port, from 0 to 65535"))
}

fn database_url(r: &mut Reader) -> DatabaseUrl {
    let default = || DatabaseUrl::Sqlite(PathBuf::from("./chat_conversations.db"));
    let Some(url) = r.secret("DATABASE_URL") else { return default() };
    url.expose_secret().parse().unwrap_or_else(|error: DatabaseUrlError| {
        r.problem("DATABASE_URL", error);
        default()
    })
}

fn master_api_key(r: &mut Reader) -> Option<SecretString> {
    let key = r.secret("MASTER_API_KEY")?;
    if is_placeholder(key.expose_secret()) {
        return None;
    }
    let text = key.expose_secret();
    if text.len() < KEY_MIN_LENGTH {
        let what = format!("must have at least {KEY_MIN_LENGTH} characters");
        r.problem("MASTER_API_KEY", what);
    } else if !text.bytes().all(|b| b.is_ascii_graphic()) {
        // Others do not fit into a header field, so nobody could ever send the key.
        r.problem("MASTER_API_KEY", "must consist of visible ASCII characters");
    } else if !key_format::is_plausible(text) {
        let what = "has the length of a key of ours, but is mistyped: its checksum is wrong";
        r.problem("MASTER_API_KEY", what);
    }
    Some(key)
}

fn trusted_proxies(r: &mut Reader) -> Vec<IpNet> {
    let texts: Vec<String> = r.list("TRUSTED_PROXIES", "a text");
    let mut networks = vec![];
    for text in texts {
        match network::parse(&text) {
            Some(network) => networks.push(network),
            None => r.problem(
                "TRUSTED_PROXIES",
                format_args!(
                    "has {text:?}, which is not an address or a network such as 10.0.0.0/8"
                ),
            ),
        }
    }
    networks
}

fn password_min_length(r: &mut Reader) -> usize {
    let length = r.parsed("PASSWORD_MIN_LENGTH", 8, "a whole number from 8 to 128");
    if !(8..=128).contains(&length) {
        r.problem("PASSWORD_MIN_LENGTH", "must be from 8 to 128");
    }
    length
}

fn cors_allowed_origins(r: &mut Reader) -> Vec<HeaderValue> {
    let origins: Vec<String> = r.list("CORS_ALLOWED_ORIGINS", "a text");
    let mut values = vec![];
    for origin in origins {
        let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        let is_origin = rest.is_some_and(|host| !host.is_empty() && !host.contains(['/', '*']));
        match HeaderValue::from_str(&origin) {
            Ok(value) if is_origin => values.push(value),
            _ => r.problem(
                "CORS_ALLOWED_ORIGINS",
                format_args!("has {origin:?}, which is not an origin such as https://example.com"),
            ),
        }
    }
    values
}

fn metrics_addr(r: &mut Reader) -> Option<SocketAddr> {
    let text = r.text("METRICS_ADDR")?;
    let address = text.parse().ok();
    if address.is_none() {
        r.problem("METRICS_ADDR", "must be an address and a port, such as 127.0.0.1:9000");
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Config, Problems> {
        let owned = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        Config::from_variables(owned.collect())
    }

    #[test]
    fn nothing_set_gives_the_documented_defaults() {
        let config = read(&[]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8000");
        assert_eq!(config.rate_limits.ip.get(), 100);
        assert_eq!(config.limits.body_bytes, 2_097_152);
        assert_eq!(config.bootstrap_window, Some(Duration::from_hours(1)));
        assert!(config.master_api_key.is_none() && config.auto_migrate && config.docs_enabled);
    }

    #[test]
    fn every_problem_is_reported_at_once_and_names_its_variable() {
        let Problems(problems) = read(&[
            ("PORT", "eighty"),
            ("RATE_LIMIT_IP_PER_MINUTE", "0"),
            ("TRUSTED_PROXIES", "10.0.0.0/8, nonsense"),
            ("MASTER_API_KEY", "too-short-to-be-a-key"),
            ("REGISTRATION", "maybe"),
            ("ALLOWED_HOSTS", "octopus.example, http://octopus.example:8000"),
        ])
        .unwrap_err();
        let named: Vec<_> = problems.iter().map(|p| p.split(' ').next().unwrap()).collect();
        let expected = [
            "PORT",
            "MASTER_API_KEY",
            "ALLOWED_HOSTS",
            "REGISTRATION",
            "TRUSTED_PROXIES",
            "RATE_LIMIT_IP_PER_MINUTE",
        ];
        assert_eq!(named, expected);
        assert!(!problems.concat().contains("too-short-to-be-a-key"));
    }

    #[test]
    fn a_placeholder_counts_as_unset() {
        assert!(
            read(&[("MASTER_API_KEY", "your-secret-api-key-here")])
                .unwrap()
                .master_api_key
                .is_none()
        );
    }

    #[test]
    fn a_secret_can_come_from_a_file_and_never_shows() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, "0123456789abcdef0123456789abcdef\n").unwrap();
        let config = read(&[("MASTER_API_KEY_FILE", file.to_str().unwrap())]).unwrap();
        let key = config.master_api_key.as_ref().unwrap();
        assert_eq!(key.expose_secret(), "0123456789abcdef0123456789abcdef");
        assert!(!format!("{config:?}").contains("0123456789abcdef"));
    }
}
