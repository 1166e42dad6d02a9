//! Lets one process at a time do something.
//!
//! Each process goes by its own clock. If two differ by more than a lease has left, both may be at
//! it for a while: what is done so must bear that.

use super::{Tx, query};
use chrono::{DateTime, Utc};
use sqlx::Result;

/// Takes the lease called `name`, or renews it. `false` when somebody else has it.
pub async fn take(
    tx: &mut Tx,
    name: &str,
    holder: &str,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<bool> {
    const SQL: &str = "INSERT INTO leases (name, holder, expires_at) VALUES ($1, $2, $3) \
         ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at \
         WHERE leases.holder = excluded.holder OR leases.expires_at <= $4";
    Ok(query(tx, SQL).bind(name).bind(holder).bind(until).bind(now).execute().await? == 1)
}

/// Gives it back, so that the next process need not wait until it has run out.
pub async fn release(tx: &mut Tx, name: &str, holder: &str) -> Result<()> {
    const SQL: &str = "DELETE FROM leases WHERE name = $1 AND holder = $2";
    query(tx, SQL).bind(name).bind(holder).execute().await?;
    Ok(())
}
