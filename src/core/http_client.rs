//! HTTP clients for requests that the server makes itself.

use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder};

/// Returns a builder of clients that follow no redirects and use ring for TLS. They trust the
/// system's certificates (or those in `SSL_CERT_FILE`), and Mozilla's for container images without
/// certificates.
pub fn http_client() -> ClientBuilder {
    // The provider is the default of the process. This fails if it is already set.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().redirect(Policy::none())
}
