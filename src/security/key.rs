//! A key as far as using it goes: what it may do, from where, until when.

use super::bounds::rate_limit_of_column;
use super::{Addresses, Bounds, Scopes};
use chrono::{DateTime, Utc};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

/// A key that was found by its secret. Whether it is good depends on when and from where it is
/// used: see [`Key::check`].
#[derive(Debug)]
pub struct Key {
    /// Its id.
    pub id: i64,
    /// What people call it.
    pub name: Arc<str>,
    /// Requests a minute; `None` is the default.
    pub rate_limit: Option<NonZeroU32>,
    /// Until when it works beside the key that took its place.
    pub grace_expires_at: Option<DateTime<Utc>>,
    is_active: bool,
    /// `None` where they cannot be read.
    scopes: Option<Scopes>,
    addresses: Addresses,
    /// What its holder is told.
    pub told: Told,
}

/// What its holder is told of a key, as the database has it.
#[derive(Debug)]
pub struct Told {
    /// What it is for.
    pub description: Option<String>,
    /// What it may do.
    pub scopes: String,
    /// The addresses it may be used from.
    pub allowed_ips: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends.
    pub expires_at: Option<DateTime<Utc>>,
    /// Who made it.
    pub created_by_user_id: Option<i64>,
    /// The key whose place it took.
    pub rotated_from_id: Option<i64>,
    /// The key that took its place.
    pub rotated_to_id: Option<i64>,
}

/// Why a key is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// Its time is over.
    Expired,
    /// It is switched off.
    Inactive,
    /// What it may do cannot be read.
    Unreadable,
    /// It may not be used from there.
    Address,
}

impl Key {
    /// Whether it is good at `now` from `ip`. A key with a list of addresses is not good from an
    /// unknown one.
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

    /// When it ends: the earlier of its own end and that of its overlap with another.
    pub fn ends_at(&self) -> Option<DateTime<Utc>> {
        [self.told.expires_at, self.grace_expires_at].into_iter().flatten().min()
    }

    /// Whether it is switched on.
    pub fn is_active(&self) -> bool {
        self.is_active
    }

    /// What it may do.
    pub fn scopes(&self) -> Scopes {
        self.scopes.unwrap_or(Scopes::NONE)
    }

    /// What bounds it.
    pub fn bounds(&self) -> Bounds {
        Bounds {
            scopes: self.scopes(),
            addresses: self.addresses.clone(),
            ends_at: self.ends_at(),
            rate_limit: self.rate_limit,
        }
    }
}

/// The columns of [`KeyRow`], in every statement that gives one.
macro_rules! columns {
    () => {
        "id, name, description, scopes, is_active, created_at, expires_at, grace_expires_at, \
         allowed_ips, rate_limit_per_minute, created_by_user_id, rotated_from_id, rotated_to_id"
    };
}
pub(super) use columns;

/// A key as the database has it.
#[derive(sqlx::FromRow)]
pub(super) struct KeyRow {
    id: i64,
    name: String,
    description: Option<String>,
    scopes: String,
    is_active: bool,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    grace_expires_at: Option<DateTime<Utc>>,
    allowed_ips: Option<String>,
    rate_limit_per_minute: Option<i64>,
    created_by_user_id: Option<i64>,
    rotated_from_id: Option<i64>,
    rotated_to_id: Option<i64>,
}

impl From<KeyRow> for Key {
    /// What cannot be read denies: a broken list must not become "every address".
    fn from(row: KeyRow) -> Self {
        let unreadable = |column| {
            tracing::error!(event = "key.unreadable", key_id = row.id, column, "it denies");
        };
        let scopes = row.scopes.parse().inspect_err(|_| unreadable("scopes")).ok();
        let addresses = Addresses::of_column(row.allowed_ips.as_deref());
        if matches!(addresses, Addresses::None) {
            unreadable("allowed_ips");
        }
        Self {
            id: row.id,
            name: row.name.into(),
            rate_limit: rate_limit_of_column(row.rate_limit_per_minute),
            grace_expires_at: row.grace_expires_at,
            is_active: row.is_active,
            scopes,
            addresses,
            told: Told {
                description: row.description,
                scopes: row.scopes,
                allowed_ips: row.allowed_ips,
                created_at: row.created_at,
                expires_at: row.expires_at,
                created_by_user_id: row.created_by_user_id,
                rotated_from_id: row.rotated_from_id,
                rotated_to_id: row.rotated_to_id,
            },
        }
    }
}
