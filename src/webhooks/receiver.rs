//! The other server: signed requests to it, and what it makes of them.

use super::outbox::Notice;
use crate::core::config::Webhook;
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use std::error::Error;
use std::time::Duration;

/// How long a whole attempt may take, and how long a connection.
const TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const USER_AGENT: &str = concat!("octopus/", env!("CARGO_PKG_VERSION"));
/// Characters of a failure that are kept.
const LONGEST_TEXT: usize = 200;

/// Where notices go.
pub struct Receiver {
    client: Client,
    url: SecretString,
    signer: standardwebhooks::Webhook,
}

/// Why a notice did not arrive.
pub struct Failure {
    /// In a few words; nothing of the URL but its host.
    pub what: String,
    /// How long the receiver wants to be left alone.
    pub retry_after: Option<TimeDelta>,
}

impl From<String> for Failure {
    fn from(what: String) -> Self {
        Self { what: what.chars().take(LONGEST_TEXT).collect(), retry_after: None }
    }
}

impl Receiver {
    /// Certificates are those of the system, whose place `SSL_CERT_FILE` can name, and Mozilla's,
    /// for images without any.
    pub fn new(webhook: &Webhook) -> reqwest::Result<Self> {
        let client = Client::builder()
            .user_agent(USER_AGENT)
            // A signed request is meant for the URL that was configured, and for no other.
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .build()?;
        Ok(Self { client, url: webhook.url.clone(), signer: signer(webhook) })
    }

    /// Sends `notice` once. Only a 2xx is an arrival.
    pub async fn send(&self, notice: &Notice, now: DateTime<Utc>) -> Result<StatusCode, Failure> {
        let (id, timestamp) = (&notice.message_id, now.timestamp());
        let signature = self.signer.sign(id, timestamp, notice.payload.as_bytes());
        let request = self
            .client
            .post(self.url.expose_secret())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature.map_err(|error| error.to_string())?)
            .body(notice.payload.clone());
        // The body of the answer is nobody's concern, and is left unread.
        let answer = request.send().await.map_err(|error| describe(&error))?;
        if answer.status().is_success() { Ok(answer.status()) } else { Err(refusal(&answer)) }
    }
}

fn signer(webhook: &Webhook) -> standardwebhooks::Webhook {
    let key = webhook.secret.expose_secret().to_vec();
    standardwebhooks::Webhook::from_bytes(key).expect("it takes any bytes")
}

fn refusal(answer: &Response) -> Failure {
    let status = answer.status();
    let busy = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let seconds = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let seconds = seconds.filter(|_| busy).and_then(|text| text.trim().parse::<u32>().ok());
    Failure {
        what: format!("status {}", status.as_u16()),
        retry_after: seconds.map(|seconds| TimeDelta::seconds(seconds.into())),
    }
}

/// The error itself would tell the URL; what caused it tells why.
fn describe(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let what = if error.is_connect() { "cannot connect" } else { "the request failed" };
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.last().map_or_else(|| what.to_owned(), |cause| format!("{what}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    fn webhook(url: &str) -> Webhook {
        let secret = STANDARD.decode("C2FVsBQIhrscChlQIMV+b5sSYspob7oD").unwrap();
        Webhook { url: url.into(), origin: String::new(), secret: secret.into() }
    }

    fn notice() -> Notice {
        Notice {
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
        let notice = notice();
        let signer = signer(&webhook("http://localhost"));
        let signature =
            signer.sign(&notice.message_id, 1_649_367_553, notice.payload.as_bytes()).unwrap();
        assert_eq!(signature, "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
    }

    #[tokio::test]
    async fn a_failure_tells_why_and_nothing_of_the_path() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for (url, why) in [
            (format!("http://{free}/hunter2?token=hunter2"), "cannot connect: "),
            (format!("http://me:hunter2@{free}/"), "cannot connect: "),
            ("http://nowhere.invalid/hunter2".to_owned(), "cannot connect: "),
        ] {
            let receiver = Receiver::new(&webhook(&url)).unwrap();
            let failure = receiver.send(&notice(), DateTime::UNIX_EPOCH).await.unwrap_err();
            assert!(failure.what.starts_with(why) && failure.what.len() > why.len());
            assert!(!failure.what.contains("hunter2"), "{}", failure.what);
        }
    }

    #[test]
    fn a_long_text_is_cut() {
        assert_eq!(Failure::from("é".repeat(999)).what.chars().count(), LONGEST_TEXT);
    }
}
