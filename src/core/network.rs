//! Parses and classifies IP addresses and networks.

use ipnet::{IpNet, Ipv4Net};
use std::net::IpAddr;

/// Returns whether `ip` may be on the public internet: it is not loopback (RFC 1122), private
/// (RFC 1918), link-local (RFC 3927, RFC 4291) or unique local (RFC 4193). An IPv4-mapped IPv6
/// address counts as IPv4.
pub fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => !(ip.is_loopback() || ip.is_private() || ip.is_link_local()),
        IpAddr::V6(ip) => !(ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unique_local()),
    }
}

/// Parses an address or a network in CIDR notation. Converts IPv4-mapped IPv6
/// (`::ffff:192.0.2.0/120`) to IPv4, because client addresses are converted before they are
/// compared.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_public_unless_it_is_loopback_private_link_local_or_unique_local() {
        let is_public = |ip: &str| is_public(ip.parse().unwrap());
        for ip in ["127.0.0.1", "127.9.9.9", "::1", "10.1.2.3", "172.17.0.1", "172.31.255.255"] {
            assert!(!is_public(ip), "{ip}");
        }
        for ip in ["192.168.65.1", "169.254.1.1", "fe80::1", "fd00::1", "::ffff:172.17.0.1"] {
            assert!(!is_public(ip), "{ip}");
        }
        for ip in [
            "8.8.8.8",
            "172.32.0.1",
            "100.64.0.1",
            "0.0.0.0",
            "::",
            "2001:db8::1",
            "::ffff:8.8.8.8",
        ] {
            assert!(is_public(ip), "{ip}");
        }
    }
}
