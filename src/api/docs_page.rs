//! Swagger UI, embedded in the binary: its configuration and content security policy.

use axum::http::HeaderValue;
use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::response::Response;
use utoipa_swagger_ui::Config;

/// Permits scripts and styles from this server only, and no inline ones. The hash permits the one
/// inline style that Swagger UI adds, in its logo. Images in the style sheet are `data:` URLs.
/// Styles that a script sets on an element are not inline styles to a browser.
const POLICY: &str = "default-src 'none'; script-src 'self'; \
    style-src 'self' 'sha256-RL3ie0nH+Lzz2YNqQN83mnU0J1ot4QL7b99vMdIX99w='; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The configuration of Swagger UI. It does not persist credentials: they must not be in the
/// browser's storage. The URL of the document is relative to `/docs/`, so it is the right one below
/// any path that a proxy adds, without a setting.
pub fn config() -> Config<'static> {
    Config::from("../openapi.json").try_it_out_enabled(true).validator_url("none")
}

/// Adds the content security policy to a response.
pub async fn protect(mut response: Response) -> Response {
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}
