//! Tells, before a key ends, that it will.

mod repository;

use crate::core::error::Result;
use crate::state::AppState;
use crate::webhooks::Event;
use chrono::{DateTime, TimeDelta, Utc};
use repository::Ending;
use serde_json::json;

/// How many days before its end a key is announced, the most urgent first.
const MARKS: [i64; 3] = [1, 7, 30];
/// Keys in one transaction.
const PAGE: usize = 200;

/// Announces keys that end soon, if anybody wants to know: once at each mark. Returns how many. A key that has passed
/// several marks unannounced, because no server ran or its end was moved, is announced for the
/// most urgent one alone.
pub async fn announce_expiring(app: &AppState) -> Result<usize> {
    if !app.webhooks.is_configured() {
        return Ok(0);
    }
    let now = app.clock.now();
    let (mut announced, mut from) = (0, now);
    for days in MARKS {
        let to = now + TimeDelta::days(days);
        let mut last = 0;
        loop {
            let page = repository::unannounced(&app.db, days, (from, to), last, PAGE).await?;
            announced += announce(app, &page, days, now).await?;
            match page.last() {
                Some(key) if page.len() == PAGE => last = key.id,
                _ => break,
            }
        }
        from = to;
    }
    Ok(announced)
}

/// Announces those of `keys` that no other process announces, in one transaction.
async fn announce(app: &AppState, keys: &[Ending], days: i64, now: DateTime<Utc>) -> Result<usize> {
    if keys.is_empty() {
        return Ok(0);
    }
    let mut announced = 0;
    let mut tx = app.db.begin().await?;
    for key in keys {
        let is_ours = repository::mark(&mut tx, key, days).await?;
        for passed in MARKS.into_iter().filter(|mark| *mark > days) {
            repository::mark(&mut tx, key, passed).await?;
        }
        // Whoever made a key that ends in a week need not be told so at once.
        let is_news = key.created_at <= key.expires_at.0 - TimeDelta::days(days);
        if is_ours && is_news {
            let Ending { id, name, expires_at, .. } = key;
            let data = json!({"id": id, "name": name, "expires_at": expires_at, "days": days});
            app.webhooks.enqueue(&mut tx, Event::KeyExpiring, &data, now).await?;
            announced += 1;
        }
    }
    tx.commit().await?;
    Ok(announced)
}
