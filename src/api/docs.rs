//! Serves Swagger UI and the OpenAPI document as static files from memory. Swagger UI is compressed
//! at build time, the OpenAPI document once per process.

use super::docs_page;
use super::middleware::compression::Precompressed;
use crate::core::error::{Error, Result};
use crate::core::offload::offload;
use crate::http::{UrlBase, header_list};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request};
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, VARY,
};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use futures_util::stream;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::sync::Arc;
use tokio::sync::OnceCell;

const DOCUMENT: &str = "openapi.json";
const PAGE: &str = "index.html";
/// The page of Swagger UI, and the files it refers to.
const PAGE_FILES: [&str; 8] = [
    PAGE,
    "favicon-16x16.png",
    "favicon-32x32.png",
    "index.css",
    "swagger-initializer.js",
    "swagger-ui-bundle.js",
    "swagger-ui-standalone-preset.js",
    "swagger-ui.css",
];

/// All files, by name. They do not depend on the configuration, so all servers of the process share
/// them.
static FILES: OnceCell<HashMap<&'static str, StaticFile>> = OnceCell::const_new();

struct StaticFile {
    content_type: HeaderValue,
    gzip: Bytes,
    /// The uncompressed file, for clients that do not accept gzip. Created on first use.
    plain: OnceCell<Bytes>,
    /// The digest of the compressed file, for the `ETag`.
    tag: String,
}

/// `/docs/` and `/openapi.json`.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let page = async |request: Request| serve(PAGE, request.headers()).await;
    let file = async |Path(name): Path<String>, headers: HeaderMap| serve(&name, &headers).await;
    let document = async |base: UrlBase, headers: HeaderMap| {
        if base.is_empty() { serve(DOCUMENT, &headers).await } else { serve_document(&base).await }
    };
    Router::new()
        .route("/docs", get(async |base: UrlBase| Redirect::to(&page_url(&base))))
        .route("/docs/", get(page))
        .route("/docs/{*name}", get(file))
        .route("/openapi.json", get(document))
        .layer(map_response(docs_page::protect))
}

/// The URL of the page. If the base is not known, it is relative to `/docs`.
fn page_url(base: &UrlBase) -> String {
    if base.is_empty() { "docs/".to_owned() } else { format!("{base}/docs/") }
}

/// Returns the file `name`. Fails with 404.
async fn find(name: &str) -> Result<&'static StaticFile> {
    let files = FILES.get_or_try_init(|| offload(load)).await?;
    files.get(name).ok_or(Error::RouteNotFound)
}

/// Serves the file `name`. Fails with 404.
async fn serve(name: &str, request: &HeaderMap) -> Result<Response> {
    let file = find(name).await?;
    let accepts_gzip = accepts_gzip(request);
    let tag =
        if accepts_gzip { format!("\"{}-gzip\"", file.tag) } else { format!("\"{}\"", file.tag) };
    let mut response = if accepts_gzip {
        let headers = [(CONTENT_TYPE, file.content_type.clone()), (CONTENT_ENCODING, GZIP)];
        (headers, file.gzip.clone()).into_response()
    } else {
        ([(CONTENT_TYPE, file.content_type.clone())], file.plain().await?).into_response()
    };
    response.extensions_mut().insert(Precompressed);
    add_cache_headers(&mut response, tag)?;
    Ok(response)
}

/// Serves the OpenAPI document with `base` as its server. The response is compressed while it is
/// sent, and nothing is stored by base: a proxy may pass on any `X-Forwarded-Prefix` of a client.
async fn serve_document(base: &UrlBase) -> Result<Response> {
    let file = find(DOCUMENT).await?;
    let document = file.plain().await?;
    let url = serde_json::to_string(base.as_str()).map_err(|error| internal(&error))?;
    let servers = format!("{{\"servers\":[{{\"url\":{url}}}],");
    // The rest is the document after its `{`, shared by all responses.
    let parts = [Bytes::from(servers), document.slice(1..)];
    let body = Body::from_stream(stream::iter(parts.map(Ok::<_, Infallible>)));
    let mut response = ([(CONTENT_TYPE, file.content_type.clone())], body).into_response();
    // Weak, because it is the same with and without compression.
    let base_digest = crc32fast::hash(base.as_str().as_bytes());
    add_cache_headers(&mut response, format!("W/\"{}-{base_digest:08x}\"", file.tag))?;
    Ok(response)
}

fn add_cache_headers(response: &mut Response, tag: String) -> Result<()> {
    let headers = response.headers_mut();
    headers.insert(ETAG, HeaderValue::try_from(tag).map_err(|error| internal(&error))?);
    // Browsers may cache the file but must revalidate it, because it changes with the version.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    Ok(())
}

const GZIP: HeaderValue = HeaderValue::from_static("gzip");

impl StaticFile {
    fn new(content_type: &str, gzip: Bytes) -> Result<Self> {
        let content_type = content_type.parse().map_err(|error| internal(&error))?;
        let tag = hex::encode(&Sha256::digest(&gzip)[..16]);
        Ok(Self { content_type, gzip, plain: OnceCell::new(), tag })
    }

    async fn plain(&self) -> Result<Bytes> {
        let gzip = self.gzip.clone();
        let decompress = move || {
            let mut plain = vec![];
            GzDecoder::new(&gzip[..]).read_to_end(&mut plain).map_err(|error| internal(&error))?;
            Ok(plain.into())
        };
        self.plain.get_or_try_init(|| offload(decompress)).await.cloned()
    }
}

/// Loads every file, and compresses those that are not compressed at build time.
fn load() -> Result<HashMap<&'static str, StaticFile>> {
    let config = Arc::new(docs_page::config());
    let document =
        serde_json::to_vec(&super::openapi::document()).map_err(|error| internal(&error))?;
    let document = compressed(&document).map_err(|error| internal(&error))?;
    let mut files =
        HashMap::from([(DOCUMENT, StaticFile::new("application/json", document.into())?)]);
    for name in PAGE_FILES {
        let found = utoipa_swagger_ui::serve(name, config.clone());
        let found = found.map_err(|error| internal(&error))?;
        let file = found.ok_or_else(|| internal(&format!("Swagger UI does not contain {name}")))?;
        let gzip = if file.gzpipped {
            file.bytes.into_owned()
        } else {
            compressed(&file.bytes).map_err(|error| internal(&error))?
        };
        files.insert(name, StaticFile::new(&file.content_type, gzip.into())?);
    }
    Ok(files)
}

fn compressed(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(vec![], Compression::best());
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn internal(error: &impl ToString) -> Error {
    Error::Internal(error.to_string().into())
}

/// Returns whether `Accept-Encoding` permits gzip (RFC 9110, section 12.5.3).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let mut wildcard = false;
    for coding in header_list(headers, &ACCEPT_ENCODING) {
        let (name, parameter) = coding.split_once(';').unwrap_or((coding, ""));
        let quality =
            parameter.trim().strip_prefix("q=").and_then(|q| q.trim().parse::<f32>().ok());
        let is_allowed = quality.is_none_or(|q| q > 0.0);
        match name.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => return is_allowed,
            "*" => wildcard = is_allowed,
            _ => {}
        }
    }
    wildcard
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_used_only_where_it_is_accepted() {
        for (field, expected) in [
            ("gzip", true),
            ("br, gzip;q=0.5", true),
            ("GZIP", true),
            ("*", true),
            ("*;q=0, gzip", true),
            ("", false),
            ("br", false),
            ("identity", false),
            ("gzip;q=0", false),
            ("gzip; q=0.000, *", false),
        ] {
            let field = HeaderValue::from_static(field);
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, field.clone())]);
            assert_eq!(accepts_gzip(&headers), expected, "{field:?}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
