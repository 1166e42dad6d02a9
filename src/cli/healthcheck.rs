//! `octopus healthcheck`: requests `/health` from the server on `HOST` and `PORT`, for containers
//! without curl.

use super::error::CliError;
use crate::core::config::Config;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn run(config: &Config) -> Result<(), CliError> {
    let address = connect_address(config.listen);
    match timeout(TIMEOUT, fetch_status_line(address)).await {
        Ok(Ok(line)) if line.starts_with("HTTP/1.1 200 ") => Ok(()),
        Ok(Ok(line)) => Err(CliError::Other(format!("{address} responded with {line:?}"))),
        Ok(Err(error)) => Err(CliError::Other(format!(
            "no server responds at {address}: {error}; check HOST and PORT"
        ))),
        Err(_) => Err(CliError::Other(format!("{address} did not respond within {TIMEOUT:?}"))),
    }
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

/// Sends `GET /health` and returns the status line of the response.
async fn fetch_status_line(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    Ok(response.lines().next().unwrap_or_default().to_owned())
}
