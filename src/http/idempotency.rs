//! `Idempotency-Key`: a retried request is replayed instead of executed again.
//!
//! The transaction that creates a resource also stores an idempotency record with the resource's
//! id, valid for 24 hours. The record is inserted first, so that concurrent retries wait for the
//! transaction that inserted it.

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
/// Maximum length of a key.
const MAX_LENGTH: usize = 255;
/// How long a record is valid.
const VALIDITY: TimeDelta = TimeDelta::hours(24);

/// The JSON body of a request and its optional `Idempotency-Key`. Fails like
/// [`Json`](super::Json), and with 422 when the key is invalid.
#[derive(Debug)]
pub struct Idempotent<T: Checked>(pub T::Valid, pub Option<IdempotencyKey>);

/// Identifies a request among those of the same caller.
#[derive(Clone, Debug)]
pub struct IdempotencyKey {
    method: String,
    path: String,
    /// SHA-256 of the key, which is hashed because clients may use a secret as the key.
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
        let full_path = request.extensions().get::<OriginalUri>().map(|uri| uri.path().to_owned());
        let path = full_path.unwrap_or_else(|| request.uri().path().to_owned());
        // Paths with and without a trailing slash are the same route.
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
            "Value error, must be a single value of 1 to {MAX_LENGTH} visible ASCII characters"
        );
        return Err(invalid(msg, text));
    }
    Ok(Some(text.to_owned()))
}

fn invalid(msg: impl Into<String>, input: &str) -> Error {
    Fields::refusal("header", HEADER, "value_error", msg, input)
}

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
        // An expired record is overwritten.
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
        let claim = self.bind(query(&mut *tx, CLAIM)).bind(hash).bind(now).bind(now - VALIDITY);
        if claim.execute().await? == 1 {
            return Ok(None);
        }
        let found: StoredKey = self.bind(query(tx, FIND)).one().await?;
        if found.request_hash == self.key.request_hash {
            return Ok(Some(Replay { id: found.resource_id, count: found.resource_count }));
        }
        let message = "Value error, this key was already used for a request with a different body";
        Err(invalid(message, ""))
    }

    /// Stores that this request created `count` resources, of which `id` is the first.
    pub async fn store_result(&self, tx: &mut Tx, id: i64, count: i64) -> sqlx::Result<()> {
        const SQL: &str = "UPDATE idempotency_keys SET resource_id = $5, resource_count = $6 \
            WHERE credential = $1 AND method = $2 AND path = $3 AND idempotency_key = $4";
        self.bind(query(tx, SQL)).bind(id).bind(count).execute().await.map(drop)
    }

    fn bind<'c>(&self, statement: Query<'c>) -> Query<'c> {
        let statement = statement.bind(&*self.credential).bind(&*self.key.method);
        statement.bind(&*self.key.path).bind(self.key.key_hash.to_vec())
    }
}

/// A resource, and whether this request created it.
#[derive(Debug)]
pub enum Creation<T> {
    /// Created by this request.
    Created(T),
    /// Created by an earlier execution; in its current state.
    Replayed(T),
}

impl<T> Creation<T> {
    /// Applies `f` to the resource.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Creation<U> {
        match self {
            Self::Created(resource) => Creation::Created(f(resource)),
            Self::Replayed(resource) => Creation::Replayed(f(resource)),
        }
    }

    /// Applies the fallible `then` to the resource.
    pub async fn and_then<U>(self, then: impl AsyncFnOnce(T) -> Result<U>) -> Result<Creation<U>> {
        Ok(match self {
            Self::Created(resource) => Creation::Created(then(resource).await?),
            Self::Replayed(resource) => Creation::Replayed(then(resource).await?),
        })
    }
}

/// 201 with the resource, and `Idempotency-Replayed: true` if an earlier request created it.
impl<T: IntoResponse> IntoResponse for Creation<T> {
    fn into_response(self) -> Response {
        match self {
            Self::Created(resource) => (StatusCode::CREATED, resource).into_response(),
            Self::Replayed(resource) => {
                (StatusCode::CREATED, [(REPLAYED, "true")], resource).into_response()
            }
        }
    }
}

/// Deletes expired records. Returns how many.
pub async fn forget_old_idempotency_keys(tx: &mut Tx, now: DateTime<Utc>) -> sqlx::Result<u64> {
    const SQL: &str = "DELETE FROM idempotency_keys WHERE created_at <= $1";
    query(tx, SQL).bind(now - VALIDITY).execute().await
}
