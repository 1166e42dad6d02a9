//! The proxies whose `X-Forwarded-For` header the server trusts.

use super::Config;
use super::reader::Reader;
use crate::core::network;
use ipnet::IpNet;

/// Prefix lengths of the largest private networks, 10.0.0.0/8 and fc00::/7. A network with a
/// shorter prefix contains public addresses.
const PRIVATE_PREFIXES: (u8, u8) = (8, 7);

impl Config {
    /// Returns the trusted networks that are larger than any private network. A client with an
    /// address in such a network can forge the address that rate limits, address lists and the
    /// audit log use.
    pub fn public_proxy_networks(&self) -> impl Iterator<Item = &IpNet> {
        self.trusted_proxies.iter().filter(|network| match network {
            IpNet::V4(network) => network.prefix_len() < PRIVATE_PREFIXES.0,
            IpNet::V6(network) => network.prefix_len() < PRIVATE_PREFIXES.1,
        })
    }
}

/// Reads `TRUSTED_PROXIES`.
pub(super) fn trusted_proxies(r: &mut Reader) -> Vec<IpNet> {
    let texts: Vec<String> = r.list("TRUSTED_PROXIES", "a text");
    let mut networks = vec![];
    for text in texts {
        match network::parse(&text) {
            Some(network) => networks.push(network),
            None => r.problem(
                "TRUSTED_PROXIES",
                format_args!(
                    "contains {text:?}; expected an address or a network such as 10.0.0.0/8"
                ),
            ),
        }
    }
    networks
}
