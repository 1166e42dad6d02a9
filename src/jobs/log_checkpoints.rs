//! Publishes the end of the audit chain as an anchor: in the log, in `AUDIT_ANCHOR_FILE` and at
//! `AUDIT_ANCHOR_URL`. With an anchor, a later truncation of the chain can be detected.

use super::schedule::Schedule;
use crate::audit::{self, Anchor};
use crate::core::clock::Timestamp;
use crate::core::http_client::http_client;
use crate::state::AppState;
use reqwest::header::CONTENT_TYPE;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use std::error::Error;
use std::path::Path;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

const PERIOD: Duration = Duration::from_mins(1);
/// Timeout for sending an anchor; shorter than the time that a shutdown waits for jobs.
const TIMEOUT: Duration = Duration::from_secs(4);

/// The last anchor published to each destination.
#[derive(Default)]
struct Published {
    log: Option<Anchor>,
    file: Option<Anchor>,
    url: Option<Anchor>,
}

pub(super) async fn run(app: AppState, stop: CancellationToken) {
    let mut schedule = Schedule::every(PERIOD, stop);
    let mut published = Published::default();
    while schedule.due().await {
        publish(&app, &mut published).await;
    }
    publish(&app, &mut published).await;
}

async fn publish(app: &AppState, published: &mut Published) {
    if let Err(error) = log_end(app, &mut published.log).await {
        tracing::error!(
            event = "audit.checkpoint_failed",
            %error,
            "cannot read the head of the audit chain; will retry"
        );
        return;
    }
    let Some(anchor) = &published.log else { return };
    let audit = &app.config.audit;
    if let Some(file) = audit.anchor_file.as_deref()
        && published.file.as_ref() != Some(anchor)
    {
        match write(app, file, anchor).await {
            Ok(()) => published.file = Some(anchor.clone()),
            Err(error) => log_failure("AUDIT_ANCHOR_FILE", &error.to_string()),
        }
    }
    if let Some(url) = &audit.anchor_url
        && published.url.as_ref() != Some(anchor)
        && !has_lost(app, published.url.as_ref()).await
    {
        match send(app, url, anchor).await {
            Ok(()) => published.url = Some(anchor.clone()),
            Err(error) => log_failure("AUDIT_ANCHOR_URL", &error),
        }
    }
}

/// Returns whether the chain no longer contains the anchor that was `sent` last. Sending a newer
/// one would hide the loss from a receiver that keeps only the newest.
async fn has_lost(app: &AppState, sent: Option<&Anchor>) -> bool {
    match sent {
        Some(sent) => !app.audit.has(&app.db, sent).await.unwrap_or(false),
        None => false,
    }
}

fn log_failure(to: &str, error: &str) {
    tracing::error!(
        event = "audit.anchor_failed",
        to,
        error,
        "cannot publish the audit anchor; will retry"
    );
}

async fn log_end(app: &AppState, logged: &mut Option<Anchor>) -> sqlx::Result<()> {
    let anchor = app.audit.anchor(&app.db).await?;
    if logged.as_ref() == Some(&anchor) {
        return Ok(());
    }
    if let Some(known) = logged
        && !app.audit.has(&app.db, known).await?
    {
        log_truncation(known, &anchor);
    }
    if logged.is_some() || anchor.seq > 0 {
        tracing::info!(event = "audit.checkpoint", %anchor, "the head of the audit chain");
    }
    *logged = Some(anchor);
    Ok(())
}

fn log_truncation(known: &Anchor, anchor: &Anchor) {
    tracing::error!(event = "audit.truncated", %known, %anchor, "the audit chain was truncated");
}

/// Appends `anchor` to `file`, unless the chain no longer contains the newest anchor in the file: a
/// newer one would hide the loss from `octopus verify`.
async fn write(
    app: &AppState,
    file: &Path,
    anchor: &Anchor,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let path = file.to_owned();
    if let Some(known) = spawn_blocking(move || audit::newest_anchor(&path)).await?? {
        if known == *anchor {
            return Ok(());
        }
        if !app.audit.has(&app.db, &known).await? {
            log_truncation(&known, anchor);
            return Ok(());
        }
    }
    let (path, anchor, now) = (file.to_owned(), anchor.clone(), app.clock.now());
    Ok(spawn_blocking(move || audit::append_anchor(&path, &anchor, now)).await??)
}

/// Posts `anchor` as JSON. Errors do not contain the URL, which is secret.
async fn send(app: &AppState, url: &SecretString, anchor: &Anchor) -> Result<(), String> {
    let client = http_client().timeout(TIMEOUT).build();
    let client = client.map_err(|error| error.without_url().to_string())?;
    let body = json!({ "anchor": anchor, "at": Timestamp(app.clock.now()) }).to_string();
    let request = client.post(url.expose_secret()).header(CONTENT_TYPE, "application/json");
    let response = request.body(body).send().await;
    let response = response.map_err(|error| error.without_url().to_string())?;
    if response.status().is_success() {
        Ok(())
    } else {
        Err(format!("status {}", response.status().as_u16()))
    }
}
