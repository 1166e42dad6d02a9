//! SQL statements for API keys.

use super::model::{ApiKey, ApiKeyChanges, ApiKeyFilter, AuditFilter, NewApiKey, UsageCounts};
use crate::audit::{self, Row};
use crate::core::clock::Timestamp;
use crate::core::text::folded;
use crate::db::{Executor, NameKeys, TableChecks, TableRule, TimeColumns, Tx, query};
use crate::http::Slice;
use crate::security::secret::SecretHash;
use chrono::{DateTime, Utc};
use sqlx::Result;

/// The checks of `octopus verify`.
pub const CHECKS: TableChecks = TableChecks {
    id_tables: &["api_keys"],
    rules: &[TableRule {
        name: "API key rotations",
        row_kind: "API key",
        sql: "SELECT k.id FROM api_keys k WHERE EXISTS (SELECT 1 FROM api_keys o \
              WHERE (o.id = k.rotated_to_id AND COALESCE(o.rotated_from_id, 0) <> k.id) \
              OR (o.id = k.rotated_from_id AND COALESCE(o.rotated_to_id, 0) <> k.id)) \
              ORDER BY k.id LIMIT $1",
    }],
    name_keys: &[NameKeys {
        row_kind: "API key",
        sql: "SELECT id, name, name_key, '', '' FROM api_keys WHERE id > $1 ORDER BY id LIMIT $2",
    }],
    times: &[TimeColumns {
        table: "api_keys",
        row_kind: "API key",
        columns: &["created_at", "expires_at", "last_used_at", "grace_expires_at", "rotated_at"],
    }],
    ..TableChecks::NONE
};

/// The columns of [`ApiKey`].
macro_rules! columns {
    () => {
        "id, name, description, scopes, is_active, created_at, expires_at, last_used_at, \
         last_used_ip, allowed_ips, created_by_user_id, rate_limit_per_minute, rotated_from_id, \
         rotated_to_id, grace_expires_at, rotated_at"
    };
}

/// The stored form of a secret: its hash and its prefix.
pub struct StoredSecret<'s> {
    pub hash: SecretHash,
    pub prefix: &'s str,
}

/// Serializes transactions that can remove an admin key, until `tx` ends. Under READ COMMITTED, two
/// such transactions could otherwise remove the last two admin keys.
pub async fn lock_installation(tx: &mut Tx) -> Result<()> {
    const SQL: &str =
        "UPDATE installation SET version = version + 1 WHERE id = 1 RETURNING version";
    let (_version,): (i64,) = query(tx, SQL).one().await?;
    Ok(())
}

/// Returns whether any key exists.
pub async fn any_exists(on: impl Into<Executor<'_>>) -> Result<bool> {
    const SQL: &str = "SELECT id FROM api_keys LIMIT 1";
    Ok(query(on, SQL).optional::<(i64,)>().await?.is_some())
}

/// Number of active `admin` keys without an expiry.
pub async fn count_permanent_admins(on: impl Into<Executor<'_>>) -> Result<i64> {
    // Scopes are stored in canonical order, `admin` first. A partial index has the same condition.
    const SQL: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys \
         WHERE is_active = TRUE AND expires_at IS NULL AND grace_expires_at IS NULL \
         AND (scopes = 'admin' OR scopes LIKE 'admin,%')";
    let (count,): (i64,) = query(on, SQL).one().await?;
    Ok(count)
}

pub async fn insert(
    tx: &mut Tx,
    secret: StoredSecret<'_>,
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

pub async fn find(on: impl Into<Executor<'_>>, id: i64) -> Result<Option<ApiKey>> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM api_keys WHERE id = $1");
    query(on, SQL).bind(id).optional().await
}

pub async fn find_by_hash(on: impl Into<Executor<'_>>, hash: SecretHash) -> Result<Option<ApiKey>> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM api_keys WHERE key_hash = $1");
    query(on, SQL).bind(hash.to_vec()).optional().await
}

/// Lists keys by id. `unused_since` excludes keys used or created at or after that time.
pub async fn list(
    on: impl Into<Executor<'_>>,
    filter: &ApiKeyFilter,
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

/// LIKE pattern for texts that contain `text`; the escape character is `!`.
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

/// Lists active keys that expire after `from` and not after `to`, the earliest first. Excludes
/// rotated keys.
pub async fn expiring(
    on: impl Into<Executor<'_>>,
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

/// Updates a key. Returns `None` if the key does not exist.
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

/// Deactivates key `id`. Returns `None` if the key does not exist.
pub async fn deactivate(tx: &mut Tx, id: i64) -> Result<Option<ApiKey>> {
    const SQL: &str =
        concat!("UPDATE api_keys SET is_active = FALSE WHERE id = $1 RETURNING ", columns!());
    query(tx, SQL).bind(id).optional().await
}

/// Marks key `id` as rotated to `successor`. It stays active until `grace_end`; without one, it is
/// deactivated.
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

/// The ids of at most `limit` expired active keys, in locking order.
pub async fn expired(
    on: impl Into<Executor<'_>>,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<i64>> {
    const SQL: &str = "SELECT id FROM api_keys WHERE is_active = TRUE \
        AND (expires_at <= $1 OR grace_expires_at <= $1) ORDER BY id LIMIT $2";
    let ids: Vec<(i64,)> = query(on, SQL).bind(now).bind(limit).all().await?;
    Ok(ids.into_iter().map(|(id,)| id).collect())
}

/// Locks the rows of `key` and of the keys that refer to it, which change when it is deleted. Rows
/// are locked by id, as when uses are written, to prevent deadlocks.
pub async fn lock_with_related(tx: &mut Tx, key: &ApiKey) -> Result<()> {
    const SQL: &str = "UPDATE api_keys SET last_used_at = last_used_at WHERE id = $1";
    // The replaced key is older, so it has the smaller id.
    for id in [key.rotated_from_id, Some(key.id), key.rotated_to_id].into_iter().flatten() {
        query(&mut *tx, SQL).bind(id).execute().await?;
    }
    Ok(())
}

/// Deletes key `id`. Returns whether the key existed.
pub async fn delete(tx: &mut Tx, id: i64) -> Result<bool> {
    const SQL: &str = "DELETE FROM api_keys WHERE id = $1";
    Ok(query(tx, SQL).bind(id).execute().await? == 1)
}

/// Lists audit entries by position in the chain.
pub async fn audit_logs(
    on: impl Into<Executor<'_>>,
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

/// Usage of a key in one hour.
#[derive(sqlx::FromRow)]
pub struct UsageHour {
    pub hour: Timestamp,
    #[sqlx(flatten)]
    pub counts: UsageCounts,
}

/// Hourly usage of key `id` from `since` until `until` (exclusive), the earliest first.
pub async fn usage(
    on: impl Into<Executor<'_>>,
    id: i64,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<Vec<UsageHour>> {
    const SQL: &str = "SELECT hour, ok, denied_scope, denied_address, rate_limited, expired \
        FROM api_key_usage WHERE api_key_id = $1 AND hour >= $2 AND hour < $3 ORDER BY hour";
    query(on, SQL).bind(id).bind(since).bind(until).all().await
}

/// Deletes usage before `end`. Returns the number of rows.
pub async fn forget_usage(tx: &mut Tx, end: DateTime<Utc>) -> Result<u64> {
    const SQL: &str = "DELETE FROM api_key_usage WHERE hour < $1";
    query(tx, SQL).bind(end).execute().await
}
