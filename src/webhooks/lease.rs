//! Lets one process at a time deliver.
//!
//! Each process goes by its own clock. If two differ by more than the lease has left, both may
//! deliver for a while, and a message may arrive twice: receivers have to expect that anyway.

use crate::db::{Tx, query};
use chrono::{DateTime, Utc};
use sqlx::Result;

const NAME: &str = "webhooks";

/// Takes the lease, or renews it. `false` when somebody else has it.
pub async fn take(
    tx: &mut Tx,
    holder: &str,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<bool> {
    const SQL: &str = "INSERT INTO leases (name, holder, expires_at) VALUES ($1, $2, $3) \
         ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at \
         WHERE leases.holder = excluded.holder OR leases.expires_at <= $4";
    Ok(query(tx, SQL).bind(NAME).bind(holder).bind(until).bind(now).execute().await? == 1)
}

/// Gives it back, so that the next process need not wait until it has run out.
pub async fn release(tx: &mut Tx, holder: &str) -> Result<()> {
    const SQL: &str = "DELETE FROM leases WHERE name = $1 AND holder = $2";
    query(tx, SQL).bind(NAME).bind(holder).execute().await?;
    Ok(())
}
