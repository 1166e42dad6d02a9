//! Sends the webhook events of API keys that expire soon.

use super::repository::{self, ExpiringKey};
use crate::core::error::Result;
use crate::state::AppState;
use crate::webhooks::Event;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

/// Days before the expiry at which an event is sent, the most urgent first.
const MARKS: [i64; 3] = [1, 7, 30];
/// Maximum number of keys in one transaction.
const PAGE: usize = 200;

/// Sends an event for each key that expires soon, once for each mark. Returns the number of events.
/// Does nothing if no webhook is configured. If a key passed several marks without an event,
/// because no server was running or its expiry was changed, only the most urgent one is sent.
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
            let page = repository::list_unannounced(&app.db, days, from, to, last, PAGE).await?;
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

/// Sends events for `keys` in one transaction, except for keys that another process has announced.
async fn announce(
    app: &AppState,
    keys: &[ExpiringKey],
    days: i64,
    now: DateTime<Utc>,
) -> Result<usize> {
    if keys.is_empty() {
        return Ok(0);
    }
    let mut announced = 0;
    let mut tx = app.db.begin().await?;
    for key in keys {
        let is_marked = repository::mark(&mut tx, key, days).await?;
        for passed in MARKS.into_iter().filter(|mark| *mark > days) {
            repository::mark(&mut tx, key, passed).await?;
        }
        // Skips a key that was created with less time left than this mark: its creator chose that.
        let is_due = key.created_at.0 <= key.expires_at.0 - TimeDelta::days(days);
        if is_marked && is_due {
            let ExpiringKey { id, name, expires_at, .. } = key;
            let data = json!({"id": id, "name": name, "expires_at": expires_at, "days": days});
            app.webhooks.enqueue(&mut tx, Event::KeyExpiring, &data, now).await?;
            announced += 1;
        }
    }
    tx.commit().await?;
    Ok(announced)
}
