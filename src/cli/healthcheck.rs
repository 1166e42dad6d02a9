//! `octopus healthcheck`: requests `/health` from the server on `HOST` and `PORT`, for containers
//! without curl.

use super::error::CliError;
use crate::core::config::Config;
use crate::core::http_client::http_client;
use std::error::Error;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn run(config: &Config) -> Result<(), CliError> {
    let address = connect_address(config.listen);
    let problem = match fetch_status_line(address).await {
        Ok(line) if line.starts_with("HTTP/1.1 200 ") => return Ok(()),
        Ok(line) => format!("{address} responded with {line:?}"),
        Err(error) if error.is_timeout() => {
            format!("{address} did not respond within {TIMEOUT:?}")
        }
        Err(error) if error.is_connect() => {
            let cause = root_cause(&error);
            format!("no server responds at {address}: {cause}; check HOST and PORT")
        }
        Err(error) => format!("{address} sent no valid HTTP response: {}", root_cause(&error)),
    };
    Err(CliError::Other(problem))
}

/// The address to connect to: loopback if the server listens on all interfaces.
fn connect_address(mut listen: SocketAddr) -> SocketAddr {
    match listen {
        SocketAddr::V4(a) if a.ip().is_unspecified() => listen.set_ip(Ipv4Addr::LOCALHOST.into()),
        SocketAddr::V6(a) if a.ip().is_unspecified() => listen.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    listen
}

/// Sends `GET /health` and returns the version and the status of the response, formatted as a
/// status line.
async fn fetch_status_line(address: SocketAddr) -> reqwest::Result<String> {
    let client = http_client()
        .no_proxy()
        // The request is plain HTTP, so the system's certificates need not be loaded.
        .tls_built_in_root_certs(false)
        .timeout(TIMEOUT)
        .build()?;
    let response = client.get(format!("http://{address}/health")).send().await?;
    Ok(format!("{:?} {}", response.version(), response.status()))
}

/// The innermost cause of `error`, such as the operating system's error. The outer ones only say
/// which step failed.
fn root_cause(mut error: &dyn Error) -> &dyn Error {
    while let Some(cause) = error.source() {
        error = cause;
    }
    error
}
