//! The first screen of `octopus serve` on a terminal, in place of the log events of the start.

use crate::core::config::{Config, DatabaseUrl, LogFormat};
use crate::features::api_keys::bootstrap::FirstKey;
use secrecy::{ExposeSecret, SecretString};
use sqlx_postgres::PgConnectOptions;
use std::fmt::{self, Display, Formatter};
use std::io::{IsTerminal, stderr};
use std::net::SocketAddr;

/// Returns whether to write the banner: standard error is a terminal, and logs are not JSON.
pub fn is_wanted(config: &Config) -> bool {
    config.log_format != LogFormat::Json && stderr().is_terminal()
}

/// The banner.
#[derive(Debug)]
pub struct Banner<'a> {
    /// The address that the server listens on.
    pub address: SocketAddr,
    /// The configuration.
    pub config: &'a Config,
    /// How to create the first API key.
    pub first_key: FirstKey<'a>,
}

/// A URL that works on this machine.
pub fn local_url(address: SocketAddr) -> String {
    match address.ip() {
        ip if ip.is_unspecified() || ip.is_loopback() => {
            format!("http://localhost:{}", address.port())
        }
        _ => format!("http://{address}"),
    }
}

impl Display for Banner<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let url = local_url(self.address);
        writeln!(f, "Octopus {}", env!("CARGO_PKG_VERSION"))?;
        writeln!(f, "  Address        {url}")?;
        let public_url = self.config.public_url.as_deref();
        if let Some(public_url) = public_url {
            writeln!(f, "  Public URL     {public_url}")?;
        }
        match &self.config.database_url {
            DatabaseUrl::Sqlite(path) => {
                writeln!(f, "  Database       SQLite, {}", path.display())?;
            }
            DatabaseUrl::Postgres(url) => writeln!(f, "  Database       Postgres, {}", host(url))?,
        }
        if self.config.docs_enabled {
            writeln!(f, "  Documentation  {}/docs", public_url.unwrap_or(&url))?;
        }
        match self.first_key {
            FirstKey::Exists => Ok(()),
            FirstKey::ConfiguredToken => {
                let program = std::env::args().next().unwrap_or_else(|| "octopus".to_owned());
                writeln!(f, "  First API key  {program} bootstrap")
            }
            FirstKey::GeneratedToken(token) => {
                writeln!(f, "  First API key  curl -X POST {url}/bootstrap")?;
                let token = token.expose_secret();
                writeln!(f, "  From outside   add -H 'Octopus-Bootstrap-Token: {token}'")
            }
        }
    }
}

/// The host and port of a Postgres URL, without user, password and database.
fn host(url: &SecretString) -> String {
    let options: Result<PgConnectOptions, _> = url.expose_secret().parse();
    options.map_or_else(|_| String::new(), |o| format!("{}:{}", o.get_host(), o.get_port()))
}
