//! Audit entries and webhook events for key operations, and audit log retention.

use super::super::model::{ApiKey, AuditFilter, AuditLog};
use super::super::repository;
use crate::audit::{Action, Fault, Origin, Pruned, Subject};
use crate::core::error::Result;
use crate::db::Tx;
use crate::http::{ListPage, NewestFirst, Window};
use crate::state::AppState;
use crate::webhooks::Event;
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use serde_json::{Map, Value, json};

/// Lists audit entries, newest first by default.
pub async fn audit_logs(
    app: &AppState,
    filter: &AuditFilter,
    window: Window<NewestFirst>,
) -> Result<ListPage<AuditLog>> {
    let slice = window.resolve("audit logs")?;
    let rows = repository::audit_logs(&app.db, filter, &slice).await?;
    Ok(slice.page(rows.into_iter().map(AuditLog::from).collect(), |log| log.id))
}

/// Deletes audit entries older than `AUDIT_RETENTION_DAYS`, if that is set. The cutoff is rounded
/// down to a day, so that at most one checkpoint is written per day.
pub async fn prune_audit_log(app: &AppState) -> Result<()> {
    let Some(retention) = app.config.retention.audit else { return Ok(()) };
    let now = app.clock.now();
    let before = (now - retention).duration_trunc(TimeDelta::days(1)).unwrap_or(now - retention);
    match app.audit.prune(&app.db, before, now).await? {
        Pruned::Rows(0) => {}
        Pruned::Rows(rows) => {
            tracing::info!(event = "audit.pruned", rows, %before, "deleted old audit entries");
        }
        Pruned::Broken(Fault { seq, problem }) => tracing::error!(
            event = "audit.prune_blocked",
            seq,
            problem,
            "the audit chain is broken: old entries are kept as evidence"
        ),
    }
    Ok(())
}

/// Writes the audit entry of an operation and, if the operation has one, its webhook event.
pub(crate) async fn record(
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

/// The details of the audit entry and the key id, which is a separate column there.
fn with_id(details: &Value, id: i64) -> Value {
    let mut data = details.clone();
    data["id"] = id.into();
    data
}

/// The webhook event of an operation, if it has one.
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

/// The properties of a key for its audit entry.
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

/// The changed fields, each with its old and new value.
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
