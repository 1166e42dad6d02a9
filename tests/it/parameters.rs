//! Query parameters, paths and bodies as clients really send them.

use crate::support::{Backend, TestApp};
use reqwest::Method;
use serde_json::{Value, json};

fn document() -> Value {
    serde_json::from_str(include_str!("../openapi.json")).unwrap()
}

/// The method, path and OpenAPI object of every operation below `/api/v1`.
fn operations(document: &Value) -> Vec<(Method, String, &Value)> {
    let mut all = vec![];
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if let Ok(method) = method.to_uppercase().parse::<Method>()
                && path.starts_with("/api/v1/")
            {
                all.push((method, path.clone(), operation));
            }
        }
    }
    assert!(all.len() > 40, "{}", all.len());
    all
}

/// `path` with 1 for each of its parameters.
fn concrete(path: &str) -> String {
    let part = |part: &str| if part.starts_with('{') { "1".to_owned() } else { part.to_owned() };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

#[apply(on_both!)]
async fn every_operation_refuses_a_parameter_that_it_does_not_have(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    for (method, path, operation) in operations(&document()) {
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let in_query = parameters.iter().filter(|parameter| parameter["in"] == "query");
        let known: Vec<_> = in_query.map(|p| p["name"].as_str().unwrap().to_owned()).collect();
        let long = known.iter().filter(|name| name.len() > 3);
        let misspelt = long.map(|name| (format!("{name}x"), "; did you mean '".to_owned()));
        let unknown = [("_".to_owned(), "; ".to_owned())];
        for (name, hint) in misspelt.chain(unknown) {
            let url = format!("{}?{name}=hunter2", concrete(&path));
            let answer = app.call(method.clone(), &url).key(&key).send().await;
            let place = format!("{method} {url}: {}", answer.text);
            assert_eq!(answer.status, 422, "{place}");
            assert_eq!(answer["detail"][0]["loc"], json!(["query", name]), "{place}");
            assert_eq!(answer["detail"][0]["type"], "extra_forbidden", "{place}");
            assert!(answer["detail"][0]["msg"].as_str().unwrap().contains(&hint), "{place}");
            assert!(!answer.text.contains("hunter2"), "{place}");
        }
    }
    assert_eq!(app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys").await, 1);
}

#[apply(on_both!)]
async fn unknown_parameters_are_reported_together_and_pages_for_people_take_any(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    app.get("/api/v1/api-keys?limt=1&skp=2")
        .key(&key)
        .send()
        .await
        .invalid(&["query.limt", "query.skp"]);
    for harmless in ["?", "?&", "?&&=", "?limit=1&", "?limit=0&limit=2"] {
        app.get(&format!("/api/v1/api-keys{harmless}")).key(&key).send().await.expect(200);
    }
    // Pages for people and probes take anything: a proxy may add a parameter against caches.
    for page in ["/health", "/ready", "/openapi.json", "/docs/"] {
        assert_eq!(app.get(&format!("{page}?_=1")).send().await.status, 200, "{page}");
    }
}

#[apply(on_both!)]
async fn a_path_with_a_trailing_slash_is_the_same_path(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let gets = paths.iter().filter(|(_, item)| item.get("get").is_some());
    let others = ["/docs", "/openapi.json"].map(str::to_owned);
    let all = gets.map(|(path, _)| concrete(path)).chain(others);
    for path in all.filter(|path| path != "/" && !path.ends_with("/events")) {
        let plain = app.get(&path).key(&key).send().await;
        let slash = app.get(&format!("{path}/")).key(&key).send().await;
        assert_eq!(slash.status, plain.status, "{path}/: {}", slash.text);
    }
}

#[apply(on_both!)]
async fn head_of_an_event_stream_does_not_spend_its_ticket(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let id = app.conversation(&key, &[]).await;
    let path = format!("/api/v1/conversations/{id}/events");
    let issued = app.act(&format!("{path}/ticket")).key(&key).send().await.expect(201);
    let with_ticket = format!("{path}?ticket={}", issued["ticket"].as_str().unwrap());
    for _ in 0..2 {
        assert_eq!(app.call(Method::HEAD, &with_ticket).send().await.status, 200);
    }
    let other = format!("/api/v1/conversations/{}/events", app.conversation(&key, &[]).await);
    let elsewhere = with_ticket.replace(&path, &other);
    assert_eq!(app.call(Method::HEAD, &elsewhere).send().await.status, 401);
    assert_eq!(app.get(&with_ticket).open().await.status(), 200);
    assert_eq!(app.call(Method::HEAD, &with_ticket).send().await.status, 401, "it is spent now");
}

#[apply(on_both!)]
async fn a_byte_order_mark_is_skipped_and_utf_16_is_named(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let path = "/api/v1/conversations";
    let json = "\u{feff}{\"title\": \"\u{feff}a talk\"}";
    let send = |body: Vec<u8>| {
        app.act(path).key(&key).header("Content-Type", "application/json").body(body).send()
    };
    let created = send(json.as_bytes().to_vec()).await.expect(201);
    assert_eq!(created["title"], "\u{feff}a talk", "what was written is kept");
    for order in [u16::to_le_bytes, u16::to_be_bytes] {
        let utf_16: Vec<u8> = json.encode_utf16().flat_map(order).collect();
        let answer = send(utf_16).await;
        assert!(answer.text.contains("UTF-16; send UTF-8"), "{}", answer.text);
        answer.expect(422);
    }
    let line = "\u{feff}{\"type\":\"conversation\",\"external_id\":\"a\",\"created_at\":\"2026-01-01T00:00:00Z\"}\r\n\r\n";
    let import = app.act(&format!("{path}/import")).key(&key);
    let import = import.header("Content-Type", "application/x-ndjson").body(line);
    let answer = import.send().await;
    assert!([200, 201].contains(&answer.status), "{}", answer.text);
    assert_eq!(app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM conversations").await, 2);
}

#[apply(on_both!)]
async fn a_compressed_body_is_refused_with_the_encoding_that_is_accepted(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    for (path, content_type) in [
        ("/api/v1/conversations", "application/json"),
        ("/api/v1/conversations/import", "application/x-ndjson"),
    ] {
        let call = || app.act(path).key(&key).header("Content-Type", content_type);
        let answer = call().header("Content-Encoding", "gzip").body(vec![31, 139, 8, 0]);
        let answer = answer.send().await;
        assert_eq!(answer.header("accept-encoding"), Some("identity"));
        answer.refused(
            415,
            "The request body must not be compressed: send it without Content-Encoding",
        );
        let identity = call().header("Content-Encoding", "Identity").body(b"[]".to_vec());
        assert_ne!(identity.send().await.status, 415);
    }
}

/// Every string of the schema at its maximum length, in escaped emoji: 12 bytes a character.
fn longest(document: &Value, schema: &Value) -> Option<Value> {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap();
        return longest(document, &document["components"]["schemas"][name]);
    }
    let variants = [&schema["oneOf"], &schema["anyOf"], &schema["allOf"]];
    if let Some(variants) = variants.into_iter().find_map(Value::as_array) {
        return variants.iter().find_map(|variant| longest(document, variant));
    }
    if let Some(properties) = schema["properties"].as_object() {
        let entry = |(name, of): (&String, &Value)| Some((name.clone(), longest(document, of)?));
        return Some(properties.iter().filter_map(entry).collect::<serde_json::Map<_, _>>().into());
    }
    let characters = usize::try_from(schema["maxLength"].as_u64()?).unwrap();
    Some("\u{1f600}".repeat(characters).into())
}

#[apply(on_both!)]
async fn a_body_of_legal_length_is_not_too_large_when_its_characters_are_escaped(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let document = document();
    let mut sent = 0;
    for (method, path, operation) in operations(&document) {
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        let Some(body) = longest(&document, schema) else { continue };
        let escaped = body.to_string().replace('\u{1f600}', "\\ud83d\\ude00");
        let call = app.call(method.clone(), &concrete(&path)).key(&key);
        let call = call.header("Content-Type", "application/json").body(escaped);
        let answer = call.send().await;
        assert_ne!(answer.status, 413, "{method} {path}: {}", answer.text);
        sent += usize::from(body.as_object().is_some_and(|body| !body.is_empty()));
    }
    assert!(sent >= 10, "{sent}");
}
