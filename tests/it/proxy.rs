//! Octopus behind a proxy: weak tags, `PUBLIC_URL`, `X-Forwarded-Prefix`, and conditional requests.

use crate::support::{Answer, Backend, Call, TestApp};
use reqwest::Method;
use serde_json::{Value, json};

const USERS: &str = "/api/v1/users";
const TRUSTED: (&str, &str) = ("TRUSTED_PROXIES", "127.0.0.1");
const UNLIMITED: (&str, &str) = ("RATE_LIMIT_ENABLED", "false");

/// The next page of the first user, as its link names it.
async fn next_link(app: &TestApp, key: &str, prefixes: &[&str]) -> String {
    let mut call = app.get(&format!("{USERS}?limit=1")).key(key);
    for prefix in prefixes {
        call = call.header("X-Forwarded-Prefix", prefix);
    }
    let answer = call.send().await;
    answer.link("next").expect("there is another page")
}

/// The response to a GET whose redirect is not followed.
async fn without_redirect(app: &TestApp, path: &str, prefix: Option<&str>) -> Answer {
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    let client = client.build().unwrap();
    let call = Call::new(client.get(format!("http://{}{path}", app.address)));
    let call = match prefix {
        Some(prefix) => call.header("X-Forwarded-Prefix", prefix),
        None => call,
    };
    call.send().await
}

async fn two_users(app: &TestApp) -> String {
    let key = app.admin().await;
    app.user("ada").await;
    app.user("ben").await;
    key
}

#[apply(on_both!)]
async fn links_redirects_and_documents_have_the_prefix_of_a_trusted_proxy(backend: Backend) {
    let app = TestApp::with(&backend, &[TRUSTED, UNLIMITED]).await;
    let key = two_users(&app).await;
    let link = next_link(&app, &key, &["/octopus/"]).await;
    assert!(link.starts_with("/octopus/api/v1/users?limit=1&after="), "{link}");
    let next = app.get(link.strip_prefix("/octopus").unwrap()).key(&key).send().await;
    assert_eq!(next.expect(200)[0]["username"], "ben");

    let docs = without_redirect(&app, "/docs", Some("/octopus")).await;
    assert_eq!((docs.status, docs.header("location")), (303, Some("/octopus/docs/")));
    let document = app.get("/openapi.json").header("X-Forwarded-Prefix", "/octopus").send().await;
    let tag = document.header("etag").unwrap().to_owned();
    let mut document = document.expect(200);
    let servers = document.as_object_mut().unwrap().remove("servers");
    assert_eq!(servers, Some(json!([{"url": "/octopus"}])));
    assert_eq!(document, app.get("/openapi.json").send().await.expect(200));
    let again = app.get("/openapi.json").header("If-None-Match", &tag);
    let again = again.header("X-Forwarded-Prefix", "/octopus").send().await;
    assert_eq!((again.status, &*again.text), (304, ""));
    let other = app.get("/openapi.json").header("If-None-Match", &tag);
    other.header("X-Forwarded-Prefix", "/other").send().await.expect(200);
    let hello = app.get("/").header("X-Forwarded-Prefix", "/octopus").send().await;
    assert_eq!(hello["message"], "Hello! Visit /octopus/docs for API documentation");
}

#[apply(on_both!)]
async fn without_a_prefix_the_documentation_works_below_any_path(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let docs = without_redirect(&app, "/docs", None).await;
    assert_eq!((docs.status, docs.header("location")), (303, Some("docs/")));
    let initializer = app.get("/docs/swagger-initializer.js").send().await;
    assert!(initializer.text.contains("\"../openapi.json\""), "{}", initializer.text);
}

#[apply(on_both!)]
async fn an_invalid_prefix_is_ignored(backend: Backend) {
    let app = TestApp::with(&backend, &[TRUSTED, UNLIMITED]).await;
    let key = two_users(&app).await;
    let long = format!("/{}", "x".repeat(128));
    for prefixes in [
        &["//evil.example"][..],
        &["https://evil.example"],
        &["octopus"],
        &["/a/../b"],
        &["/a//b"],
        &["/a>; rel=\"next\", </b"],
        &["/a%2f"],
        &["/a, /b"],
        &["/a", "/b"],
        &[&long],
    ] {
        let link = next_link(&app, &key, prefixes).await;
        assert!(link.starts_with("/api/v1/users?"), "{prefixes:?}: {link}");
    }
}

#[apply(on_both!)]
async fn a_prefix_of_an_untrusted_peer_is_ignored(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = two_users(&app).await;
    let link = next_link(&app, &key, &["/octopus"]).await;
    assert!(link.starts_with("/api/v1/users?"), "{link}");
    let docs = without_redirect(&app, "/docs", Some("/octopus")).await;
    assert_eq!(docs.header("location"), Some("docs/"));
}

#[apply(on_both!)]
async fn public_url_makes_links_absolute_and_counts_before_a_prefix(backend: Backend) {
    let variables = [TRUSTED, UNLIMITED, ("PUBLIC_URL", "https://www.example.com/octopus/")];
    let app = TestApp::with(&backend, &variables).await;
    let key = two_users(&app).await;
    let link = next_link(&app, &key, &["/other"]).await;
    assert!(link.starts_with("https://www.example.com/octopus/api/v1/users?limit=1"), "{link}");
    let docs = without_redirect(&app, "/docs", None).await;
    assert_eq!(docs.header("location"), Some("https://www.example.com/octopus/docs/"));
    let document = app.get("/openapi.json").send().await.expect(200);
    assert_eq!(document["servers"], json!([{"url": "https://www.example.com/octopus"}]));
}

#[apply(on_both!)]
async fn a_tag_that_a_proxy_made_weak_works_in_if_match(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let path = message(&app, &key).await;
    let tag = app.get(&path).key(&key).send().await.header("etag").unwrap().to_owned();
    let edit = |tag: String| {
        app.patch(&path, json!({"content": "edited"})).key(&key).header("If-Match", tag)
    };
    let edited = edit(format!("W/{tag}")).send().await;
    assert_eq!(edited.header("etag"), Some("\"2\""));
    edit(format!("W/{tag}")).send().await.expect(412);
    let delete = app.delete(&path).key(&key);
    delete.header("If-Match", "W/\"2\"").send().await.expect(204);
}

/// Creates a message. Returns its path.
async fn message(app: &TestApp, key: &str) -> String {
    let conversation = app.conversation(key, &[]).await;
    let path = format!("/api/v1/conversations/{conversation}/messages");
    let body = json!({"role": "user", "content": "hello"});
    let answer = app.post(&path, body).key(key).send().await.expect(201);
    format!("{path}/{}", answer["id"])
}

#[apply(on_both!)]
async fn a_single_resource_that_the_client_knows_is_a_304(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let user = format!("{USERS}/{}", app.user("ada").await);
    let (_, unused) = app.key(&admin, "read").await;
    let message = message(&app, &admin).await;
    let (conversation, _) = message.split_once("/messages").unwrap();
    let unused = format!("/api/v1/api-keys/{unused}");
    for path in [&*message, conversation, &*user, &*unused] {
        let first = app.get(path).key(&admin).send().await;
        assert_eq!(first.status, 200, "{}", first.text);
        let tag = first.header("etag").expect(path).to_owned();
        let get = |known: String| app.get(path).key(&admin).header("If-None-Match", known);
        for known in [tag.clone(), format!("\"x\", {tag}"), "*".to_owned()] {
            let again = get(known).send().await;
            assert_eq!((again.status, &*again.text), (304, ""), "{path}");
            assert_eq!(again.header("etag"), Some(&*tag), "{path}");
            assert_eq!(again.header("content-type"), None, "{path}");
            assert_eq!(again.header("cache-control"), Some("no-store"), "{path}");
        }
        assert_eq!(get("\"x\"".to_owned()).send().await.expect(200), first.body, "{path}");
        // The tag gives no access.
        app.get(path).header("If-None-Match", "*").send().await.expect(401);
        let head = app.call(Method::HEAD, path).key(&admin).send().await;
        assert_eq!(head.header("etag"), Some(&*tag), "{path}");
    }
    let tag = app.get(&message).key(&admin).send().await.header("etag").unwrap().to_owned();
    let edit = app.patch(&message, json!({"content": "edited"})).key(&admin);
    edit.send().await.expect(200);
    for path in [&*message, conversation] {
        let answer = app.get(path).key(&admin).header("If-None-Match", &tag).send().await;
        assert_eq!(answer.status, 200, "{path} has changed");
    }
    let missing = app.get("/api/v1/users/999").key(&admin).header("If-None-Match", "*");
    missing.send().await.expect(404);
}

#[apply(on_both!)]
async fn a_preflight_allows_the_header_fields_of_browsers_and_tracing(backend: Backend) {
    let origin = "https://app.example.com";
    let app = TestApp::with(&backend, &[("CORS_ALLOWED_ORIGINS", origin)]).await;
    let names = [
        "if-match",
        "if-none-match",
        "cache-control",
        "traceparent",
        "tracestate",
        "baggage",
        "last-event-id",
        "idempotency-key",
    ];
    let preflight = app.call(Method::OPTIONS, USERS).header("origin", origin);
    let preflight = preflight
        .header("access-control-request-method", "GET")
        .header("access-control-request-headers", names.join(","))
        .send()
        .await;
    let allowed = preflight.header("access-control-allow-headers").unwrap_or_default();
    let allowed: Vec<&str> = allowed.split(',').map(str::trim).collect();
    for name in names {
        assert!(allowed.contains(&name), "{name}: {allowed:?}");
    }
    assert_eq!(preflight.expect(200), Value::Null);
}
