//! All settings, and those without a module of their own.

use super::audit::{self, AuditConfig};
use super::backups::{self, BackupSchedule};
use super::database_url::{DatabaseUrl, DatabaseUrlError};
use super::limits::{self, Limits};
use super::password::PasswordCost;
use super::quota::StorageQuota;
use super::rate_limits::{self, RateLimits};
use super::reader::{ConfigError, Reader};
use super::retention::RetentionConfig;
use super::sessions::{self, SessionLimits};
use super::webhook::{self, WebhookConfig};
use super::{bootstrap, proxies, public_url, secrets};
use axum::http::HeaderValue;
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Who may register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// Everyone.
    Open,
    /// Callers with an API key that has the `write` scope.
    Key,
    /// No one.
    Closed,
}

/// The hash algorithm for new passwords. Hashes of both algorithms can always be verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordHasher {
    /// argon2id with m=19456 KiB, t=2, p=1.
    Argon2id,
    /// bcrypt with cost 12, for passwords of at most 72 bytes.
    Bcrypt,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// [`Self::Pretty`] on a terminal, otherwise [`Self::Json`].
    Auto,
    /// One JSON object per line.
    Json,
    /// Human-readable text.
    Pretty,
}

/// The configuration of a server. Its `Debug` output contains no secrets.
#[derive(Clone, Debug)]
pub struct Config {
    /// `HOST` and `PORT`.
    pub listen: SocketAddr,
    /// `DATABASE_URL`.
    pub database_url: DatabaseUrl,
    /// `BACKUP_…`; `None` disables scheduled backups.
    pub backups: Option<BackupSchedule>,
    /// `AUTO_MIGRATE`.
    pub auto_migrate: bool,
    /// `MASTER_API_KEY`, unless it is a placeholder.
    pub master_api_key: Option<SecretString>,
    /// `BOOTSTRAP_TOKEN`.
    pub bootstrap_token: Option<SecretString>,
    /// `BOOTSTRAP_WINDOW_MINUTES`; `None` never closes the window.
    pub bootstrap_window: Option<Duration>,
    /// `ALLOWED_HOSTS`, in lower case.
    pub allowed_hosts: Vec<String>,
    /// `REGISTRATION`.
    pub registration: Registration,
    /// `TRUSTED_PROXIES`.
    pub trusted_proxies: Vec<IpNet>,
    /// `PUBLIC_URL`, without a trailing slash.
    pub public_url: Option<Arc<str>>,
    /// `RATE_LIMIT_…`.
    pub rate_limits: RateLimits,
    /// `SESSION_…`.
    pub sessions: SessionLimits,
    /// `…RETENTION_DAYS`.
    pub retention: RetentionConfig,
    /// `AUDIT_…`.
    pub audit: AuditConfig,
    /// `PASSWORD_MIN_LENGTH`, in characters.
    pub password_min_length: usize,
    /// `PASSWORD_HASHER`.
    pub password_hasher: PasswordHasher,
    /// Not a setting: tests lower it, because hashing is slow by design.
    pub password_cost: PasswordCost,
    /// Timeouts and size limits.
    pub limits: Limits,
    /// `USER_MAX_…`.
    pub storage_quota: StorageQuota,
    /// `CLEANUP_INTERVAL_SECONDS`.
    pub cleanup_interval: Duration,
    /// `WEBHOOK_…`.
    pub webhook: Option<WebhookConfig>,
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
    /// Reads the environment of the process, and `.env` in the working directory for variables that
    /// are not set.
    pub fn from_environment() -> Result<Self, ConfigError> {
        let mut variables = HashMap::new();
        match dotenvy::from_filename_iter(".env") {
            Ok(lines) => {
                for line in lines {
                    // Do not quote the line in the message: it may contain a secret.
                    let (name, value) = line.map_err(|error| {
                        let at = match error {
                            dotenvy::Error::LineParse(_, index) => format!(" near column {index}"),
                            _ => String::new(),
                        };
                        ConfigError(vec![format!(
                            ".env contains a line that is not NAME=value{at}"
                        )])
                    })?;
                    variables.insert(name, value);
                }
            }
            Err(dotenvy::Error::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(ConfigError(vec![format!(".env cannot be read: {error}")])),
        }
        variables.extend(std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }));
        Self::from_variables(variables)
    }

    /// Reads `variables`, and not the environment.
    pub fn from_variables(variables: HashMap<String, String>) -> Result<Self, ConfigError> {
        let mut r = Reader::new(variables);
        let listen = listen(&mut r);
        let database_url = database_url(&mut r);
        let config = Self {
            listen,
            backups: backups::read(&mut r, &database_url),
            database_url,
            auto_migrate: r.flag("AUTO_MIGRATE", true),
            master_api_key: secrets::master_api_key(&mut r),
            bootstrap_token: secrets::bootstrap_token(&mut r),
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
            trusted_proxies: proxies::trusted_proxies(&mut r),
            public_url: public_url::public_url(&mut r),
            rate_limits: rate_limits::read(&mut r),
            sessions: sessions::read(&mut r),
            retention: RetentionConfig::read(&mut r),
            audit: audit::read(&mut r),
            password_min_length: password_min_length(&mut r),
            password_hasher: r.choice(
                "PASSWORD_HASHER",
                &[("argon2id", PasswordHasher::Argon2id), ("bcrypt", PasswordHasher::Bcrypt)],
                PasswordHasher::Argon2id,
            ),
            password_cost: PasswordCost::default(),
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

    /// Returns the trusted networks that are larger than any private network. A client with an
    /// address in such a network can forge the address that rate limits, address lists and the
    /// audit log use.
    pub fn public_proxy_networks(&self) -> impl Iterator<Item = &IpNet> {
        self.trusted_proxies.iter().filter(|network| proxies::is_public(network))
    }
}

fn listen(r: &mut Reader) -> SocketAddr {
    let local = IpAddr::from([127, 0, 0, 1]);
    let host = match r.text("HOST").as_deref() {
        Some("localhost") => local,
        _ => r.parsed("HOST", local, "localhost or an IP address, such as 127.0.0.1 or 0.0.0.0"),
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
                format_args!("contains {origin:?}; expected an origin such as https://example.com"),
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
    use super::super::secrets::{Weakness, weakness};
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let owned = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        Config::from_variables(owned.collect())
    }

    #[test]
    fn without_variables_the_documented_defaults_apply() {
        let config = read(&[]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8000");
        assert_eq!(config.rate_limits.ip.get(), 100);
        assert_eq!(config.limits.body_bytes, 2_097_152);
        assert_eq!(config.bootstrap_window, Some(Duration::from_hours(1)));
        assert!(config.master_api_key.is_none() && config.auto_migrate && config.docs_enabled);
    }

    #[test]
    fn all_problems_are_reported_together_and_name_their_variables() {
        let ConfigError(problems) = read(&[
            ("PORT", "eighty"),
            ("RATE_LIMIT_IP_PER_MINUTE", "0"),
            ("TRUSTED_PROXIES", "10.0.0.0/8, nonsense"),
            ("BOOTSTRAP_TOKEN", "too-short"),
            ("REGISTRATION", "maybe"),
            ("ALLOWED_HOSTS", "octopus.example, http://octopus.example:8000"),
        ])
        .unwrap_err();
        let named: Vec<_> = problems.iter().map(|p| p.split(' ').next().unwrap()).collect();
        let expected = [
            "PORT",
            "BOOTSTRAP_TOKEN",
            "ALLOWED_HOSTS",
            "REGISTRATION",
            "TRUSTED_PROXIES",
            "RATE_LIMIT_IP_PER_MINUTE",
        ];
        assert_eq!(named, expected);
        assert!(!problems.concat().contains("too-short"));
    }

    #[test]
    fn a_guessable_secret_is_refused_and_the_message_says_how_to_generate_one() {
        let digits = "0123456789abcdef0123456789abcdef";
        let weak = ["a".repeat(64), "password".repeat(8), "octopus-".repeat(5)];
        let name = "BOOTSTRAP_TOKEN";
        for value in weak.iter().map(String::as_str).chain([digits]) {
            let ConfigError(problems) = read(&[(name, value)]).unwrap_err();
            let [problem] = &problems[..] else { panic!("{problems:?}") };
            let expected = " is too easy to guess; generate one with `openssl rand -hex 32`";
            assert!(problem.starts_with(name) && problem.ends_with(expected), "{problem}");
            // An imported key may be weak. A weak key is refused where it would be registered.
            read(&[("MASTER_API_KEY", value)]).unwrap();
            assert_eq!(weakness(value), Some(Weakness::Guessable));
        }
        assert_eq!(weakness("too-short-to-be-a-key"), Some(Weakness::Short));
        for strong in ["6f1ed002ab5595859014ebf0951522d9", "correct-horse-battery-staple-lamp"] {
            read(&[(name, strong)]).unwrap();
            assert_eq!(weakness(strong), None);
        }
        read(&[("BOOTSTRAP_TOKEN", "setup-secret")]).unwrap_err();
    }

    #[test]
    fn trusted_networks_with_public_addresses_are_detected() {
        let wide =
            |value| read(&[("TRUSTED_PROXIES", value)]).unwrap().public_proxy_networks().count();
        for value in ["0.0.0.0/0", "::/0", "0.0.0.0/1", "2000::/3", "::ffff:0.0.0.0/96"] {
            assert_eq!(wide(value), 1, "{value}");
        }
        assert_eq!(wide("10.0.0.0/8,172.16.0.0/12,fc00::/7,192.0.2.1,2001:db8::/32"), 0);
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
    fn a_secret_can_come_from_a_file_and_is_never_displayed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, "6f1ed002ab5595859014ebf0951522d9\n").unwrap();
        let config = read(&[("MASTER_API_KEY_FILE", file.to_str().unwrap())]).unwrap();
        let key = config.master_api_key.as_ref().unwrap();
        assert_eq!(key.expose_secret(), "6f1ed002ab5595859014ebf0951522d9");
        assert!(!format!("{config:?}").contains("6f1ed002ab559585"));
    }
}
