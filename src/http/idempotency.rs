//! `Idempotency-Key`: a request that is sent again does not happen again.
//!
//! What a request made is remembered in the transaction that makes it, for a day, as an id. The row
//! is written first, so that of several at the same time the others wait for the one that wrote it.

use super::body::receive;
use super::{Checked, Fields};
use crate::core::clock::Clock;
use crate::core::config::Config;
use crate::core::error::{Error, Result};
use crate::db::{Query, Tx, query};
use axum::extract::{FromRef, FromRequest, OriginalUri, Request};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest, Sha256};
use std::sync::Arc;

const HEADER: &str = "Idempotency-Key";
const REPLAYED: &str = "idempotency-replayed";
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
struct StoredKey {
    request_hash: Vec<u8>,
    resource_id: i64,
    resource_count: i64,
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
        let has_key = key.is_some();
        let hash = |bytes: &[u8]| -> [u8; 32] { Sha256::digest(bytes).into() };
        let (valid, request_hash) =
            receive::<T, S, _>(request, state, move |bytes| has_key.then(|| hash(bytes))).await?;
        let key = key.zip(request_hash).map(|(key, request_hash)| IdempotencyKey {
            method,
            path,
            key_hash: hash(key.as_bytes()),
            request_hash,
        });
        Ok(Self(valid, key))
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
    /// The key as `credential` sent it: others may use the same.
    pub fn of(self, credential: String) -> Once {
        Once { key: self, credential }
    }
}

/// A request that happens once, however often it is sent.
#[derive(Clone, Debug)]
pub struct Once {
    key: IdempotencyKey,
    credential: String,
}

/// What a request made before: `count` things, of which `id` is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// The first thing's id.
    pub id: i64,
    /// How many things.
    pub count: i64,
}

impl Once {
    /// What this request made before, if it did. Otherwise it is this transaction's to make, and
    /// [`Once::made`] says what: who sends the same at the same time waits for it to end. Fails with
    /// 422 when the key was used for another request.
    pub async fn claim(&self, tx: &mut Tx, now: DateTime<Utc>) -> Result<Option<Earlier>> {
        // A row that is older than a day is as good as none.
        const CLAIM: &str = "INSERT INTO idempotency_keys (credential, method, path, \
            idempotency_key, request_hash, resource_id, resource_count, created_at) \
            VALUES ($1, $2, $3, $4, $5, 0, 0, $6) \
            ON CONFLICT (credential, method, path, idempotency_key) DO UPDATE SET \
            request_hash = excluded.request_hash, resource_id = 0, resource_count = 0, \
            created_at = excluded.created_at WHERE idempotency_keys.created_at <= $7";
        const FIND: &str = "SELECT request_hash, resource_id, resource_count \
            FROM idempotency_keys \
            WHERE credential = $1 AND method = $2 AND path = $3 AND idempotency_key = $4";
        let hash = self.key.request_hash.to_vec();
        let claim = self.bind(query(&mut *tx, CLAIM)).bind(hash).bind(now).bind(now - KEPT);
        if claim.execute().await? == 1 {
            return Ok(None);
        }
        let found: StoredKey = self.bind(query(tx, FIND)).one().await?;
        if found.request_hash == self.key.request_hash {
            return Ok(Some(Earlier { id: found.resource_id, count: found.resource_count }));
        }
        Err(invalid("Value error, it was used for a request with another body", ""))
    }

    /// Remembers that this request made `count` things, of which `id` is the first.
    pub async fn made(&self, tx: &mut Tx, id: i64, count: i64) -> sqlx::Result<()> {
        const SQL: &str = "UPDATE idempotency_keys SET resource_id = $5, resource_count = $6 \
            WHERE credential = $1 AND method = $2 AND path = $3 AND idempotency_key = $4";
        self.bind(query(tx, SQL)).bind(id).bind(count).execute().await.map(drop)
    }

    fn bind<'c>(&self, statement: Query<'c>) -> Query<'c> {
        let statement = statement.bind(&*self.credential).bind(&*self.key.method);
        statement.bind(&*self.key.path).bind(self.key.key_hash.to_vec())
    }
}

/// Something that was made, by this request or by the same one before.
#[derive(Debug)]
pub enum Made<T> {
    /// Now.
    Now(T),
    /// Before; as it is now.
    Before(T),
}

impl<T> Made<T> {
    /// The same with `f` of what was made.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Made<U> {
        match self {
            Self::Now(made) => Made::Now(f(made)),
            Self::Before(made) => Made::Before(f(made)),
        }
    }

    /// The same with `then(made)` in place of what was made. Fails as `then` does.
    pub async fn and_then<U>(self, then: impl AsyncFnOnce(T) -> Result<U>) -> Result<Made<U>> {
        Ok(match self {
            Self::Now(made) => Made::Now(then(made).await?),
            Self::Before(made) => Made::Before(then(made).await?),
        })
    }
}

/// 201 with what was made; `Idempotency-Replayed` tells that it was before.
impl<T: IntoResponse> IntoResponse for Made<T> {
    fn into_response(self) -> Response {
        match self {
            Self::Now(made) => (StatusCode::CREATED, made).into_response(),
            Self::Before(made) => (StatusCode::CREATED, [(REPLAYED, "true")], made).into_response(),
        }
    }
}

/// Forgets requests of more than a day ago: how many.
pub async fn forget_old_idempotency_keys(tx: &mut Tx, now: DateTime<Utc>) -> sqlx::Result<u64> {
    const SQL: &str = "DELETE FROM idempotency_keys WHERE created_at <= $1";
    query(tx, SQL).bind(now - KEPT).execute().await
}
