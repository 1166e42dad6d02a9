//! An API key as authentication and authorization need it: scopes, addresses and expiry.

use super::bounds::{Addresses, Bounds, rate_limit_of_column};
use super::scope::Scopes;
use crate::core::clock::Timestamp;
use chrono::{DateTime, Utc};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

/// An API key that was found by its secret. It is not necessarily valid: [`Key::check`] decides
/// that for a time and an address.
#[derive(Debug)]
pub struct Key {
    /// Primary key.
    pub id: i64,
    /// Display name.
    pub name: Arc<str>,
    /// Requests per minute; `None` means the configured default.
    pub rate_limit: Option<NonZeroU32>,
    /// End of the grace period after a rotation.
    pub grace_expires_at: Option<DateTime<Utc>>,
    is_active: bool,
    /// `None` if the stored value cannot be parsed.
    scopes: Option<Scopes>,
    addresses: Addresses,
    /// The stored properties that responses show.
    pub details: KeyDetails,
}

/// The properties of an API key that responses show, as stored.
#[derive(Debug)]
pub struct KeyDetails {
    /// Free text that describes the purpose.
    pub description: Option<String>,
    /// The scopes, separated by commas.
    pub scopes: String,
    /// The [`AddressList`](super::AddressList) of the key; `None` allows every address.
    pub allowed_ips: Option<String>,
    /// Time of creation.
    pub created_at: DateTime<Utc>,
    /// Expiry; `None` means that the key does not expire.
    pub expires_at: Option<DateTime<Utc>>,
    /// The user who created the key.
    pub created_by_user_id: Option<i64>,
    /// The key that this one replaced in a rotation.
    pub rotated_from_id: Option<i64>,
    /// The key that replaced this one in a rotation.
    pub rotated_to_id: Option<i64>,
}

/// Why an API key is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The key, or its grace period, has expired.
    Expired,
    /// The key is inactive.
    Inactive,
    /// The stored scopes cannot be parsed.
    Unreadable,
    /// The client's address is not on the key's list.
    Address,
}

impl Key {
    /// Checks whether the key is valid at `now` from `ip`. A key with an address list is not valid
    /// from an unknown address.
    pub fn check(&self, now: DateTime<Utc>, ip: Option<IpAddr>) -> Result<(), Denial> {
        if self.ends_at().is_some_and(|end| end <= now) {
            return Err(Denial::Expired);
        }
        if !self.is_active {
            return Err(Denial::Inactive);
        }
        if self.scopes.is_none() {
            return Err(Denial::Unreadable);
        }
        if self.addresses.allow(ip) { Ok(()) } else { Err(Denial::Address) }
    }

    /// The effective expiry: the earlier of `expires_at` and the end of the grace period.
    pub fn ends_at(&self) -> Option<DateTime<Utc>> {
        [self.details.expires_at, self.grace_expires_at].into_iter().flatten().min()
    }

    /// Returns whether the key is active.
    pub fn is_active(&self) -> bool {
        self.is_active
    }

    /// The scopes of the key; none if the stored value cannot be parsed.
    pub fn scopes(&self) -> Scopes {
        self.scopes.unwrap_or(Scopes::NONE)
    }

    /// The limits of the key, for a comparison with another key.
    pub fn bounds(&self) -> Bounds {
        Bounds {
            scopes: self.scopes(),
            addresses: self.addresses.clone(),
            ends_at: self.ends_at(),
            rate_limit: self.rate_limit,
        }
    }
}

/// A row of `api_keys`.
#[derive(sqlx::FromRow)]
pub(super) struct KeyRow {
    id: i64,
    name: String,
    description: Option<String>,
    scopes: String,
    is_active: bool,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    grace_expires_at: Option<Timestamp>,
    allowed_ips: Option<String>,
    rate_limit_per_minute: Option<i64>,
    created_by_user_id: Option<i64>,
    rotated_from_id: Option<i64>,
    rotated_to_id: Option<i64>,
}

impl From<KeyRow> for Key {
    /// A value that cannot be parsed denies access: an invalid address list must not allow every
    /// address.
    fn from(row: KeyRow) -> Self {
        let unreadable = |column| {
            tracing::error!(
                event = "key.invalid_value",
                key_id = row.id,
                column,
                "stored value is invalid; key denied"
            );
        };
        let scopes = row.scopes.parse().inspect_err(|_| unreadable("scopes")).ok();
        let addresses = Addresses::from_column(row.allowed_ips.as_deref());
        if matches!(addresses, Addresses::None) {
            unreadable("allowed_ips");
        }
        Self {
            id: row.id,
            name: row.name.into(),
            rate_limit: rate_limit_of_column(row.rate_limit_per_minute),
            grace_expires_at: row.grace_expires_at.map(DateTime::from),
            is_active: row.is_active,
            scopes,
            addresses,
            details: KeyDetails {
                description: row.description,
                scopes: row.scopes,
                allowed_ips: row.allowed_ips,
                created_at: row.created_at.into(),
                expires_at: row.expires_at.map(DateTime::from),
                created_by_user_id: row.created_by_user_id,
                rotated_from_id: row.rotated_from_id,
                rotated_to_id: row.rotated_to_id,
            },
        }
    }
}
