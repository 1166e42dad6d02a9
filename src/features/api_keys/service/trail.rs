//! What is told of each deed: to the audit trail, and to those who want notices.

use super::super::model::{ApiKey, AuditFilter, AuditLog};
use super::super::repository;
use crate::audit::{Action, Fault, Origin, Pruned, Subject};
use crate::core::error::Result;
use crate::db::Tx;
use crate::http::{Listed, NewestFirst, Window};
use crate::state::AppState;
use crate::webhooks::Event;
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use serde_json::{Map, Value, json};

/// A page of the audit trail, newest first unless asked otherwise.
pub async fn audit_logs(
    app: &AppState,
    filter: &AuditFilter,
    window: Window<NewestFirst>,
) -> Result<Listed<AuditLog>> {
    let slice = window.resolve("audit logs")?;
    let rows = repository::audit_logs(&app.db, filter, &slice).await?;
    Ok(slice.page(rows.into_iter().map(AuditLog::from).collect(), |log| log.id))
}

/// Removes rows older than `AUDIT_RETENTION_DAYS`, if that is set. By whole days: a checkpoint a day
/// is enough.
pub async fn prune_trail(app: &AppState) -> Result<()> {
    let Some(retention) = app.config.retention.audit else { return Ok(()) };
    let now = app.clock.now();
    let before = (now - retention).duration_trunc(TimeDelta::days(1)).unwrap_or(now - retention);
    match app.audit.prune(&app.db, before, now).await? {
        Pruned::Rows(0) => {}
        Pruned::Rows(rows) => {
            tracing::info!(event = "audit.pruned", rows, %before, "removed old audit rows");
        }
        Pruned::Broken(Fault { seq, problem }) => tracing::error!(
            event = "audit.not_pruned",
            seq,
            problem,
            "the audit chain is broken, and its old rows are kept as evidence"
        ),
    }
    Ok(())
}

/// Writes the notice of a deed, if it is one to tell others of, and its audit row.
pub(in super::super) async fn record(
    app: &AppState,
    tx: &mut Tx,
    by: &Origin,
    action: Action,
    key: &ApiKey,
    details: &Value,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    if let Some(event) = event(action, key, details) {
        let data = match action {
            Action::Update => json!({ "id": key.id, "name": key.name }),
            _ => with_id(details, key.id),
        };
        app.webhooks.enqueue(tx, event, &data, now).await?;
    }
    let subject = Subject::Key(key.id, &key.name);
    app.audit.record(tx, by, action, subject, details, now).await
}

/// What the audit row tells, and the id, which is a column there.
fn with_id(details: &Value, id: i64) -> Value {
    let mut data = details.clone();
    data["id"] = id.into();
    data
}

/// What a deed is to others who want to know.
fn event(action: Action, key: &ApiKey, details: &Value) -> Option<Event> {
    match action {
        Action::Bootstrap | Action::Create => Some(Event::KeyCreated),
        Action::Rotate => Some(Event::KeyRotated),
        Action::Deactivate => Some(Event::KeyDeactivated),
        Action::Delete => Some(Event::KeyDeleted),
        Action::Expire => Some(Event::KeyExpired),
        Action::Update if !key.is_active && details.get("is_active").is_some() => {
            Some(Event::KeyDeactivated)
        }
        _ => None,
    }
}

/// The properties of a key for its audit row.
pub(super) fn describe(key: &ApiKey) -> Value {
    json!({
        "name": key.name,
        "scopes": key.scopes,
        "expires_at": key.expires_at,
        "allowed_ips": key.allowed_ips,
        "rate_limit_per_minute": key.rate_limit_per_minute,
        "rotated_from_id": key.rotated_from_id,
    })
}

/// The fields that changed, each with what it was and is.
pub(super) fn difference(before: &ApiKey, after: &ApiKey) -> Map<String, Value> {
    let fields = |key: &ApiKey| {
        [
            ("name", json!(key.name)),
            ("description", json!(key.description)),
            ("scopes", json!(key.scopes)),
            ("is_active", json!(key.is_active)),
            ("expires_at", json!(key.expires_at)),
            ("allowed_ips", json!(key.allowed_ips)),
            ("rate_limit_per_minute", json!(key.rate_limit_per_minute)),
        ]
    };
    let pairs = fields(before).into_iter().zip(fields(after));
    let changed = pairs.filter(|((_, was), (_, is))| was != is);
    changed.map(|((name, was), (_, is))| (name.into(), json!({ "from": was, "to": is }))).collect()
}
