//! Refused credentials, in the audit trail.

use crate::audit::{Action, Origin, PerformedBy, Subject};
use crate::core::error::Result;
use crate::security::failures::Failure;
use crate::state::AppState;
use crate::webhooks::Event;
use serde_json::json;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;

/// From so many on in a minute, others are told.
const REPEATED: u64 = 10;
/// Most addresses that others are told of at a time: nobody should be able to fill the outbox.
const MAX_NOTICES: usize = 10;

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
    for (client, count) in repeated(failures) {
        let data = json!({ "client": client, "count": count });
        app.webhooks.enqueue(&mut tx, Event::AuthenticationFailing, &data, now).await?;
    }
    for Failure { ip, reason, count } in failures {
        let by = Origin { by: PerformedBy::Anonymous, ip: *ip, request_id: None };
        let details = json!({ "reason": reason, "count": count });
        let subject = Subject::Installation;
        app.audit.record(&mut tx, &by, Action::AuthFailed, subject, &details, now).await?;
    }
    Ok(tx.commit().await?)
}

/// The addresses with many failures, whatever their reasons, those with the most first; `None`
/// stands for all that were not told apart or are too many to tell of.
fn repeated(failures: &[Failure]) -> Vec<(Option<IpAddr>, u64)> {
    let mut counts: HashMap<Option<IpAddr>, u64> = HashMap::new();
    for failure in failures {
        *counts.entry(failure.ip).or_default() += failure.count;
    }
    let mut others = counts.remove(&None).unwrap_or(0);
    let mut told: Vec<_> = counts.into_iter().filter(|(_, count)| *count >= REPEATED).collect();
    told.sort_unstable_by_key(|(ip, count)| (Reverse(*count), *ip));
    others += told.iter().skip(MAX_NOTICES).map(|(_, count)| count).sum::<u64>();
    told.truncate(MAX_NOTICES);
    told.extend((others >= REPEATED).then_some((None, others)));
    told
}
