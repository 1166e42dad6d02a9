//! What bounds a key. Two keys are compared by it: no key may make one stronger than itself.

use super::{AddressList, Scopes};
use chrono::{DateTime, SecondsFormat, Utc};
use std::fmt::Write;
use std::net::IpAddr;
use std::num::NonZeroU32;

/// Where a key may be used from.
#[derive(Clone, Debug)]
pub enum Addresses {
    /// Everywhere.
    All,
    /// From these addresses.
    Listed(AddressList),
    /// Nowhere: the stored list cannot be read.
    None,
}

impl Addresses {
    /// Of the stored `text`; one that cannot be read allows no address.
    pub(super) fn of_column(text: Option<&str>) -> Self {
        match text.map(str::parse) {
            None => Self::All,
            Some(Ok(list)) => Self::Listed(list),
            Some(Err(_)) => Self::None,
        }
    }

    /// Whether they allow `ip`. A list does not allow an unknown address.
    pub(super) fn allow(&self, ip: Option<IpAddr>) -> bool {
        match self {
            Self::All => true,
            Self::Listed(list) => ip.is_some_and(|ip| list.contains(ip)),
            Self::None => false,
        }
    }

    fn are_within(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::All) | (Self::None, _) => true,
            (Self::Listed(list), Self::Listed(other)) => list.is_within(other),
            (Self::All, _) | (Self::Listed(_), Self::None) => false,
        }
    }
}

/// What a key may do, from where, until when and how often.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// What it may do.
    pub scopes: Scopes,
    /// From where.
    pub addresses: Addresses,
    /// Until when; `None` has no end.
    pub ends_at: Option<DateTime<Utc>>,
    /// Requests a minute; `None` has no bound of its own: the operator's default holds, which may
    /// be changed, and so counts as more than any number.
    pub rate_limit: Option<NonZeroU32>,
}

impl Bounds {
    /// Of a key as the database has it. What cannot be read allows nothing.
    pub fn of_columns(
        scopes: &str,
        allowed_ips: Option<&str>,
        ends_at: Option<DateTime<Utc>>,
        rate_limit: Option<i64>,
    ) -> Self {
        let scopes = scopes.parse().unwrap_or(Scopes::NONE);
        let addresses = Addresses::of_column(allowed_ips);
        Self { scopes, addresses, ends_at, rate_limit: rate_limit_of_column(rate_limit) }
    }

    /// In what these exceed `limit`: for each field, by the name it has in requests, what it must
    /// be. Empty where they exceed it in nothing.
    pub fn excess_over(&self, limit: &Self) -> Vec<String> {
        let mut excess = vec![];
        if !limit.scopes.include(self.scopes) {
            excess.push(format!("`scopes` must be within {}", limit.scopes));
        }
        if !self.addresses.are_within(&limit.addresses) {
            let mut sentence = "`allowed_ips` must be within ".to_owned();
            let _ = match &limit.addresses {
                Addresses::Listed(list) => write!(sentence, "{list}"),
                Addresses::All | Addresses::None => write!(sentence, "a list that can be read"),
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

/// A stored limit. One that is too large is the largest there is.
pub(super) fn rate_limit_of_column(per_minute: Option<i64>) -> Option<NonZeroU32> {
    per_minute.map(|limit| u32::try_from(limit).unwrap_or(u32::MAX)).and_then(NonZeroU32::new)
}
