//! The proxies whose `X-Forwarded-For` is believed.

use super::Config;
use super::reader::Reader;
use crate::core::network;
use ipnet::IpNet;

/// Networks with shorter prefixes hold public addresses: the largest private ones are 10.0.0.0/8 and
/// fc00::/7.
const SHORTEST_PREFIXES: (u8, u8) = (8, 7);

impl Config {
    /// Trusted networks that are larger than any private one: whoever has an address in one chooses
    /// the address that limits, address lists and the audit log see.
    pub fn wide_proxies(&self) -> impl Iterator<Item = &IpNet> {
        self.trusted_proxies.iter().filter(|network| match network {
            IpNet::V4(network) => network.prefix_len() < SHORTEST_PREFIXES.0,
            IpNet::V6(network) => network.prefix_len() < SHORTEST_PREFIXES.1,
        })
    }
}

/// `TRUSTED_PROXIES`.
pub(super) fn trusted_proxies(r: &mut Reader) -> Vec<IpNet> {
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
