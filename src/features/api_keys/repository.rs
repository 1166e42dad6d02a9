//! SQL for API keys, and nothing else.

use super::model::{ApiKey, ApiKeyChanges, AuditFilter, KeyFilter, NewApiKey, UsageCounts};
use crate::audit::{self, Row};
use crate::core::clock::Timestamp;
use crate::core::text::folded;
use crate::db::{On, Tx, query};
use crate::http::Slice;
use crate::security::secret::Hash;
use chrono::{DateTime, Utc};
use sqlx::Result;

/// The columns of [`ApiKey`], in every statement that gives one.
macro_rules! columns {
    () => {
        "id, name, description, scopes, is_active, created_at, expires_at, last_used_at, \
         last_used_ip, allowed_ips, created_by_user_id, rate_limit_per_minute, rotated_from_id, \
         rotated_to_id, grace_expires_at, rotated_at"
    };
}

/// A key as it is stored: its secret's hash and beginning.
pub struct Stored<'s> {
    pub hash: Hash,
    pub prefix: &'s str,
}

/// Makes everybody else who may take away an administrator wait until `tx` ends: under READ
/// COMMITTED two of them could otherwise take away each other.
pub async fn lock_installation(tx: &mut Tx) -> Result<()> {
    const SQL: &str =
        "UPDATE installation SET version = version + 1 WHERE id = 1 RETURNING version";
    let (_version,): (i64,) = query(tx, SQL).one().await?;
    Ok(())
}

/// Whether there is any key at all.
pub async fn any_exists(on: impl Into<On<'_>>) -> Result<bool> {
    const SQL: &str = "SELECT id FROM api_keys LIMIT 1";
    Ok(query(on, SQL).optional::<(i64,)>().await?.is_some())
}

/// Keys that will always be able to manage keys: active, `admin`, without an end.
pub async fn usable_admins(on: impl Into<On<'_>>) -> Result<i64> {
    // Scopes are stored in their order, in which `admin` comes first. An index has the same words.
    const SQL: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys \
         WHERE is_active = TRUE AND expires_at IS NULL AND grace_expires_at IS NULL \
         AND (scopes = 'admin' OR scopes LIKE 'admin,%')";
    let (count,): (i64,) = query(on, SQL).one().await?;
    Ok(count)
}

pub async fn insert(
    tx: &mut Tx,
    secret: Stored<'_>,
    new: &NewApiKey,
    rotated_from: Option<&ApiKey>,
    now: DateTime<Utc>,
) -> Result<ApiKey> {
    const SQL: &str = concat!(
        "INSERT INTO api_keys (key_hash, key_prefix, name, name_key, description, scopes, \
         is_active, created_at, expires_at, allowed_ips, rate_limit_per_minute, \
         created_by_user_id, rotated_from_id) \
         VALUES ($1, $2, $3, $4, $5, $6, TRUE, $7, $8, $9, $10, $11, $12) RETURNING ",
        columns!()
    );
    query(tx, SQL)
        .bind(secret.hash.to_vec())
        .bind(secret.prefix)
        .bind(&*new.name)
        .bind(folded(&new.name))
        .bind(new.description.as_deref())
        .bind(new.scopes.to_string())
        .bind(now)
        .bind(new.expires_at)
        .bind(new.allowed_ips.as_ref().map(ToString::to_string))
        .bind(new.rate_limit.map(|n| i64::from(n.get())))
        .bind(rotated_from.and_then(|key| key.created_by_user_id))
        .bind(rotated_from.map(|key| key.id))
        .one()
        .await
}

pub async fn find(on: impl Into<On<'_>>, id: i64) -> Result<Option<ApiKey>> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM api_keys WHERE id = $1");
    query(on, SQL).bind(id).optional().await
}

pub async fn find_by_hash(on: impl Into<On<'_>>, hash: Hash) -> Result<Option<ApiKey>> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM api_keys WHERE key_hash = $1");
    query(on, SQL).bind(hash.to_vec()).optional().await
}

/// By id. `unused_since` leaves out keys that were used or made from then on.
pub async fn list(
    on: impl Into<On<'_>>,
    filter: &KeyFilter,
    unused_since: Option<DateTime<Utc>>,
    slice: &Slice<i64>,
) -> Result<Vec<ApiKey>> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM api_keys WHERE TRUE");
    let mut statement = query(on, SQL);
    if !filter.include_inactive {
        statement = statement.push(" AND is_active = TRUE");
    }
    if let Some(since) = unused_since {
        statement = statement.push(" AND COALESCE(last_used_at, created_at) < ").push_bind(since);
    }
    if let Some(text) = &filter.q {
        statement = statement.push(" AND name_key LIKE ").push_bind(containing(text));
        statement = statement.push(" ESCAPE '!'");
    }
    slice.cut(statement, &["id"]).all().await
}

/// The pattern of texts with `text` in them.
fn containing(text: &str) -> String {
    let mut pattern = "%".to_owned();
    for character in folded(text).chars() {
        if matches!(character, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(character);
    }
    pattern + "%"
}

/// Active keys whose end is after `from` and not after `to`, the soonest first; but none that
/// another took the place of.
pub async fn expiring(
    on: impl Into<On<'_>>,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    slice: &Slice<(DateTime<Utc>, i64)>,
) -> Result<Vec<ApiKey>> {
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM api_keys WHERE is_active = TRUE AND rotated_at IS NULL \
         AND expires_at > $1 AND expires_at <= $2"
    );
    slice.cut(query(on, SQL).bind(from).bind(to), &["expires_at", "id"]).all().await
}

/// Writes what `changes` changes. `None` when there is no such key.
pub async fn update(tx: &mut Tx, id: i64, changes: &ApiKeyChanges) -> Result<Option<ApiKey>> {
    let mut statement = query(tx, "UPDATE api_keys SET id = id");
    if let Some(name) = &changes.name {
        statement = statement.push(", name = ").push_bind(&**name);
        statement = statement.push(", name_key = ").push_bind(folded(name));
    }
    if let Some(description) = &changes.description {
        statement = statement.push(", description = ").push_bind(description.as_deref());
    }
    if let Some(scopes) = changes.scopes {
        statement = statement.push(", scopes = ").push_bind(scopes.to_string());
    }
    if let Some(is_active) = changes.is_active {
        statement = statement.push(", is_active = ").push_bind(is_active);
    }
    if let Some(expires_at) = changes.expires_at {
        statement = statement.push(", expires_at = ").push_bind(expires_at);
    }
    if let Some(list) = &changes.allowed_ips {
        let text = list.as_ref().map(ToString::to_string);
        statement = statement.push(", allowed_ips = ").push_bind(text);
    }
    if let Some(limit) = changes.rate_limit {
        let per_minute = limit.map(|n| i64::from(n.get()));
        statement = statement.push(", rate_limit_per_minute = ").push_bind(per_minute);
    }
    let returning = concat!(" RETURNING ", columns!());
    statement.push(" WHERE id = ").push_bind(id).push(returning).optional().await
}

/// Switches key `id` off.
pub async fn switch_off(tx: &mut Tx, id: i64) -> Result<Option<ApiKey>> {
    const SQL: &str =
        concat!("UPDATE api_keys SET is_active = FALSE WHERE id = $1 RETURNING ", columns!());
    query(tx, SQL).bind(id).optional().await
}

/// Puts key `successor` in the place of key `id`, which goes on until `grace_end`, or else no more.
pub async fn replace(
    tx: &mut Tx,
    id: i64,
    successor: i64,
    now: DateTime<Utc>,
    grace_end: Option<DateTime<Utc>>,
) -> Result<Option<ApiKey>> {
    const SQL: &str = concat!(
        "UPDATE api_keys SET is_active = $2, rotated_at = $3, grace_expires_at = $4, \
         rotated_to_id = $5 WHERE id = $1 RETURNING ",
        columns!()
    );
    let statement = query(tx, SQL).bind(id).bind(grace_end.is_some()).bind(now);
    statement.bind(grace_end).bind(successor).optional().await
}

/// The ids of at most `limit` active keys whose end has come, in the order in which rows of keys are locked.
pub async fn expired(on: impl Into<On<'_>>, now: DateTime<Utc>, limit: i64) -> Result<Vec<i64>> {
    const SQL: &str = "SELECT id FROM api_keys WHERE is_active = TRUE \
        AND (expires_at <= $1 OR grace_expires_at <= $1) ORDER BY id LIMIT $2";
    let ids: Vec<(i64,)> = query(on, SQL).bind(now).bind(limit).all().await?;
    Ok(ids.into_iter().map(|(id,)| id).collect())
}

/// Locks the rows of `key` and of those that name it, which change when it is deleted, by their
/// ids. Uses are written in that order, too: in another one each could wait for the other.
pub async fn lock_with_neighbours(tx: &mut Tx, key: &ApiKey) -> Result<()> {
    const SQL: &str = "UPDATE api_keys SET last_used_at = last_used_at WHERE id = $1";
    // One that a key took the place of is older.
    for id in [key.rotated_from_id, Some(key.id), key.rotated_to_id].into_iter().flatten() {
        query(&mut *tx, SQL).bind(id).execute().await?;
    }
    Ok(())
}

/// Whether there was such a key.
pub async fn delete(tx: &mut Tx, id: i64) -> Result<bool> {
    const SQL: &str = "DELETE FROM api_keys WHERE id = $1";
    Ok(query(tx, SQL).bind(id).execute().await? == 1)
}

/// By their places in the chain.
pub async fn audit_logs(
    on: impl Into<On<'_>>,
    filter: &AuditFilter,
    slice: &Slice<i64>,
) -> Result<Vec<Row>> {
    const SQL: &str = concat!("SELECT ", audit::columns!(), " FROM api_key_audit_logs WHERE TRUE");
    let mut statement = query(on, SQL);
    if let Some(id) = filter.api_key_id {
        statement = statement.push(" AND api_key_id = ").push_bind(id);
    }
    if let Some(action) = filter.action {
        statement = statement.push(" AND action = ").push_bind(action);
    }
    if let Some(since) = filter.since {
        statement = statement.push(" AND timestamp >= ").push_bind(since);
    }
    if let Some(until) = filter.until {
        statement = statement.push(" AND timestamp < ").push_bind(until);
    }
    slice.cut(statement, &["seq"]).all().await
}

/// An hour in which a key was used.
#[derive(sqlx::FromRow)]
pub struct UsageHour {
    pub hour: Timestamp,
    #[sqlx(flatten)]
    pub counts: UsageCounts,
}

/// The hours from `since` and before `until` in which key `id` was used, the earliest first.
pub async fn usage(
    on: impl Into<On<'_>>,
    id: i64,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<Vec<UsageHour>> {
    const SQL: &str = "SELECT hour, ok, denied_scope, denied_address, rate_limited, expired \
        FROM api_key_usage WHERE api_key_id = $1 AND hour >= $2 AND hour < $3 ORDER BY hour";
    query(on, SQL).bind(id).bind(since).bind(until).all().await
}

/// Forgets what keys were used for before `end`.
pub async fn forget_usage(tx: &mut Tx, end: DateTime<Utc>) -> Result<u64> {
    const SQL: &str = "DELETE FROM api_key_usage WHERE hour < $1";
    query(tx, SQL).bind(end).execute().await
}
