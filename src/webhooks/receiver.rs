//! Sends signed requests to the webhook receiver and interprets its responses.

use super::repository::WebhookEvent;
use crate::core::config::WebhookConfig;
use crate::core::http_client::http_client;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use std::error::Error;
use std::time::Duration;

/// Time limit for a whole attempt; [`CONNECT_TIMEOUT`] limits connecting.
const TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const USER_AGENT: &str = concat!("octopus/", env!("CARGO_PKG_VERSION"));
/// Maximum length of a stored failure description, in characters.
const MAX_DESCRIPTION: usize = 200;

/// The server that receives webhook events.
pub struct Receiver {
    client: Client,
    url: SecretString,
    signer: Signer,
}

/// Why an attempt to deliver failed.
pub struct Failure {
    /// A short description, which contains no part of the URL except the host.
    pub what: String,
    /// The delay that the receiver requests with `Retry-After`.
    pub retry_after: Option<TimeDelta>,
}

impl From<String> for Failure {
    fn from(what: String) -> Self {
        Self { what: what.chars().take(MAX_DESCRIPTION).collect(), retry_after: None }
    }
}

impl Receiver {
    /// Creates the HTTP client. A signed request must not go to any other URL than the configured
    /// one, so it follows no redirects.
    pub fn new(webhook: &WebhookConfig) -> reqwest::Result<Self> {
        let client = http_client()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .build()?;
        Ok(Self { client, url: webhook.url.clone(), signer: Signer::new(webhook) })
    }

    /// Sends `event` once. Only a 2xx response counts as delivered.
    pub async fn send(
        &self,
        event: &WebhookEvent,
        now: DateTime<Utc>,
    ) -> Result<StatusCode, Failure> {
        let (id, timestamp) = (&event.message_id, now.timestamp());
        let signature = self.signer.sign(id, timestamp, &event.payload);
        let request = self
            .client
            .post(self.url.expose_secret())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(event.payload.clone());
        // The body of the response is not needed and stays unread.
        let response = request.send().await.map_err(|error| describe(&error))?;
        if response.status().is_success() { Ok(response.status()) } else { Err(refusal(&response)) }
    }
}

/// Signs deliveries as Standard Webhooks define it:
/// <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.
struct Signer(Hmac<Sha256>);

impl Signer {
    fn new(webhook: &WebhookConfig) -> Self {
        let key = webhook.secret.expose_secret();
        Self(Hmac::new_from_slice(key).expect("HMAC takes keys of any length"))
    }

    /// Returns the value of `webhook-signature`.
    fn sign(&self, id: &str, timestamp: i64, payload: &str) -> String {
        let mac = self.0.clone().chain_update(format!("{id}.{timestamp}.{payload}"));
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

fn refusal(response: &Response) -> Failure {
    let status = response.status();
    let busy = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let seconds = seconds.filter(|_| busy).and_then(|text| text.trim().parse::<u32>().ok());
    Failure {
        what: format!("status {}", status.as_u16()),
        retry_after: seconds.map(|seconds| TimeDelta::seconds(seconds.into())),
    }
}

/// Describes an error by its root cause. The error's own text would contain the URL.
fn describe(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no response in time".to_owned();
    }
    let what = if error.is_connect() { "cannot connect" } else { "the request failed" };
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.last().map_or_else(|| what.to_owned(), |cause| format!("{what}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook(url: &str) -> WebhookConfig {
        let secret = STANDARD.decode("C2FVsBQIhrscChlQIMV+b5sSYspob7oD").unwrap();
        WebhookConfig { url: url.into(), origin: String::new(), secret: secret.into() }
    }

    fn event() -> WebhookEvent {
        WebhookEvent {
            id: 1,
            message_id: "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk".to_owned(),
            event: "api_key.created".to_owned(),
            payload: r#"{"email":"test@example.com","username":"test_user"}"#.to_owned(),
            created_at: DateTime::UNIX_EPOCH,
            attempts: 0,
        }
    }

    #[test]
    fn a_signature_is_that_of_the_reference_implementation() {
        let event = event();
        let signer = Signer::new(&webhook("http://localhost"));
        let signature = signer.sign(&event.message_id, 1_649_367_553, &event.payload);
        assert_eq!(signature, "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
    }

    #[tokio::test]
    async fn a_failure_has_the_reason_and_no_part_of_the_path() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for (url, why) in [
            (format!("http://{free}/hunter2?token=hunter2"), "cannot connect: "),
            (format!("http://me:hunter2@{free}/"), "cannot connect: "),
            ("http://nowhere.invalid/hunter2".to_owned(), "cannot connect: "),
        ] {
            let receiver = Receiver::new(&webhook(&url)).unwrap();
            let failure = receiver.send(&event(), DateTime::UNIX_EPOCH).await.unwrap_err();
            assert!(failure.what.starts_with(why) && failure.what.len() > why.len());
            assert!(!failure.what.contains("hunter2"), "{}", failure.what);
        }
    }

    #[test]
    fn a_long_description_is_truncated() {
        assert_eq!(Failure::from("é".repeat(999)).what.chars().count(), MAX_DESCRIPTION);
    }
}
