//! Behaviour common to all routes.

use crate::support::{Answer, Backend, Call, TestApp};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CONVERSATIONS: &str = "/api/v1/conversations";
const KEYS: &str = "/api/v1/api-keys";
const USERS: &str = "/api/v1/users";

/// Sends these bytes on a new connection. Returns the status and the whole response.
async fn raw(app: &TestApp, head: &str, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    stream
        .write_all(format!("{head}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    // The server may respond and close before it has read everything.
    let _ = stream.write_all(body).await;
    let mut answer = vec![];
    stream.read_to_end(&mut answer).await.expect("the answer arrives whole");
    let text = String::from_utf8(answer).unwrap();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), text)
}

/// `body` in chunks of at most 64 KiB.
fn chunked(body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![];
    for chunk in body.chunks(65536) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

/// Whether `Vary` names this header field.
fn varies_by(answer: &Answer, name: &str) -> bool {
    let mut lines = answer.headers.get_all("vary").iter().map(|line| line.to_str().unwrap());
    lines.any(|line| line.to_ascii_lowercase().split(',').any(|field| field.trim() == name))
}

fn many_fields(call: Call, n: usize) -> Call {
    (0..n).fold(call, |call, n| call.header(&format!("x-field-{n}"), "x"))
}

#[apply(on_both!)]
async fn an_unknown_path_is_404_and_an_unknown_method_405_in_json(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    for path in ["/nothing", "/api", "/api/v1", "/api/v2/users", "/api/v1/users/a/b", "/health/x"] {
        let answer = app.get(path).key(&key).send().await;
        assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
        answer.refused(404, "Not Found");
    }
    for (method, path, methods) in [
        (Method::DELETE, "/health", &["GET", "HEAD"][..]),
        (Method::PATCH, CONVERSATIONS, &["GET", "HEAD", "POST"]),
        (Method::POST, "/api/v1/users/1", &["DELETE", "GET", "HEAD", "PATCH", "PUT"]),
        (Method::GET, "/bootstrap", &["POST"]),
        (Method::from_bytes(b"BREW").unwrap(), CONVERSATIONS, &["GET", "HEAD", "POST"]),
    ] {
        let answer = app.call(method, path).key(&key).send().await;
        let allow = answer.header("allow").unwrap_or_default().to_owned();
        let mut allowed: Vec<&str> = allow.split(',').map(str::trim).collect();
        allowed.sort_unstable();
        assert_eq!(allowed, methods, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
        answer.refused(405, "Method Not Allowed");
    }
}

#[apply(on_both!)]
async fn a_trailing_slash_makes_no_difference_and_no_redirect(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let user = format!("{USERS}/{}", app.user("ada").await);
    app.user("ben").await;
    app.conversation(&key, &[]).await;
    for path in [USERS, &user, CONVERSATIONS, "/api/v1/api-keys/me"] {
        let without = app.get(path).key(&key).send().await.expect(200);
        let slash = format!("{path}/");
        let (status, _) =
            raw(&app, &format!("GET {slash} HTTP/1.1\r\nOctopus-API-Key: {key}"), b"").await;
        assert_eq!(status, 200, "{slash}");
        let with = app.get(&slash).key(&key).send().await.expect(200);
        // The last-used time of the key differs between two requests.
        assert_eq!(with["id"], without["id"], "{slash}");
        assert!(path.ends_with("me") || with == without, "{slash}");
    }
    let second = app.get(&format!("{USERS}/?skip=1")).key(&key).send().await.expect(200);
    assert_eq!(second.as_array().unwrap().len(), 1);
    assert_eq!(second[0]["username"], "ben");
    for path in ["/api/v1/conversations", "/api/v1/conversations/"] {
        let body = r#"{"title": "x"}"#;
        let length = body.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nOctopus-API-Key: {key}\r\nContent-Length: {length}");
        let (status, answer) = raw(&app, &head, body.as_bytes()).await;
        assert_eq!(status, 201, "{answer}");
    }
}

#[apply(on_both!)]
async fn a_body_of_another_type_is_refused(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let body = r#"{"title": "x"}"#;
    for kind in [
        "text/plain",
        "text/plain; charset=utf-8",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "text/json",
        "json",
        "*/*",
    ] {
        let call = app.act(CONVERSATIONS).key(&key).header("content-type", kind).body(body);
        let answer = call.send().await;
        let detail = answer["detail"].as_str().unwrap_or_default().to_owned();
        assert!(detail.contains("Content-Type: application/json"), "{kind}: {}", answer.text);
        answer.expect(415);
    }
    let created = app.get(CONVERSATIONS).key(&key).send().await.expect(200);
    assert_eq!(created, json!([]));
}

#[apply(on_both!)]
async fn every_spelling_of_the_json_content_type_is_accepted(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let kinds = ["application/json", "application/json; charset=utf-8", "Application/JSON"];
    let kinds = kinds.into_iter().map(Some).chain([None]);
    for kind in kinds {
        let body = " {\"metadata\": null,\n \"title\": \"\\u00e9 é\" } ";
        let call = app.act(CONVERSATIONS).key(&key).body(body);
        let call = match kind {
            Some(kind) => call.header("content-type", kind),
            None => call,
        };
        assert_eq!(call.send().await.expect(201)["title"], "é é");
    }
}

#[apply(on_both!)]
async fn a_body_that_is_not_a_json_object_is_a_422(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let (arrays, objects) = ("[".repeat(100_000), r#"{"name":"#.repeat(100_000));
    let bodies: [&[u8]; 17] = [
        b"",
        b" ",
        b"null",
        b"[]",
        b"[{}]",
        b"1",
        b"\"x\"",
        b"{",
        b"{]",
        b"{}{}",
        b"{'name': 'x'}",
        br#"{"title": "x", "name": "\ud800"}"#,
        br#"{"title": "x", "name": "\udc00\ud800"}"#,
        b"{\"title\": \"x\", \"name\": \"\xff\xfe\"}",
        br#"{"title": "x", "name": NaN}"#,
        arrays.as_bytes(),
        objects.as_bytes(),
    ];
    let (user, conversation) = (app.user("alice").await, app.conversation(&key, &[]).await);
    for (method, path) in [
        (Method::POST, CONVERSATIONS.to_owned()),
        (Method::POST, KEYS.to_owned()),
        (Method::PATCH, format!("{KEYS}/1")),
        (Method::PUT, format!("/api/v1/users/{user}")),
        (Method::POST, format!("/api/v1/conversations/{conversation}/messages")),
    ] {
        for body in bodies {
            let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
            let answer = app.call(method.clone(), &path).key(&key).body(body.to_vec()).send().await;
            assert_eq!(answer.status, 422, "{method} {path} {shown}: {}", answer.text);
            answer.invalid(&["body"]);
        }
    }
}

#[apply(on_both!)]
async fn a_number_that_is_not_an_id_is_a_422(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let conversation = format!("/api/v1/conversations/{}", app.conversation(&key, &[]).await);
    for number in [
        "9223372036854775808",
        "-9223372036854775809",
        "99999999999999999999999",
        "1.5",
        "1e3",
        "0",
        "-1",
    ] {
        let answer = app.act(&format!("{conversation}/participants")).key(&key);
        let answer = answer.body(format!(r#"{{"user_id": {number}}}"#)).send().await;
        answer.invalid(&["body.user_id"]);
        let answer = app.act("/api/v1/conversations").key(&key);
        let answer = answer.body(format!(r#"{{"participant_ids": [{number}]}}"#)).send().await;
        answer.invalid(&["body.participant_ids.0"]);
    }
    let huge =
        app.act(&format!("{conversation}/participants")).key(&key).body(r#"{"user_id": 1e400}"#);
    huge.send().await.expect(422);
    let unknown = app.post(&format!("{conversation}/participants"), json!({"user_id": i64::MAX}));
    unknown.key(&key).send().await.refused(404, "Conversation or user not found");
}

#[apply(on_both!)]
async fn two_megabytes_of_errors_get_a_short_response_quickly(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let unknown: Vec<_> = (0..95_000).map(|n| format!(r#""z{n}":1,"#)).collect();
    let unknown = unknown.concat();
    let zeros = vec!["0"; 1_000_000].join(",");
    let nuls = vec![r#""\u0000""#; 200_000].join(",");
    let addresses: Vec<_> =
        (0..100_000).map(|n| format!("10.{}.{}.1", n / 250 % 250, n % 250)).collect();
    let addresses = addresses.join(",");
    let conversations = "/api/v1/conversations";
    for (path, body) in [
        (conversations, format!(r#"{{{unknown}"title":"{}"}}"#, "x".repeat(1_000_000))),
        (conversations, format!(r#"{{"participant_ids":[{zeros}]}}"#)),
        (conversations, format!(r#"{{"participant_ids":[{nuls}]}}"#)),
        (KEYS, format!(r#"{{"name":"x","allowed_ips":"{addresses}"}}"#)),
    ] {
        let sent = app.call(Method::POST, path).key(&key).body(body).send();
        let answer = tokio::time::timeout(std::time::Duration::from_secs(10), sent).await;
        let answer = answer.expect("the server is not held up");
        assert_eq!(answer.status, 422);
        assert!(answer.text.len() < 64 * 1024, "{} bytes", answer.text.len());
    }
}

#[apply(on_both!)]
async fn u0000_is_refused_everywhere(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let (user, conversation) = (app.user("alice").await, app.conversation(&key, &[]).await);
    let (user, conversation) =
        (format!("/api/v1/users/{user}"), format!("/api/v1/conversations/{conversation}"));
    for (call, place) in [
        (app.post(KEYS, json!({"name": "a\0b"})), "name"),
        (app.post(KEYS, json!({"name": "a", "description": "\0"})), "description"),
        (app.patch(&format!("{KEYS}/1"), json!({"description": "\0"})), "description"),
        (app.put(&user, json!({"full_name": "a\0"})), "full_name"),
        (app.put(&user, json!({"ignored": {"deep": ["\0"]}})), "ignored.deep.0"),
        (app.post("/api/v1/conversations", json!({"title": "\0a"})), "title"),
        (app.put(&conversation, json!({"title": "\0a"})), "title"),
        (
            app.post(&format!("{conversation}/messages"), json!({"role": "user", "content": "\0"})),
            "content",
        ),
        (
            app.post(&format!("{conversation}/messages"), json!({"role": "\0", "content": "x"})),
            "role",
        ),
    ] {
        call.key(&key).send().await.invalid(&[&format!("body.{place}")]);
    }
    let by_name = app.get("/api/v1/users/username/a%00b").key(&key).send().await;
    by_name.invalid(&["path.username"]);
}

#[apply(on_both!)]
async fn an_invalid_id_in_a_path_is_a_422(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    for id in ["0", "-1", "abc", "1.5", "9223372036854775808", "1%202", "%F0%9F%90%99", "null"] {
        for (method, path, name) in [
            (Method::GET, format!("{KEYS}/{id}"), "api_key_id"),
            (Method::DELETE, format!("{KEYS}/{id}"), "api_key_id"),
            (Method::POST, format!("{KEYS}/{id}/rotate"), "api_key_id"),
            (Method::POST, format!("{KEYS}/{id}/deactivate"), "api_key_id"),
            (Method::GET, format!("/api/v1/users/{id}"), "user_id"),
            (Method::DELETE, format!("/api/v1/users/{id}"), "user_id"),
            (Method::GET, format!("/api/v1/conversations/{id}"), "conversation_id"),
            (Method::DELETE, format!("/api/v1/conversations/{id}"), "conversation_id"),
            (Method::GET, format!("/api/v1/conversations/{id}/messages"), "conversation_id"),
            (Method::GET, format!("/api/v1/conversations/user/{id}"), "user_id"),
            (Method::DELETE, format!("/api/v1/conversations/1/participants/{id}"), "user_id"),
        ] {
            let answer = app.call(method, &path).key(&key).send().await;
            answer.invalid(&[&format!("path.{name}")]);
        }
    }
    let both = app.delete("/api/v1/conversations/0/participants/x").key(&key).send().await;
    both.invalid(&["path.conversation_id", "path.user_id"]);
    let error = app.get("/api/v1/users/abc").key(&key).send().await.expect(422);
    let expected = json!({"detail": [{
        "type": "int_parsing",
        "loc": ["path", "user_id"],
        "msg": "Input should be a valid integer, unable to parse string as an integer",
        "input": "abc",
    }]});
    assert_eq!(error, expected);
}

#[apply(on_both!)]
async fn a_body_larger_than_the_limit_is_a_413(backend: Backend) {
    const REFUSAL: &str = "The request body is larger than 1000 bytes";
    let variables = [("RATE_LIMIT_ENABLED", "false"), ("MAX_BODY_BYTES", "1000")];
    let app = TestApp::with(&backend, &variables).await;
    let key = app.admin().await;
    let body = |n: usize| {
        let body = r#"{"title": "x"}"#;
        body.to_owned() + &" ".repeat(n - body.len())
    };
    app.act(CONVERSATIONS).key(&key).body(body(1001)).send().await.refused(413, REFUSAL);
    let head = format!(
        "POST {CONVERSATIONS} HTTP/1.1\r\nOctopus-API-Key: {key}\r\nTransfer-Encoding: chunked"
    );
    for length in [1001, 500_000] {
        let (status, text) = raw(&app, &head, &chunked(body(length).as_bytes())).await;
        assert!(status == 413 && text.contains(REFUSAL), "{text}");
    }
    let created = app.get(CONVERSATIONS).key(&key).send().await.expect(200);
    assert_eq!(created, json!([]));
    let (status, text) = raw(&app, &head, &chunked(body(1000).as_bytes())).await;
    assert_eq!(status, 201, "{text}");
}

#[apply(on_both!)]
async fn an_anonymous_upload_is_answered_not_broken_off(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let large = vec![b'x'; 5 * 1024 * 1024];
    app.act(CONVERSATIONS)
        .body(large.clone())
        .send()
        .await
        .refused(401, "API key required: send it in the header field Octopus-API-Key");
    let wrong = app.act(CONVERSATIONS).key("wrong").body(large.clone()).send().await;
    wrong.refused(401, "Invalid or inactive API Key");
    let registration = app.act("/api/v1/users").body(large.clone()).send().await;
    registration.expect(413);
    let head = format!("POST {CONVERSATIONS} HTTP/1.1\r\nTransfer-Encoding: chunked");
    let (status, text) = raw(&app, &head, &chunked(&large)).await;
    assert!(status == 401 && text.contains("API key required"), "{text}");
    app.act("/nothing").body(large).send().await.refused(404, "Not Found");
}

#[apply(on_both!)]
async fn a_valid_request_id_is_kept_and_others_are_replaced(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let longest = "x".repeat(128);
    for id in ["a", "01890a5d-ac96-774b-bcce-b302099a8057", &longest] {
        let answer = app.get("/health").header("x-request-id", id).send().await;
        assert_eq!(answer.header("x-request-id"), Some(id));
    }
    let too_long = "x".repeat(129);
    for id in ["", "a b", "a\tb", "a;b", "a\"b", "é", "<x>", &too_long] {
        let answer = app.get("/health").header("x-request-id", id).send().await;
        let given = answer.header("x-request-id").expect("an id");
        assert!(given != id && given.len() == 36, "{id}: {given}");
    }
    let ids = [app.get("/health").send().await, app.get("/health").send().await];
    assert_ne!(ids[0].header("x-request-id"), ids[1].header("x-request-id"));
}

#[apply(on_both!)]
async fn every_answer_has_a_request_id_and_security_headers(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let user = format!("{USERS}/{}", app.user("ada").await);
    let no_store = Some("no-store");
    for (status, cache, call) in [
        (200, None, app.get("/health")),
        (200, no_store, app.get(USERS).key(&key)),
        (204, no_store, app.delete(&user).key(&key)),
        (400, no_store, app.act("/bootstrap")),
        (401, no_store, app.get(USERS)),
        (401, no_store, app.get(USERS).key("wrong")),
        (404, no_store, app.get("/api/v1/users/999").key(&key)),
        (404, None, app.get("/nothing")),
        (405, None, app.delete(USERS).key(&key)),
        (413, no_store, app.act("/api/v1/users").body("x".repeat(40_000))),
        (415, no_store, app.act(KEYS).key(&key).header("content-type", "text/plain").body("x")),
        (422, no_store, app.post(KEYS, json!({})).key(&key)),
        (431, None, many_fields(app.get("/health"), 150)),
    ] {
        let answer = call.send().await;
        assert_eq!(answer.status, status, "{}", answer.text);
        assert!(answer.header("x-request-id").is_some_and(|id| id.len() == 36), "{status}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{status}");
        // Public responses have no cache directive.
        if cache.is_some() {
            assert_eq!(answer.header("cache-control"), cache, "{status}: {}", answer.text);
        }
        if status >= 400 {
            assert_eq!(answer.header("content-type"), Some("application/json"), "{status}");
            assert!(!answer["detail"].is_null(), "{}", answer.text);
        }
    }
}

#[apply(on_both!)]
async fn other_sites_are_allowed_nothing_by_default(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let get = app.get(USERS).key(&key).header("origin", "https://evil.example").send().await;
    let preflight = app
        .call(Method::OPTIONS, USERS)
        .header("origin", "https://evil.example")
        .header("access-control-request-method", "POST")
        .send()
        .await;
    for answer in [get, preflight] {
        let cors = answer.headers.keys().filter(|name| name.as_str().starts_with("access-control"));
        assert_eq!(cors.count(), 0, "{:?}", answer.headers);
    }
}

#[apply(on_both!)]
async fn configured_sites_may_read_answers(backend: Backend) {
    const ALLOWED: &str = "access-control-allow-origin";
    let variables = [
        ("RATE_LIMIT_ENABLED", "false"),
        ("CORS_ALLOWED_ORIGINS", "https://app.example.com, http://localhost:3000"),
    ];
    let app = TestApp::with(&backend, &variables).await;
    let key = app.admin().await;
    for (origin, allowed) in [
        ("https://app.example.com", Some("https://app.example.com")),
        ("http://localhost:3000", Some("http://localhost:3000")),
        ("https://evil.example", None),
        ("http://app.example.com", None),
        ("https://app.example.com.evil.example", None),
        ("null", None),
    ] {
        // Error responses must be readable, too.
        for call in [app.get(USERS).key(&key), app.get(USERS), app.get("/nothing")] {
            let answer = call.header("origin", origin).send().await;
            assert_eq!(answer.header(ALLOWED), allowed, "{origin}");
            assert_eq!(answer.header("access-control-allow-credentials"), None);
        }
        let preflight = app
            .call(Method::OPTIONS, USERS)
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "octopus-api-key,content-type")
            .send()
            .await;
        assert_eq!(preflight.header(ALLOWED), allowed, "{origin}");
        if allowed.is_some() {
            let headers = preflight.header("access-control-allow-headers").unwrap_or_default();
            assert!(headers.contains("octopus-api-key") && headers.contains("content-type"));
            let methods = preflight.header("access-control-allow-methods").unwrap_or_default();
            assert!(methods.contains("PATCH") && methods.contains("DELETE"), "{methods}");
            preflight.expect(200);
        }
    }
    let answer = app.get(USERS).key(&key).header("origin", "https://app.example.com").send().await;
    let exposed = answer.header("access-control-expose-headers").unwrap_or_default();
    assert!(exposed.contains("x-request-id") && exposed.contains("retry-after"), "{exposed}");
    assert!(varies_by(&answer, "origin"));
}

/// Every string in `value` that is a timestamp.
fn times(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(entries) => entries.iter().flat_map(times).collect(),
        Value::Object(entries) => {
            let own =
                entries.iter().filter(|(name, _)| name.ends_with("_at") || *name == "timestamp");
            let own = own.filter_map(|(_, value)| value.as_str());
            own.chain(entries.values().flat_map(times)).collect()
        }
        _ => vec![],
    }
}

#[apply(on_both!)]
async fn times_are_returned_in_utc_with_six_digits(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let conversation = app.conversation(&key, &[app.user("alice").await]).await;
    let message = json!({"role": "user", "content": "hello"});
    app.post(&format!("/api/v1/conversations/{conversation}/messages"), message)
        .key(&key)
        .send()
        .await;
    for (path, at_least) in [
        ("/api/v1/users", 1),
        ("/api/v1/users/1", 2),
        ("/api/v1/conversations", 3),
        ("/api/v1/api-keys/me", 2),
        ("/api/v1/api-keys/audit-logs", 1),
    ] {
        let answer = app.get(path).key(&key).send().await.expect(200);
        let times = times(&answer);
        assert!(times.len() >= at_least, "{path}: {answer}");
        for time in times {
            let shape: String =
                time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
            assert_eq!(shape, "0000-00-00T00:00:00.000000Z", "{path}: {time}");
        }
    }
}

#[apply(on_both!)]
async fn times_are_accepted_with_any_offset(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    for (sent, stored) in [
        ("2099-01-01T00:00:00Z", "2099-01-01T00:00:00.000000Z"),
        ("2099-01-01T00:00:00", "2099-01-01T00:00:00.000000Z"),
        ("2099-01-01 00:00:00", "2099-01-01T00:00:00.000000Z"),
        ("2099-01-01T02:00:00+02:00", "2099-01-01T00:00:00.000000Z"),
        ("2098-12-31T18:30:00-05:30", "2099-01-01T00:00:00.000000Z"),
        ("2099-01-01T00:00:00.1Z", "2099-01-01T00:00:00.100000Z"),
        ("2099-01-01T00:00:00.123456789+00:00", "2099-01-01T00:00:00.123456Z"),
    ] {
        let body = json!({"name": "k", "expires_at": sent});
        let created = app.post(KEYS, body).key(&key).send().await.expect(201);
        assert_eq!(created["expires_at"], stored, "{sent}");
        let path = format!("{KEYS}/{}", created["id"]);
        let read = app.get(&path).key(&key).send().await.expect(200);
        assert_eq!(read["expires_at"], stored, "{sent}");
    }
    for sent in
        ["tomorrow", "", "2099-13-01T00:00:00Z", "2099-02-30T00:00:00Z", "12099-01-01T00:00:00Z"]
    {
        let body = json!({"name": "k", "expires_at": sent});
        app.post(KEYS, body).key(&key).send().await.invalid(&["body.expires_at"]);
    }
    let since = "/api/v1/api-keys/audit-logs?since=2020-01-01T00:00:00%2B02:00";
    assert!(!app.get(since).key(&key).send().await.expect(200).as_array().unwrap().is_empty());
    let until = app.get("/api/v1/api-keys/audit-logs?until=never").key(&key).send().await;
    until.invalid(&["query.until"]);
}

#[apply(on_both!)]
async fn answers_are_compressed_when_asked_for(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    for _ in 0..10 {
        app.conversation(&key, &[]).await;
    }
    let short = app.get(&format!("{CONVERSATIONS}?limit=1")).key(&key);
    let short = short.header("accept-encoding", "gzip, br").send().await;
    assert_eq!(short.header("content-encoding"), None, "a packet has room for it");
    let plain = app.get(CONVERSATIONS).key(&key).send().await;
    assert_eq!(plain.header("content-encoding"), None);
    let asked = app.get(CONVERSATIONS).key(&key).header("accept-encoding", "gzip").send().await;
    assert_eq!(asked.header("content-encoding"), Some("gzip"));
    assert!(asked.text.starts_with('\u{1f}'), "the mark of gzip");
    assert!(varies_by(&asked, "accept-encoding"));
    let unknown = app.get(CONVERSATIONS).key(&key).header("accept-encoding", "br, zstd");
    let unknown = unknown.send().await;
    assert_eq!(unknown.header("content-encoding"), None);
    assert_eq!(unknown.expect(200), plain.expect(200));
}

#[apply(on_both!)]
async fn too_large_a_head_is_a_431_in_json(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let long = "x".repeat(40_000);
    for call in [
        many_fields(app.get("/health"), 150),
        app.get("/health").header("x-field", &long),
        app.get(&format!("/health?{long}")),
    ] {
        call.send().await.refused(431, "The request has too many or too large header fields");
    }
    many_fields(app.get("/health"), 80).send().await.expect(200);
}

#[apply(on_both!)]
async fn head_answers_like_get_without_a_body(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    app.user("ada").await;
    for path in ["/", "/health", "/ready", "/openapi.json", USERS, "/api/v1/users/1"] {
        let get = app.get(path).key(&key).send().await;
        let head = app.call(Method::HEAD, path).key(&key).send().await;
        assert_eq!((head.status, &*head.text), (200, ""), "{path}");
        for name in ["content-type", "content-length", "cache-control"] {
            assert_eq!(head.header(name), get.header(name), "{path}: {name}");
        }
    }
    let anonymous = app.call(Method::HEAD, USERS).send().await;
    assert_eq!((anonymous.status, &*anonymous.text), (401, ""));
    let unknown = app.call(Method::HEAD, "/nothing").send().await;
    assert_eq!((unknown.status, &*unknown.text), (404, ""));
}
