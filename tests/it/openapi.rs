//! The OpenAPI document: the reviewed snapshot is the contract.

use crate::support::{Backend, TestApp};
use reqwest::Method;
use serde_json::Value;
use std::collections::HashSet;
use std::io::Read;

fn document() -> Value {
    serde_json::to_value(octopus::api::document()).unwrap()
}

/// A difference is a change of the contract: review it, then write the snapshot again.
#[apply(without_database!)]
fn the_document_equals_the_reviewed_snapshot() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openapi.json");
    let reviewed = std::fs::read_to_string(path).unwrap();
    let now = octopus::api::document().to_pretty_json().unwrap();
    let same = reviewed.trim_end() == now;
    assert!(same, "review the change, then run: cargo run -- openapi > tests/openapi.json");
}

#[apply(without_database!)]
fn every_operation_is_documented_completely() {
    let document = document();
    let mut names = HashSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = format!("{method} {path}");
            let id = operation["operationId"].as_str().unwrap();
            assert!(names.insert(id.to_owned()), "{name}: two operations are called {id}");
            assert!(operation["summary"].is_string(), "{name} has no summary");
            for (status, response) in operation["responses"].as_object().unwrap() {
                let described = response["description"].as_str().is_some_and(|d| !d.is_empty());
                assert!(described, "{name}: {status} is not described");
                let body = response["content"].as_object().and_then(|all| all.values().next());
                assert!(
                    ["204", "304"].contains(&&**status)
                        || body.is_some_and(|body| body["schema"].is_object()),
                    "{name}: {status} has no body"
                );
            }
            let lines = &operation["requestBody"]["content"]["application/x-ndjson"];
            if lines.is_object() {
                assert!(lines["example"].is_string(), "{name}: its lines have no example");
            } else if let Some(body) = operation.get("requestBody") {
                let schema = &body["content"]["application/json"]["schema"];
                // An optional body has two alternatives: its schema, or null.
                let schema = schema.get("oneOf").map_or(schema, |either| &either[0]);
                let schema = schema["$ref"].as_str().expect(&name).rsplit('/').next().unwrap();
                let example = &document["components"]["schemas"][schema]["example"];
                assert!(example.is_object(), "{name}: {schema} has no example");
            }
            let secured = operation.get("security").is_some();
            assert_eq!(operation["responses"].get("401").is_some(), secured, "{name}");
        }
    }
    assert!(names.len() > 30, "operations are missing");
}

#[apply(on_both!)]
async fn the_server_returns_the_document(backend: Backend) {
    let app = TestApp::new(&backend).await;
    assert_eq!(app.get("/openapi.json").send().await.expect(200), document());
}

#[apply(on_both!)]
async fn the_docs_page_is_embedded_in_the_binary(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let page = app.get("/docs").send().await;
    assert!(page.status == 200 && page.text.contains("swagger-ui"), "{}", page.text);
    // Every file that the page refers to.
    let files: Vec<&str> =
        page.text.split("\"./").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(files.len() >= 6, "{files:?}");
    for file in files {
        let answer = app.get(&format!("/docs/{file}")).send().await;
        assert_eq!(answer.status, 200, "{file}");
        assert!(!answer.text.contains("https://petstore"), "{file} shows another document");
    }
    for file in ["nothing.js", "a/b", "..%2f"] {
        app.get(&format!("/docs/{file}")).send().await.refused(404, "Not Found");
    }
}

#[apply(on_both!)]
async fn static_files_are_compressed_once_and_revalidated_with_304(backend: Backend) {
    let app = TestApp::new(&backend).await;
    for path in ["/docs/", "/docs/swagger-ui-bundle.js", "/docs/favicon-32x32.png", "/openapi.json"]
    {
        let get = |accepted: &'static str| app.get(path).header("accept-encoding", accepted);
        let compressed = get("gzip, deflate, br").open().await;
        assert_eq!(compressed.headers()["content-encoding"], "gzip", "{path}");
        assert_eq!(compressed.headers()["vary"], "accept-encoding", "{path}");
        assert_eq!(compressed.headers()["cache-control"], "no-cache", "{path}");
        let tag = compressed.headers()["etag"].clone();
        let compressed = compressed.bytes().await.unwrap();
        let mut text = vec![];
        flate2::read::GzDecoder::new(&compressed[..]).read_to_end(&mut text).unwrap();
        // A client that does not accept gzip gets the uncompressed file.
        for accepted in ["", "br", "gzip;q=0", "identity"] {
            let plain = get(accepted).open().await;
            let encoding = plain.headers().get("content-encoding");
            assert_eq!(encoding, None, "{path} for {accepted:?}");
            assert_ne!(plain.headers()["etag"], tag, "{path}");
            assert_eq!(plain.bytes().await.unwrap(), text, "{path} for {accepted:?}");
        }
        let known = format!("\"other\", W/{}", tag.to_str().unwrap());
        let known = get("gzip").header("if-none-match", known).send().await;
        assert_eq!((known.status, &*known.text), (304, ""), "{path}");
        assert_eq!(known.headers["etag"], tag, "{path}");
        let head = app.call(Method::HEAD, path).header("accept-encoding", "gzip").send().await;
        assert_eq!((head.status, &*head.text), (200, ""), "{path}");
        assert_eq!(head.header("content-length"), Some(&*compressed.len().to_string()), "{path}");
    }
}

#[apply(on_both!)]
async fn the_docs_can_be_disabled(backend: Backend) {
    let app = TestApp::with(&backend, &[("DOCS_ENABLED", "false")]).await;
    for path in ["/docs", "/docs/", "/openapi.json"] {
        app.get(path).send().await.refused(404, "Not Found");
    }
    assert_eq!(app.get("/health").send().await.status, 200);
}
