//! The IP addresses and networks an API key may be used from.

use crate::core::network;
use ipnet::IpNet;
use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;
use std::str::FromStr;

/// Maximum number of entries in a list.
const MAX_ENTRIES: usize = 100;

/// A non-empty list of addresses and networks, written with commas: `192.0.2.1,2001:db8::/32`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressList(Vec<IpNet>);

/// An error in the text of an address list.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressListError {
    /// The entry is neither an address nor a network.
    #[error("'{0}' is not an IP address or network such as 192.0.2.1 or 192.0.2.0/24")]
    Entry(String),
    /// The network's address has bits set beyond the prefix length.
    #[error("'{0}' has bits set beyond its prefix: did you mean {1}?")]
    HostBits(String, IpNet),
    /// The list has no entry.
    #[error("the list is empty: omit it, or set it to null, to allow every address")]
    Empty,
    /// The list has too many entries.
    #[error("the list has more than {MAX_ENTRIES} entries")]
    TooLong,
}

impl AddressList {
    /// Returns whether the list contains `ip`. An IPv4-mapped IPv6 address counts as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|network| network.contains(&ip))
    }

    /// Returns whether `other` contains every address of this list. Several networks of `other` may
    /// together cover one network of this list.
    pub fn is_within(&self, other: &Self) -> bool {
        // After aggregation, a network that the list covers lies in exactly one network of the
        // list.
        let allowed = IpNet::aggregate(&other.0);
        self.0.iter().all(|network| allowed.iter().any(|wider| wider.contains(network)))
    }
}

impl FromStr for AddressList {
    type Err = AddressListError;

    fn from_str(text: &str) -> Result<Self, AddressListError> {
        let mut networks: Vec<IpNet> = vec![];
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            if networks.len() > MAX_ENTRIES {
                return Err(AddressListError::TooLong);
            }
            let network = parse_entry(entry)?;
            if !networks.contains(&network) {
                networks.push(network);
            }
        }
        match networks.len() {
            0 => Err(AddressListError::Empty),
            1..=MAX_ENTRIES => Ok(Self(networks)),
            _ => Err(AddressListError::TooLong),
        }
    }
}

fn parse_entry(entry: &str) -> Result<IpNet, AddressListError> {
    let network = network::parse(entry).ok_or_else(|| AddressListError::Entry(entry.to_owned()))?;
    if network.trunc() != network {
        return Err(AddressListError::HostBits(entry.to_owned(), network.trunc()));
    }
    Ok(network)
}

impl Display for AddressList {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, network) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if network.prefix_len() == network.max_prefix_len() {
                write!(f, "{comma}{}", network.addr())?;
            } else {
                write!(f, "{comma}{network}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Result<String, AddressListError> {
        text.parse::<AddressList>().map(|list| list.to_string())
    }

    #[test]
    fn a_list_has_one_canonical_form() {
        assert_eq!(
            list(" 192.0.2.1 , 2001:DB8::/32,192.0.2.1").unwrap(),
            "192.0.2.1,2001:db8::/32"
        );
        assert_eq!(list("::ffff:192.0.2.1, 10.0.0.0/8").unwrap(), "192.0.2.1,10.0.0.0/8");
    }

    #[test]
    fn an_invalid_list_is_refused_with_the_reason() {
        assert_eq!(list("10.0.0.256"), Err(AddressListError::Entry("10.0.0.256".into())));
        assert!(list("10.0.0.1/8").unwrap_err().to_string().ends_with("did you mean 10.0.0.0/8?"));
        assert_eq!(list(" ,"), Err(AddressListError::Empty));
        let many: Vec<_> = (0..101).map(|n| format!("10.0.0.{n}")).collect();
        assert_eq!(list(&many.join(",")), Err(AddressListError::TooLong));
    }

    #[test]
    fn a_list_contains_its_addresses_and_those_of_its_networks() {
        let list: AddressList = "192.0.2.1,2001:db8::/32,::ffff:198.51.100.0/120".parse().unwrap();
        for (ip, on) in [
            ("192.0.2.1", true),
            ("::ffff:192.0.2.1", true),
            ("192.0.2.2", false),
            ("198.51.100.7", true),
            ("2001:db8:ffff::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(list.contains(ip.parse().unwrap()), on, "{ip}");
        }
    }

    #[test]
    fn a_list_is_within_another_exactly_if_each_of_its_addresses_is() {
        use rand::{RngExt, SeedableRng, rngs::StdRng};
        let mut random = StdRng::seed_from_u64(4);
        // Networks within the last 16 addresses of IPv4 or of IPv6.
        let mut network = |is_v4: bool| {
            let length = random.random_range(0..=4);
            let end = 0xf0 | (random.random_range(0..16u8) & (0x0f << (4 - length)));
            if is_v4 {
                format!("255.255.255.{end}/{}", 28 + length)
            } else {
                format!("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff{end:02x}/{}", 124 + length)
            }
        };
        let mut list = |n: usize| -> AddressList {
            let entries: Vec<_> = (0..n).map(|n| network(n % 2 == 0)).collect();
            entries.join(",").parse().unwrap()
        };
        let ends = || 0xf0..=0xffu8;
        let addresses: Vec<IpAddr> = ends()
            .map(|end| IpAddr::from([255, 255, 255, end]))
            .chain(ends().map(|end| {
                let mut bytes = [255; 16];
                bytes[15] = end;
                IpAddr::from(bytes)
            }))
            .collect();
        let mut within = 0;
        for round in 0..4000 {
            let (one, other) = (list(1 + round % 3), list(1 + round % 7));
            let mut on_one = addresses.iter().filter(|ip| one.contains(**ip));
            let expected = on_one.all(|ip| other.contains(*ip));
            assert_eq!(one.is_within(&other), expected, "{one} within {other}");
            within += usize::from(expected);
        }
        assert!((400..3600).contains(&within), "{within} of 4000 are within");
    }

    #[test]
    fn a_mapped_network_is_within_its_ipv4_form_and_not_within_an_ipv6_network() {
        let within = |one: &str, other: &str| {
            one.parse::<AddressList>().unwrap().is_within(&other.parse().unwrap())
        };
        assert!(within("::ffff:10.1.0.0/112", "10.0.0.0/8"));
        assert!(within("10.1.2.3", "::ffff:10.0.0.0/104"));
        assert!(!within("10.1.2.3", "::/0") && !within("::1", "0.0.0.0/0"));
        assert!(within("0.0.0.0/0", "0.0.0.0/1,128.0.0.0/1") && !within("::/0", "::/1,8000::/2"));
    }
}
