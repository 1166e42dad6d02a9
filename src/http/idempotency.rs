//! `Idempotency-Key`: a request that is sent again does not happen again.
//!
//! What a request made is remembered in the transaction that makes it, for a day, as an id; so that
//! two at the same time do not both find nothing, the transaction holds a lock that the other
//! waits for.

use super::body::receive;
use super::{Checked, Fields};
use crate::core::clock::Clock;
use crate::core::config::Config;
use crate::core::error::{Error, Result};
use crate::db::{Tx, query};
use axum::extract::{FromRef, FromRequest, OriginalUri, Request};
use axum::http::HeaderMap;
use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest, Sha256};
use std::sync::Arc;

const HEADER: &str = "Idempotency-Key";
/// Longest key.
const MAX_LENGTH: usize = 255;
/// How long a request is remembered.
const KEPT: TimeDelta = TimeDelta::hours(24);

/// The JSON body of a request, and its `Idempotency-Key`, if it has one. Fails as
/// [`Json`](super::Json) does.
#[derive(Debug)]
pub struct Idempotent<T: Checked>(pub T::Valid, pub Option<IdempotencyKey>);

/// What tells a request from others of the same caller.
#[derive(Clone, Debug)]
pub struct IdempotencyKey {
    method: String,
    path: String,
    /// SHA-256: some clients may take a secret for it.
    key_hash: [u8; 32],
    request_hash: [u8; 32],
}

#[derive(sqlx::FromRow)]
struct Earlier {
    request_hash: Vec<u8>,
    resource_id: i64,
}

impl<S, T: Checked> FromRequest<S> for Idempotent<T>
where
    S: Send + Sync,
    Arc<Config>: FromRef<S>,
    Clock: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let key = header(request.headers())?;
        let method = request.method().to_string();
        let whole = request.extensions().get::<OriginalUri>().map(|uri| uri.path().to_owned());
        let path = whole.unwrap_or_else(|| request.uri().path().to_owned());
        // With and without the last slash, it is one route.
        let path = path.trim_end_matches('/').to_owned();
        let (valid, bytes) = receive::<T, S>(request, state).await?;
        let request_hash = Sha256::digest(&bytes).into();
        let key_hash = |key: String| Sha256::digest(key.as_bytes()).into();
        Ok(Self(
            valid,
            key.map(|key| IdempotencyKey { method, path, key_hash: key_hash(key), request_hash }),
        ))
    }
}

fn header(headers: &HeaderMap) -> Result<Option<String>> {
    let mut fields = headers.get_all(HEADER).iter();
    let Some(field) = fields.next() else { return Ok(None) };
    let text = field.to_str().unwrap_or_default();
    let fits = (1..=MAX_LENGTH).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if !fits || fields.next().is_some() {
        let msg = format!(
            "Value error, it must be one text of 1 to {MAX_LENGTH} visible ASCII characters"
        );
        return Err(invalid(msg, text));
    }
    Ok(Some(text.to_owned()))
}

fn invalid(msg: impl Into<String>, input: &str) -> Error {
    Fields::refusal("header", HEADER, "value_error", msg, input)
}

impl IdempotencyKey {
    /// The id of what this request of `credential` made before, if it did. Fails with 422 when that
    /// was another request with the same key.
    pub async fn earlier(
        &self,
        tx: &mut Tx,
        credential: &str,
        now: DateTime<Utc>,
    ) -> Result<Option<i64>> {
        const SQL: &str = "SELECT request_hash, resource_id FROM idempotency_keys \
            WHERE credential = $1 AND method = $2 AND path = $3 AND idempotency_key = $4 \
            AND created_at > $5";
        let statement = query(tx, SQL).bind(credential).bind(&*self.method).bind(&*self.path);
        let found: Option<Earlier> =
            statement.bind(self.key_hash.to_vec()).bind(now - KEPT).optional().await?;
        match found {
            Some(earlier) if earlier.request_hash == self.request_hash => {
                Ok(Some(earlier.resource_id))
            }
            Some(_) => {
                let msg = "Value error, it was used for a request with another body";
                Err(invalid(msg, ""))
            }
            None => Ok(None),
        }
    }

    /// Remembers that this request of `credential` made `resource_id`.
    pub async fn remember(
        &self,
        tx: &mut Tx,
        credential: &str,
        resource_id: i64,
        now: DateTime<Utc>,
    ) -> sqlx::Result<()> {
        // A row in the way is older than a day: `earlier` did not see it.
        const SQL: &str = "INSERT INTO idempotency_keys (credential, method, path, \
            idempotency_key, request_hash, resource_id, created_at) \
            VALUES ($1, $2, $3, $4, $5, $6, $7) \
            ON CONFLICT (credential, method, path, idempotency_key) DO UPDATE SET \
            request_hash = excluded.request_hash, resource_id = excluded.resource_id, \
            created_at = excluded.created_at";
        let statement = query(tx, SQL).bind(credential).bind(&*self.method).bind(&*self.path);
        let statement = statement.bind(self.key_hash.to_vec()).bind(self.request_hash.to_vec());
        statement.bind(resource_id).bind(now).execute().await?;
        Ok(())
    }
}

/// Forgets requests of more than a day ago: how many.
pub async fn forget_old_idempotency_keys(tx: &mut Tx, now: DateTime<Utc>) -> sqlx::Result<u64> {
    const SQL: &str = "DELETE FROM idempotency_keys WHERE created_at <= $1";
    query(tx, SQL).bind(now - KEPT).execute().await
}
