//! The page that shows the OpenAPI document: Swagger UI, from the binary.

use axum::http::HeaderValue;
use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::response::Response;
use utoipa_swagger_ui::Config;

/// Scripts and styles come from this server alone, and none stands in the page itself; the one
/// style that the script adds, in Swagger's logo, is named by its hash. Images in the style sheet
/// are `data:`. (What the script sets of an element's style is no inline style to a browser.)
const POLICY: &str = "default-src 'none'; script-src 'self'; \
    style-src 'self' 'sha256-RL3ie0nH+Lzz2YNqQN83mnU0J1ot4QL7b99vMdIX99w='; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// How the page is set up. A key that is entered is forgotten with the page: the browser's storage
/// is no place for one.
pub fn config() -> Config<'static> {
    Config::from("/openapi.json").try_it_out_enabled(true).validator_url("none")
}

/// Adds the policy that keeps other scripts out of the page.
pub async fn protect(mut response: Response) -> Response {
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}
