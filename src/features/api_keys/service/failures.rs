//! Records failed authentications, sign-ins and registrations in the audit log.

use crate::audit::{Action, Origin, PerformedBy, Subject};
use crate::core::error::Result;
use crate::security::tally::Counted;
use crate::state::AppState;
use crate::webhooks::Event;
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;

/// Number of failures per minute from which a webhook event is sent.
const MIN_REPORTED: u64 = 10;
/// Maximum number of addresses with their own event each time, so that an attacker cannot fill the
/// webhook outbox.
const MAX_EVENTS: usize = 10;

/// Writes the counts since the last call into the audit log. Each kind gets at most 100 entries,
/// one for each address and reason or user, and one entry for all others.
pub async fn record_failures(app: &AppState) -> Result<()> {
    let failures = app.failures.take();
    let (sign_ins, registrations) = (app.sign_ins.take(), app.registrations.take());
    if failures.is_empty() && sign_ins.is_empty() && registrations.is_empty() {
        return Ok(());
    }
    let recorded = record(app, &failures, &sign_ins, &registrations).await;
    if recorded.is_err() {
        app.failures.add(&failures);
        app.sign_ins.add(&sign_ins);
        app.registrations.add(&registrations);
    }
    recorded
}

async fn record(
    app: &AppState,
    failures: &[Counted<&'static str>],
    sign_ins: &[Counted<i64>],
    registrations: &[Counted<i64>],
) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let now = app.clock.now();
    for (client, count) in repeated(failures) {
        let data = json!({ "client": client, "count": count });
        app.webhooks.enqueue(&mut tx, Event::AuthenticationFailing, &data, now).await?;
    }
    let anonymous = PerformedBy::Anonymous;
    let reason = |counted: &Counted<&'static str>| {
        let reason = counted.of.map_or("others", |(_, reason)| reason);
        json!({ "reason": reason, "count": counted.count })
    };
    let user = |counted: &Counted<i64>| {
        let user_id = counted.of.map(|(_, user_id)| user_id);
        json!({ "user_id": user_id, "count": counted.count })
    };
    let entries = entries(failures, Action::AuthFailed, &anonymous, reason)
        .chain(entries(registrations, Action::Register, &anonymous, user))
        .chain(entries(sign_ins, Action::SignIn, &PerformedBy::User, user));
    for (action, by, details) in entries {
        app.audit.record(&mut tx, &by, action, Subject::Installation, &details, now).await?;
    }
    Ok(tx.commit().await?)
}

fn entries<K: Copy>(
    counted: &[Counted<K>],
    action: Action,
    by: &PerformedBy,
    details: impl Fn(&Counted<K>) -> Value,
) -> impl Iterator<Item = (Action, Origin, Value)> {
    counted.iter().map(move |counted| {
        let ip = counted.of.map(|(ip, _)| ip);
        (action, Origin { by: by.clone(), ip, request_id: None }, details(counted))
    })
}

/// The addresses with at least [`MIN_REPORTED`] failures of any reason, those with the most first.
/// `None` stands for failures not counted by address and for addresses beyond [`MAX_EVENTS`].
fn repeated(failures: &[Counted<&'static str>]) -> Vec<(Option<IpAddr>, u64)> {
    let mut counts: HashMap<Option<IpAddr>, u64> = HashMap::new();
    for failure in failures {
        *counts.entry(failure.of.map(|(ip, _)| ip)).or_default() += failure.count;
    }
    let mut others = counts.remove(&None).unwrap_or(0);
    let mut reported: Vec<_> =
        counts.into_iter().filter(|(_, count)| *count >= MIN_REPORTED).collect();
    reported.sort_unstable_by_key(|(ip, count)| (Reverse(*count), *ip));
    others += reported.iter().skip(MAX_EVENTS).map(|(_, count)| count).sum::<u64>();
    reported.truncate(MAX_EVENTS);
    reported.extend((others >= MIN_REPORTED).then_some((None, others)));
    reported
}
