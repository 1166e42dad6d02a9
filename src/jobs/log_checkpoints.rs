//! Publishes the end of the audit chain as an anchor, so that a chain that is cut off later shows: in
//! the log, in `AUDIT_ANCHOR_FILE` and at `AUDIT_ANCHOR_URL`.

use super::Schedule;
use crate::audit::{self, Anchor};
use crate::core::clock::Timestamp;
use crate::state::AppState;
use reqwest::header::CONTENT_TYPE;
use reqwest::redirect::Policy;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use std::error::Error;
use std::path::Path;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

const PERIOD: Duration = Duration::from_mins(1);
/// How long sending an anchor may take; less than a stopping server waits for its jobs.
const TIMEOUT: Duration = Duration::from_secs(4);

/// The last anchor that reached each place.
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
        tracing::error!(event = "audit.checkpoint_failed", %error, "will be tried again");
        return;
    }
    let Some(anchor) = &published.log else { return };
    let audit = &app.config.audit;
    if let Some(file) = audit.anchor_file.as_deref()
        && published.file.as_ref() != Some(anchor)
    {
        match write(app, file, anchor).await {
            Ok(()) => published.file = Some(anchor.clone()),
            Err(error) => failed("AUDIT_ANCHOR_FILE", &error.to_string()),
        }
    }
    if let Some(url) = &audit.anchor_url
        && published.url.as_ref() != Some(anchor)
        && !has_lost(app, published.url.as_ref()).await
    {
        match send(app, url, anchor).await {
            Ok(()) => published.url = Some(anchor.clone()),
            Err(error) => failed("AUDIT_ANCHOR_URL", &error),
        }
    }
}

/// Whether the chain has lost the anchor that was `sent` last: another one after it would hide that
/// from a receiver that keeps the newest.
async fn has_lost(app: &AppState, sent: Option<&Anchor>) -> bool {
    match sent {
        Some(sent) => !app.audit.has(&app.db, sent).await.unwrap_or(false),
        None => false,
    }
}

fn failed(to: &str, error: &str) {
    tracing::error!(event = "audit.anchor_failed", to, error, "will be tried again");
}

async fn log_end(app: &AppState, logged: &mut Option<Anchor>) -> sqlx::Result<()> {
    let anchor = app.audit.anchor(&app.db).await?;
    if logged.as_ref() == Some(&anchor) {
        return Ok(());
    }
    if let Some(known) = logged
        && !app.audit.has(&app.db, known).await?
    {
        cut_off(known, &anchor);
    }
    tracing::info!(event = "audit.checkpoint", %anchor, "the audit chain ends here");
    *logged = Some(anchor);
    Ok(())
}

fn cut_off(known: &Anchor, anchor: &Anchor) {
    tracing::error!(event = "audit.cut_off", %known, %anchor, "the audit chain lost its end");
}

/// Appends `anchor` to `file`, unless the chain has lost the newest anchor there: another one after
/// it would hide that from `verify`.
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
            cut_off(&known, anchor);
            return Ok(());
        }
    }
    let (path, anchor, now) = (file.to_owned(), anchor.clone(), app.clock.now());
    Ok(spawn_blocking(move || audit::append_anchor(&path, &anchor, now)).await??)
}

/// Posts `anchor` as JSON. What it returns names nothing of the URL.
async fn send(app: &AppState, url: &SecretString, anchor: &Anchor) -> Result<(), String> {
    let client = reqwest::Client::builder().redirect(Policy::none()).timeout(TIMEOUT).build();
    let client = client.map_err(|error| error.without_url().to_string())?;
    let body = json!({ "anchor": anchor, "at": Timestamp(app.clock.now()) }).to_string();
    let request = client.post(url.expose_secret()).header(CONTENT_TYPE, "application/json");
    let answer = request.body(body).send().await;
    let answer = answer.map_err(|error| error.without_url().to_string())?;
    if answer.status().is_success() {
        Ok(())
    } else {
        Err(format!("status {}", answer.status().as_u16()))
    }
}
