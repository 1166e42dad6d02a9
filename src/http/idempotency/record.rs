//! The record that makes a request idempotent.

use super::key::{IdempotencyKey, invalid};
use super::repository;
use crate::core::error::Result;
use crate::db::Tx;
use chrono::{DateTime, TimeDelta, Utc};

/// How long a record is valid. One from a clock that was ahead is valid for longer: if it expired
/// immediately, setting a clock back would make a retry repeat its request.
const VALIDITY: TimeDelta = TimeDelta::hours(24);

impl IdempotencyKey {
    /// The record of this key for `credential`. Other credentials may use the same key.
    pub fn of(self, credential: String) -> IdempotencyRecord {
        IdempotencyRecord { key: self, credential }
    }
}

/// The record that makes a request idempotent, for one credential.
#[derive(Clone, Debug)]
pub struct IdempotencyRecord {
    key: IdempotencyKey,
    credential: String,
}

/// The result of an earlier execution: `count` resources, of which `id` is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Id of the first resource.
    pub id: i64,
    /// Number of resources.
    pub count: i64,
}

impl IdempotencyRecord {
    /// Inserts the record, or returns the result of the earlier execution if there is one. After an
    /// insert (`None`), the caller creates the resource and calls [`Self::store_result`] in the same
    /// transaction; concurrent retries wait for its end. Fails with 422 when the key was used for
    /// another request.
    pub async fn claim(&self, tx: &mut Tx, now: DateTime<Utc>) -> Result<Option<Replay>> {
        let (credential, key) = (&*self.credential, &self.key);
        if repository::insert(tx, credential, key, now, now - VALIDITY).await? {
            return Ok(None);
        }
        let found = repository::find(tx, credential, key).await?;
        if found.request_hash == key.request_hash {
            return Ok(Some(Replay { id: found.resource_id, count: found.resource_count }));
        }
        let message = "Value error, this key was already used for a request with a different body";
        Err(invalid(message, ""))
    }

    /// Stores that this request created `count` resources, of which `id` is the first.
    pub async fn store_result(&self, tx: &mut Tx, id: i64, count: i64) -> sqlx::Result<()> {
        repository::store_result(tx, &self.credential, &self.key, id, count).await
    }
}

/// Deletes expired records. Returns how many.
pub async fn forget_old_idempotency_keys(tx: &mut Tx, now: DateTime<Utc>) -> sqlx::Result<u64> {
    repository::delete_created_until(tx, now - VALIDITY).await
}
