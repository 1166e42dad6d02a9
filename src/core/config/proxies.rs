//! The proxies whose `X-Forwarded-For` header the server trusts.

use super::reader::Reader;
use crate::core::network;
use ipnet::IpNet;

/// Prefix lengths of the largest private networks, 10.0.0.0/8 and fc00::/7.
const PRIVATE_PREFIXES: (u8, u8) = (8, 7);

/// Returns whether `network` is larger than any private network, and so contains public addresses.
pub(super) fn is_public(network: &IpNet) -> bool {
    match network {
        IpNet::V4(network) => network.prefix_len() < PRIVATE_PREFIXES.0,
        IpNet::V6(network) => network.prefix_len() < PRIVATE_PREFIXES.1,
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
