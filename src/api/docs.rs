//! Serves Swagger UI and the OpenAPI document as static files from memory. Swagger UI is compressed
//! at build time, the OpenAPI document once per process.

use super::docs_page;
use super::middleware::compression::Precompressed;
use crate::core::error::{Error, Result};
use crate::core::offload::offload;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Request};
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
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
    let document = async |headers: HeaderMap| serve(DOCUMENT, &headers).await;
    Router::new()
        .route("/docs", get(async || Redirect::to("/docs/")))
        .route("/docs/", get(page))
        .route("/docs/{*name}", get(file))
        .route("/openapi.json", get(document))
        .layer(map_response(async |mut response: Response| {
            response.extensions_mut().insert(Precompressed);
            response
        }))
        .layer(map_response(docs_page::protect))
}

/// Serves the file `name`, or 304 if the client has it cached. Fails with 404.
async fn serve(name: &str, request: &HeaderMap) -> Result<Response> {
    let files = FILES.get_or_try_init(|| offload(load)).await?;
    let file = files.get(name).ok_or(Error::RouteNotFound)?;
    let accepts_gzip = accepts_gzip(request);
    let tag =
        if accepts_gzip { format!("\"{}-gzip\"", file.tag) } else { format!("\"{}\"", file.tag) };
    let mut response = if is_cached(request, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else if accepts_gzip {
        let headers = [(CONTENT_TYPE, file.content_type.clone()), (CONTENT_ENCODING, GZIP)];
        (headers, file.gzip.clone()).into_response()
    } else {
        ([(CONTENT_TYPE, file.content_type.clone())], file.plain().await?).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, HeaderValue::try_from(tag).map_err(|error| internal(&error))?);
    // Browsers may cache the file but must revalidate it, because it changes with the version.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    Ok(response)
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
    for coding in list_entries(headers, &ACCEPT_ENCODING) {
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

/// Returns whether `If-None-Match` contains `tag`, by weak comparison (RFC 9110, section 13.1.2).
fn is_cached(headers: &HeaderMap, tag: &str) -> bool {
    list_entries(headers, &IF_NONE_MATCH)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

/// The entries of a comma-separated header field.
fn list_entries<'h>(
    headers: &'h HeaderMap,
    name: &axum::http::HeaderName,
) -> impl Iterator<Item = &'h str> {
    let fields = headers.get_all(name).iter().filter_map(|field| field.to_str().ok());
    fields.flat_map(|field| field.split(',').map(str::trim))
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
