//! Refused credentials, in the audit trail.

use crate::audit::{Action, Origin, PerformedBy, Subject};
use crate::core::error::Result;
use crate::security::failures::Failure;
use crate::state::AppState;
use crate::webhooks::Event;
use serde_json::json;

/// From so many on in a minute, others are told.
const REPEATED: u64 = 10;

/// Writes the credentials that were refused since the last time into the audit trail: a row for
/// each address and reason, at most a hundred, and one for all others.
pub async fn record_failures(app: &AppState) -> Result<()> {
    let failures = app.failures.take();
    if failures.is_empty() {
        return Ok(());
    }
    let recorded = record(app, &failures).await;
    if recorded.is_err() {
        app.failures.put_back(&failures);
    }
    recorded
}

async fn record(app: &AppState, failures: &[Failure]) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let now = app.clock.now();
    for Failure { ip, reason, count } in failures {
        let by = Origin { by: PerformedBy::Anonymous, ip: *ip, request_id: None };
        let details = json!({ "reason": reason, "count": count });
        if *count >= REPEATED {
            let data = json!({ "client": ip, "reason": reason, "count": count });
            app.webhooks.enqueue(&mut tx, Event::AuthenticationFailing, &data, now).await?;
        }
        let subject = Subject::Installation;
        app.audit.record(&mut tx, &by, Action::AuthFailed, subject, &details, now).await?;
    }
    Ok(tx.commit().await?)
}
