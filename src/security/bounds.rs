//! The limits of an API key. A key must not create or change a key with wider limits than its own.

use super::address_list::AddressList;
use super::scope::Scopes;
use chrono::{DateTime, SecondsFormat, Utc};
use std::fmt::Write;
use std::net::IpAddr;
use std::num::NonZeroU32;

/// The addresses an API key may be used from.
#[derive(Clone, Debug)]
pub enum Addresses {
    /// Every address.
    All,
    /// The addresses on the list.
    List(AddressList),
    /// No address: the stored list cannot be parsed.
    None,
}

impl Addresses {
    /// Parses the stored `text`. A list that cannot be parsed allows no address.
    pub(super) fn from_column(text: Option<&str>) -> Self {
        match text.map(str::parse) {
            None => Self::All,
            Some(Ok(list)) => Self::List(list),
            Some(Err(_)) => Self::None,
        }
    }

    /// Returns whether `ip` is allowed. A list does not allow an unknown address.
    pub(super) fn allow(&self, ip: Option<IpAddr>) -> bool {
        match self {
            Self::All => true,
            Self::List(list) => ip.is_some_and(|ip| list.contains(ip)),
            Self::None => false,
        }
    }

    fn are_within(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::All) | (Self::None, _) => true,
            (Self::List(list), Self::List(other)) => list.is_within(other),
            (Self::All, _) | (Self::List(_), Self::None) => false,
        }
    }
}

/// The scopes, addresses, expiry and rate limit of an API key.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Granted scopes.
    pub scopes: Scopes,
    /// Allowed client addresses.
    pub addresses: Addresses,
    /// Expiry; `None` means that the key does not expire.
    pub ends_at: Option<DateTime<Utc>>,
    /// Requests per minute; `None` means the configured default. The operator may change the
    /// default, so `None` counts as more than any number.
    pub rate_limit: Option<NonZeroU32>,
}

impl Bounds {
    /// Builds the limits from stored columns. A value that cannot be parsed allows nothing.
    pub fn from_columns(
        scopes: &str,
        allowed_ips: Option<&str>,
        ends_at: Option<DateTime<Utc>>,
        rate_limit: Option<i64>,
    ) -> Self {
        let scopes = scopes.parse().unwrap_or(Scopes::NONE);
        let addresses = Addresses::from_column(allowed_ips);
        Self { scopes, addresses, ends_at, rate_limit: rate_limit_of_column(rate_limit) }
    }

    /// Returns one sentence for each field that exceeds `limit`: the name of the field in requests
    /// and the permitted value. Empty if no field exceeds it.
    pub fn excess_over(&self, limit: &Self) -> Vec<String> {
        let mut excess = vec![];
        if !limit.scopes.include(self.scopes) {
            excess.push(format!("`scopes` must be within {}", limit.scopes));
        }
        if !self.addresses.are_within(&limit.addresses) {
            let mut sentence = "`allowed_ips` must be within ".to_owned();
            let _ = match &limit.addresses {
                Addresses::List(list) => write!(sentence, "{list}"),
                Addresses::All | Addresses::None => write!(sentence, "a valid list"),
            };
            excess.push(sentence);
        }
        if let Some(end) = limit.ends_at
            && self.ends_at.is_none_or(|own| own > end)
        {
            let end = end.to_rfc3339_opts(SecondsFormat::AutoSi, true);
            excess.push(format!("`expires_at` must not be after {end}"));
        }
        if let Some(most) = limit.rate_limit
            && self.rate_limit.is_none_or(|own| own > most)
        {
            excess.push(format!("`rate_limit_per_minute` must be at most {most}"));
        }
        excess
    }
}

/// Converts a stored rate limit. A value above `u32::MAX` becomes `u32::MAX`.
pub(super) fn rate_limit_of_column(per_minute: Option<i64>) -> Option<NonZeroU32> {
    per_minute.map(|limit| u32::try_from(limit).unwrap_or(u32::MAX)).and_then(NonZeroU32::new)
}
