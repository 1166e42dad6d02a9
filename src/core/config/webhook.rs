//! `WEBHOOK_URL` and `WEBHOOK_SECRET`: the receiver of webhook events and the signing secret.

use super::reader::Reader;
use axum::http::Uri;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use std::ops::RangeInclusive;
use url::Url;

/// The prefix of a secret in Standard Webhooks. Base64 follows it.
const SECRET_PREFIX: &str = "whsec_";
/// The length of a secret in bytes that Standard Webhooks allows.
const SECRET_BYTES: RangeInclusive<usize> = 24..=64;

/// The receiver of webhook events.
#[derive(Clone, Debug)]
pub struct WebhookConfig {
    /// The URL of the receiver. The whole URL is secret, because its path or query often contains a
    /// credential.
    pub url: SecretString,
    /// The part of the URL that may be displayed: scheme, host and port.
    pub origin: String,
    /// The key that signs deliveries.
    pub secret: SecretSlice<u8>,
}

/// Returns `None` if `WEBHOOK_URL` is not set.
pub(super) fn webhook(r: &mut Reader) -> Option<WebhookConfig> {
    let url = url(r);
    let secret = secret(r, url.is_some());
    let (url, secret) = (url?, secret?);
    Some(WebhookConfig {
        origin: url.origin().ascii_serialization(),
        url: String::from(url).into(),
        secret,
    })
}

fn url(r: &mut Reader) -> Option<Url> {
    let text = r.secret("WEBHOOK_URL")?;
    let url = Url::parse(text.expose_secret()).ok();
    // Reject a URL that the HTTP client cannot parse now, not at every delivery.
    let url = url.filter(|url| {
        matches!(url.scheme(), "http" | "https") && url.as_str().parse::<Uri>().is_ok()
    });
    if url.is_none() {
        r.problem("WEBHOOK_URL", "must be a URL such as https://example.com/octopus");
    }
    url
}

fn secret(r: &mut Reader, required: bool) -> Option<SecretSlice<u8>> {
    let Some(text) = r.secret("WEBHOOK_SECRET") else {
        if required && r.text("WEBHOOK_SECRET_FILE").is_none() {
            r.problem("WEBHOOK_SECRET", "must be set, because WEBHOOK_URL is");
        }
        return None;
    };
    let encoded = text.expose_secret().strip_prefix(SECRET_PREFIX);
    let bytes = encoded.and_then(|encoded| STANDARD.decode(encoded).ok());
    let bytes = bytes.filter(|bytes| SECRET_BYTES.contains(&bytes.len()));
    if bytes.is_none() {
        let (least, most) = SECRET_BYTES.into_inner();
        r.problem(
            "WEBHOOK_SECRET",
            format_args!(
                "must be {SECRET_PREFIX} and {least} to {most} bytes in base64; generate one with \
                 `echo {SECRET_PREFIX}$(openssl rand -base64 32)`"
            ),
        );
    }
    bytes.map(SecretSlice::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::config::{Config, ConfigError};

    const URL: &str = "https://me:hunter2@hooks.example.com:8443/take/hunter2?token=hunter2";
    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    fn read(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let owned = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        Config::from_variables(owned.collect())
    }

    #[test]
    fn only_scheme_host_and_port_of_a_url_are_displayed() {
        let config = read(&[("WEBHOOK_URL", URL), ("WEBHOOK_SECRET", SECRET)]).unwrap();
        let webhook = config.webhook.as_ref().unwrap();
        assert_eq!(webhook.url.expose_secret(), URL);
        assert_eq!(webhook.origin, "https://hooks.example.com:8443");
        assert_eq!(webhook.secret.expose_secret().len(), 24);
        let shown = format!("{config:?}");
        assert!(shown.contains("hooks.example.com") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn without_a_url_there_is_no_webhook() {
        assert!(read(&[]).unwrap().webhook.is_none());
        assert!(read(&[("WEBHOOK_SECRET", SECRET)]).unwrap().webhook.is_none());
    }

    #[test]
    fn an_invalid_url_is_reported_and_not_displayed() {
        for url in
            ["hunter2", "hooks.example.com/hunter2", "ftp://hunter2/", "https://", "/hunter2"]
        {
            let problems = read(&[("WEBHOOK_URL", url), ("WEBHOOK_SECRET", SECRET)]).unwrap_err();
            let expected = "WEBHOOK_URL must be a URL such as https://example.com/octopus";
            assert_eq!(problems.0, [expected], "{url}");
        }
    }

    #[test]
    fn an_invalid_secret_is_reported_and_not_displayed() {
        let encoded = |length| format!("{SECRET_PREFIX}{}", STANDARD.encode(vec![7; length]));
        for good in [24, 32, 64] {
            assert!(read(&[("WEBHOOK_SECRET", &encoded(good))]).is_ok(), "{good} bytes");
        }
        let bare = STANDARD.encode([7; 32]);
        for secret in ["changeme", &bare, "whsec_", "whsec_!", &encoded(23), &encoded(65)] {
            let ConfigError(problems) = read(&[("WEBHOOK_SECRET", secret)]).unwrap_err();
            assert_eq!(problems.len(), 1);
            assert!(problems[0].starts_with("WEBHOOK_SECRET must be whsec_ and 24 to 64 bytes"));
            assert!(secret == SECRET_PREFIX || !problems[0].contains(secret), "{problems:?}");
        }
    }

    #[test]
    fn a_url_needs_a_secret() {
        let missing = read(&[("WEBHOOK_URL", URL)]).unwrap_err();
        assert_eq!(missing.0, ["WEBHOOK_SECRET must be set, because WEBHOOK_URL is"]);
        let unreadable = [("WEBHOOK_URL", URL), ("WEBHOOK_SECRET_FILE", "/nowhere/at/all")];
        let ConfigError(problems) = read(&unreadable).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("WEBHOOK_SECRET_FILE names /nowhere/at/all"));
    }
}
