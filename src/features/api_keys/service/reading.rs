//! Reads API keys.

use super::super::model::{ApiKey, ApiKeyFilter};
use super::super::repository;
use super::stored_key::NOT_FOUND;
use crate::core::clock::Timestamp;
use crate::core::error::Result;
use crate::http::{ListPage, OldestFirst, Window};
use crate::security::Key;
use crate::state::AppState;
use chrono::TimeDelta;

/// Lists keys by id.
pub async fn list(
    app: &AppState,
    filter: &ApiKeyFilter,
    window: Window<OldestFirst>,
) -> Result<ListPage<ApiKey>> {
    let slice = window.resolve("api keys")?;
    let unused_since = filter.unused_for_days.map(|days| app.clock.now() - TimeDelta::days(days));
    if unused_since.is_some()
        && let Err(error) = app.usage.flush(&app.db).await
    {
        tracing::warn!(
            event = "usage.flush_failed",
            %error,
            "failed to write key usage: the list omits the most recent uses"
        );
    }
    let keys = repository::list(&app.db, filter, unused_since, &slice).await?;
    let keys = keys.into_iter().map(|key| with_last_use(app, key)).collect();
    Ok(slice.page(keys, |key: &ApiKey| key.id))
}

/// Returns key `id`.
pub async fn get(app: &AppState, id: i64) -> Result<ApiKey> {
    let key = repository::find(&app.db, id).await?.ok_or(NOT_FOUND)?;
    Ok(with_last_use(app, key))
}

/// Returns the caller's key from the cache. Its last use is the current request.
pub async fn own(app: &AppState, key: &Key) -> Result<ApiKey> {
    match app.usage.last(key.id) {
        Some(_) => Ok(with_last_use(app, key.into())),
        // The use was written to the database since the request began.
        None => get(app, key.id).await,
    }
}

/// Lists active keys that expire within `days`, the earliest first.
pub async fn expiring(
    app: &AppState,
    days: i64,
    window: Window<OldestFirst>,
) -> Result<ListPage<ApiKey>> {
    let slice = window.resolve("expiring api keys")?;
    let now = app.clock.now();
    let keys = repository::expiring(&app.db, now, now + TimeDelta::days(days), &slice).await?;
    let keys = keys.into_iter().map(|key| with_last_use(app, key)).collect();
    let end = |key: &ApiKey| key.expires_at.map_or(now, |end| end.0);
    Ok(slice.page(keys, |key| (end(key), key.id)))
}

/// Adds the last use to `key` if it is not in the database yet.
pub(super) fn with_last_use(app: &AppState, mut key: ApiKey) -> ApiKey {
    if let Some(used) = app.usage.last(key.id) {
        let at = Timestamp(used.at);
        if key.last_used_at.is_none_or(|known| known < at) {
            key.last_used_at = Some(at);
            key.last_used_ip = used.ip.map(|ip| ip.to_string());
        }
    }
    key
}
