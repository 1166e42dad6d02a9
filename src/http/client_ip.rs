//! The client address of a request. Rate limits, IP allowlists, the audit log and the log all use
//! the address that [`Client::of`] determines.

use axum::http::{HeaderMap, HeaderName};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The client of a request. Stored in the request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The address. An IPv4-mapped IPv6 address is stored as IPv4.
    pub ip: IpAddr,
    /// Whether an untrusted peer sent `X-Forwarded-For`, which was ignored.
    pub forged_header: bool,
}

/// The key of a rate limit bucket: an IPv4 address or an IPv6 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientBucket {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 network.
    V6 {
        /// The upper 64 bits of the address; bits after `length` are 0.
        prefix: u64,
        /// The prefix length in bits.
        length: u8,
    },
    /// Shared by all clients that arrive when the limiter is full.
    Others,
}

impl Client {
    /// Determines the client: `peer`, or if that is a `trusted` proxy, the rightmost hop of
    /// `X-Forwarded-For` that is not trusted. The search stops at a hop that is not an address; the
    /// last address before it counts.
    pub fn of(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let mut ip = peer.to_canonical();
        let has_header = headers.contains_key(FORWARDED_FOR);
        if !is_trusted(ip, trusted) {
            return Self { ip, forged_header: has_header };
        }
        let lines = headers.get_all(FORWARDED_FOR).iter().map(|line| line.to_str().unwrap_or("?"));
        let hops: Vec<&str> = lines.flat_map(|line| line.split(',')).collect();
        for hop in hops.into_iter().rev() {
            let Some(address) = parse_hop(hop) else { break };
            ip = address;
            if !is_trusted(ip, trusted) {
                break;
            }
        }
        Self { ip, forged_header: false }
    }

    /// The narrowest bucket that counts its requests: an IPv4 address or an IPv6 /64.
    pub fn bucket(&self) -> ClientBucket {
        ClientBucket::of(self.ip)
    }
}

impl ClientBucket {
    /// The bucket of `ip`, which must not be an IPv4-mapped IPv6 address.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::V4(ip),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                let prefix = [a, b, c, d].iter().fold(0, |n, s| n << 16 | u64::from(*s));
                Self::V6 { prefix, length: 64 }
            }
        }
    }
}

/// Returns whether `peer` is one of the `trusted` proxies.
pub fn is_trusted(peer: IpAddr, trusted: &[IpNet]) -> bool {
    let peer = peer.to_canonical();
    trusted.iter().any(|network| network.contains(&peer))
}

/// Parses an address as proxies write it: bare, with a port, or in brackets.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim().trim_matches('"');
    let bare = hop.parse().ok();
    let with_port = || hop.parse::<std::net::SocketAddr>().map(|s| s.ip()).ok();
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    bare.or_else(with_port).or_else(bracketed).map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(FORWARDED_FOR, line.parse().unwrap());
        }
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        Client::of(peer.parse().unwrap(), &headers, &trusted).ip.to_string()
    }

    #[test]
    fn an_untrusted_peer_cannot_choose_its_address() {
        assert_eq!(client("203.0.113.9", &["198.51.100.1"]), "203.0.113.9");
        let peer = "203.0.113.9".parse().unwrap();
        let headers = HeaderMap::from_iter([(FORWARDED_FOR, "1.2.3.4".parse().unwrap())]);
        assert!(Client::of(peer, &headers, &[]).forged_header);
    }

    #[test]
    fn behind_trusted_proxies_it_is_the_rightmost_untrusted_hop() {
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 198.51.100.1, 10.0.0.2"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["6.6.6.6", "198.51.100.1:4711"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]:80, fd00::1"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["10.0.0.3"]), "10.0.0.3");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn a_hop_that_is_not_an_address_ends_the_search() {
        assert_eq!(client("10.0.0.1", &["198.51.100.1, unknown, 10.0.0.2"]), "10.0.0.2");
    }

    #[test]
    fn a_mapped_address_is_ipv4() {
        assert_eq!(client("::ffff:203.0.113.9", &[]), "203.0.113.9");
        assert_eq!(client("::ffff:10.0.0.1", &["::ffff:198.51.100.1"]), "198.51.100.1");
    }

    #[test]
    fn one_ipv6_subscriber_has_one_bucket() {
        let bucket = |ip: &str| Client { ip: ip.parse().unwrap(), forged_header: false }.bucket();
        assert_eq!(bucket("2001:db8:1:2::1"), bucket("2001:db8:1:2:ffff::9"));
        assert_ne!(bucket("2001:db8:1:2::1"), bucket("2001:db8:1:3::1"));
    }
}
