//! Networks as people write them.

use ipnet::{IpNet, Ipv4Net};
use std::net::IpAddr;

/// An address or a network. IPv4 written as IPv6 (`::ffff:192.0.2.0/120`) is IPv4, as addresses are
/// wherever they are compared.
pub fn parse(text: &str) -> Option<IpNet> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ip.to_canonical().into());
    }
    let network: IpNet = text.parse().ok()?;
    let mapped = match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => v6.addr().to_ipv4_mapped(),
        _ => None,
    };
    match mapped {
        Some(v4) => Ipv4Net::new(v4, network.prefix_len() - 96).ok().map(IpNet::V4),
        None => Some(network),
    }
}
