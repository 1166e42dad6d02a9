//! Requests that a page of another site can make a browser send, and heads without a valid `Host`.

use crate::support::{Backend, Call, TestApp};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::Method;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const FORM_LIKE: &str = "A browser's request must have a Content-Type that no HTML form can send: \
    application/json, or application/x-ndjson for an import";
const USERS: &str = "/api/v1/users";

/// Every operation with an unsafe method, with a path whose parameters are filled in.
fn unsafe_operations() -> Vec<(Method, String)> {
    let document = serde_json::to_value(octopus::api::document()).unwrap();
    let parameter = regex::Regex::new(r"\{\w+\}").unwrap();
    let mut operations = vec![];
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys().filter(|method| *method != "get") {
            let filled = parameter.replace_all(path, "1").into_owned();
            operations.push((method.to_uppercase().parse().unwrap(), filled));
        }
    }
    assert!(operations.len() > 25, "operations are missing");
    operations
}

#[apply(on_both!)]
async fn no_unsafe_route_accepts_a_form_of_another_site(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let types = [
        None,
        Some("text/plain"),
        Some("text/plain;charset=UTF-8"),
        Some("application/x-www-form-urlencoded"),
        Some("multipart/form-data; boundary=x"),
        Some("TEXT/PLAIN; application/json"),
    ];
    let registration =
        json!({"username": "eve", "email": "eve@example.com", "password": "correct horse battery"});
    for (method, path) in unsafe_operations() {
        for kind in types {
            for body in ["", "{}", &registration.to_string()] {
                let call = app.call(method.clone(), &path).header("Origin", "https://evil.example");
                let call = call.header("Sec-Fetch-Site", "cross-site");
                let call = call.header("Sec-Fetch-Mode", "no-cors").body(body.to_owned());
                let call = match kind {
                    Some(kind) => call.header("Content-Type", kind),
                    None => call,
                };
                let answer = call.send().await;
                let expected = if path == "/bootstrap" { 403 } else { 415 };
                assert_eq!(
                    answer.status, expected,
                    "{method} {path} {kind:?} {body}: {}",
                    answer.text
                );
            }
        }
    }
    for table in [
        "SELECT CAST(COUNT(*) AS BIGINT) FROM users",
        "SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys",
    ] {
        assert_eq!(app.number(table).await, 0, "{table}");
    }
}

fn registration(app: &TestApp, name: &str) -> Call {
    let email = format!("{name}@example.com");
    let body = json!({"username": name, "email": email, "password": "correct horse battery"});
    app.act(USERS).body(body.to_string())
}

#[apply(on_both!)]
async fn a_browser_request_without_a_content_type_is_refused_and_other_requests_are_not(
    backend: Backend,
) {
    let app = TestApp::new(&backend).await;
    let own = format!("http://{}", app.address);
    for (name, value) in [
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Origin", &*own),
        ("Sec-Fetch-Site", "same-origin"),
        ("Sec-Fetch-Mode", "cors"),
        ("Sec-Fetch-Dest", "empty"),
    ] {
        registration(&app, "ada").header(name, value).send().await.refused(415, FORM_LIKE);
    }
    assert_eq!(app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM users").await, 0);
    registration(&app, "ada").send().await.expect(201);
    let typed = registration(&app, "ben").header("Content-Type", "application/json");
    typed.header("Origin", own).send().await.expect(201);
}

#[apply(on_both!)]
async fn a_browser_request_without_a_body_needs_the_same_origin_or_a_credential(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let clean_up = || app.act("/api/v1/api-keys/cleanup-expired");
    clean_up().header("Origin", "https://evil.example").send().await.refused(415, FORM_LIKE);
    clean_up().header("Sec-Fetch-Site", "same-site").send().await.refused(415, FORM_LIKE);
    // As the page of /docs sends it before and after authorization.
    clean_up().header("Sec-Fetch-Site", "same-origin").send().await.expect(401);
    let own = format!("http://{}", app.address);
    clean_up().header("Origin", &own).send().await.expect(401);
    clean_up().header("Origin", &own).key(&admin).send().await.expect(200);
    // As a page in CORS_ALLOWED_ORIGINS sends it, after a preflight request for the key.
    clean_up().header("Origin", "https://app.example").key(&admin).send().await.expect(200);
}

/// The raw response to these bytes.
async fn response_to(app: &TestApp, head: &str) -> String {
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![];
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[apply(on_both!)]
async fn exactly_one_valid_host_is_required(backend: Backend) {
    let app = TestApp::new(&backend).await;
    for (version, fields, status) in [
        ("1.1", "Host: localhost\r\n", 200),
        ("1.1", "", 400),
        ("1.1", "Host: localhost\r\nHost: localhost\r\n", 400),
        ("1.1", "Host: localhost\r\nhost: evil.example\r\n", 400),
        ("1.1", "Host: evil example\r\n", 400),
        ("1.1", "Host: user@localhost\r\n", 400),
        ("1.1", "Host: localhost:port\r\n", 400),
        ("1.0", "", 200),
        ("1.0", "Host: a.example\r\nHost: b.example\r\n", 400),
    ] {
        for path in ["/health", "/openapi.json", "/docs/"] {
            let head = format!("GET {path} HTTP/{version}\r\n{fields}Connection: close\r\n\r\n");
            let answer = response_to(&app, &head).await;
            assert_eq!(answer.split(' ').nth(1), Some(&*status.to_string()), "{head}{answer}");
            let is_json = answer.contains("{\"detail\":\"The ");
            assert_eq!(is_json, status == 400, "{answer}");
        }
    }
    // The host in the request target takes precedence over Host.
    let head = "POST http://evil.example/bootstrap HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = response_to(&app, head).await;
    assert!(answer.contains(" 403 ") && answer.contains("ALLOWED_HOSTS"), "{answer}");
}

#[apply(on_both!)]
async fn no_page_stores_a_key_or_has_inline_scripts(backend: Backend) {
    let app = TestApp::new(&backend).await;
    for path in ["/docs/", "/docs/swagger-initializer.js", "/docs/swagger-ui.css", "/openapi.json"]
    {
        let answer = app.get(path).send().await;
        let policy = answer.header("content-security-policy").expect(path);
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    }
    let page = app.get("/docs/").send().await.text;
    let scripts = regex::Regex::new(r"(?s)<script[^>]*>(.*?)</script>").unwrap();
    assert!(scripts.captures_iter(&page).count() > 1, "{page}");
    assert!(scripts.captures_iter(&page).all(|script| script[1].trim().is_empty()), "{page}");
    assert!(!page.contains("<style") && !page.contains("style="), "{page}");
    // A style that the script adds and the policy allows by its hash.
    let bundle = app.get("/docs/swagger-ui-standalone-preset.js").send().await;
    let style = ".logo_small_svg__cls-2{fill:#fff}.logo_small_svg__cls-3{fill:#85ea2d}";
    assert!(bundle.text.contains(style), "the logo has another style: name its hash in the policy");
    let hash = BASE64_STANDARD.encode(Sha256::digest(style));
    assert!(
        bundle.header("content-security-policy").unwrap().contains(&format!("'sha256-{hash}'"))
    );
    let set_up = app.get("/docs/swagger-initializer.js").send().await.text;
    assert!(!set_up.contains("persistAuthorization\": true"), "{set_up}");
    assert!(set_up.contains("\"validatorUrl\": \"none\""), "{set_up}");
}
