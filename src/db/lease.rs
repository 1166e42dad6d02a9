//! Leases, which let one process at a time run a job.
//!
//! Each process uses its own clock. If two clocks differ by more than the remaining time of a
//! lease, both processes may hold it for a while: the job must tolerate that.
//!
//! A lease that ends later than a new one could is from a clock that was ahead, and does not count:
//! otherwise no process would run the job until that time.

use super::query::query;
use super::transaction::Tx;
use crate::core::datetime::MAX_AHEAD;
use chrono::{DateTime, Utc};
use sqlx::Result;

/// Acquires or renews the lease `name` until `until`. Returns `false` if another holder has it.
pub async fn take(
    tx: &mut Tx,
    name: &str,
    holder: &str,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<bool> {
    const SQL: &str = "INSERT INTO leases (name, holder, expires_at) VALUES ($1, $2, $3) \
         ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at \
         WHERE leases.holder = excluded.holder OR leases.expires_at <= $4 \
         OR leases.expires_at > $5";
    let statement = query(tx, SQL).bind(name).bind(holder).bind(until).bind(now);
    Ok(statement.bind(until + MAX_AHEAD).execute().await? == 1)
}

/// Releases the lease, so that the next process need not wait for its expiry.
pub async fn release(tx: &mut Tx, name: &str, holder: &str) -> Result<()> {
    const SQL: &str = "DELETE FROM leases WHERE name = $1 AND holder = $2";
    query(tx, SQL).bind(name).bind(holder).execute().await?;
    Ok(())
}
