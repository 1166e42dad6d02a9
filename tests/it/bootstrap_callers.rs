//! Callers of `/bootstrap`: requests that a web page can make a browser send are refused, and so
//! are requests from public addresses without a token.

use crate::support::process::Server;
use crate::support::{Answer, Backend, Call, TestApp};

const OTHER_HOST: &str = "Without a token, bootstrap accepts only requests for an IP address, \
    localhost or a name in ALLOWED_HOSTS: the header field Host has another name";
const OTHER_ORIGIN: &str = "Bootstrap cannot be called from a page of another origin: the header field \
    Origin does not match Host";
const PUBLIC: &str = "Bootstrap from a public address, or through a proxy that is not in \
    TRUSTED_PROXIES, needs the token in the header field Octopus-Bootstrap-Token: set BOOTSTRAP_TOKEN, \
    or take the token that the server logged when it started";
const KEYS: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys";

fn call(app: &TestApp, host: &str) -> Call {
    app.act("/bootstrap").header("Host", host)
}

/// The token generated at this start.
fn token(app: &TestApp) -> String {
    use secrecy::ExposeSecret;
    app.state.bootstrap_token.get().expect("a token was made").expose_secret().to_owned()
}

/// Asserts that `answer` is this refusal, and that no key was created.
async fn refused(app: &TestApp, answer: Answer, detail: &str) {
    answer.refused(403, detail);
    assert_eq!(app.number(KEYS).await, 0);
}

#[apply(on_both!)]
async fn a_host_name_usable_for_dns_rebinding_is_refused(backend: Backend) {
    for host in ["localhost:8000", "LOCALHOST", "127.0.0.1:8000", "[::1]:8000", "octopus.example:1"]
    {
        let backend = backend.another();
        let app =
            TestApp::with(&backend, &[("ALLOWED_HOSTS", "other.example, Octopus.Example")]).await;
        for other in ["evil.example", "evil.example:8000", "localhost.evil.example", "x.localhost"]
        {
            refused(&app, call(&app, other).send().await, OTHER_HOST).await;
        }
        call(&app, host).send().await.expect(200);
        app.stop().await.unwrap();
        backend.remove().await;
    }
}

#[apply(on_both!)]
async fn an_origin_must_match_the_host(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let with = |origin: &'static str| call(&app, "localhost:8000").header("Origin", origin);
    for origin in
        ["https://evil.example", "null", "http://localhost:8001", "http://127.0.0.1:8000", "é"]
    {
        refused(&app, with(origin).send().await, OTHER_ORIGIN).await;
    }
    let two = with("http://localhost:8000").header("Origin", "https://evil.example");
    refused(&app, two.send().await, OTHER_ORIGIN).await;
    // A form of another site with a different content type, in a browser without `Sec-Fetch-Site`.
    let form = with("https://evil.example").header("Content-Type", "text/plain").body("x");
    refused(&app, form.send().await, OTHER_ORIGIN).await;
    // The page of /docs.
    with("http://localhost:8000").header("Sec-Fetch-Site", "same-origin").send().await.expect(200);
}

#[apply(on_both!)]
async fn with_a_token_any_host_is_accepted_but_no_other_origin(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let token = token(&app);
    let with = || call(&app, "octopus.example").header("Octopus-Bootstrap-Token", &token);
    let other = with().header("Origin", "https://evil.example");
    refused(&app, other.send().await, OTHER_ORIGIN).await;
    let cross = with().header("Sec-Fetch-Site", "cross-site");
    refused(&app, cross.send().await, "Bootstrap cannot be called from another web site").await;
    // Also after the window for callers without a token is closed.
    app.advance(chrono::TimeDelta::hours(2));
    with().header("Origin", "https://octopus.example").send().await.expect(200);
}

#[apply(on_both!)]
async fn a_public_client_named_by_a_trusted_proxy_needs_the_token(backend: Backend) {
    let app = TestApp::with(&backend, &[("TRUSTED_PROXIES", "127.0.0.1")]).await;
    let from = |client: &'static str| app.act("/bootstrap").header("X-Forwarded-For", client);
    for public in
        ["203.0.113.9", "2001:db8::9", "10.0.0.1, 203.0.113.9", "100.64.0.1", "::ffff:8.8.8.8"]
    {
        refused(&app, from(public).send().await, PUBLIC).await;
    }
    let wrong = from("203.0.113.9").header("Octopus-Bootstrap-Token", "octb_wrong");
    refused(&app, wrong.send().await, PUBLIC).await;
    let right = from("203.0.113.9").header("Octopus-Bootstrap-Token", token(&app));
    right.send().await.expect(200);
}

#[apply(on_both!)]
async fn a_client_behind_an_unknown_proxy_needs_the_token(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let through_proxy = || app.act("/bootstrap").header("X-Forwarded-For", "10.0.0.1");
    refused(&app, through_proxy().send().await, PUBLIC).await;
    for (field, value) in [
        ("Forwarded", "for=203.0.113.9"),
        ("Via", "1.1 proxy"),
        ("X-Real-IP", "203.0.113.9"),
        ("X-Forwarded-Host", "localhost"),
        ("X-Forwarded-Prefix", "/octopus"),
        ("X-Forwarded-Proto", "https"),
    ] {
        let call = app.act("/bootstrap").header(field, value);
        refused(&app, call.send().await, PUBLIC).await;
    }
    let with_token = through_proxy().header("Octopus-Bootstrap-Token", token(&app));
    with_token.send().await.expect(200);
}

#[apply(on_both!)]
async fn the_configured_token_is_the_only_one(backend: Backend) {
    let variables = [("BOOTSTRAP_TOKEN", "x9Kq-Tw7z_Bn4Lr2"), ("TRUSTED_PROXIES", "127.0.0.1")];
    let app = TestApp::with(&backend, &variables).await;
    assert!(app.state.bootstrap_token.get().is_none());
    let call = |token: &'static str| {
        let call = call(&app, "octopus.example").header("X-Forwarded-For", "203.0.113.9");
        call.header("Octopus-Bootstrap-Token", token)
    };
    call("another").send().await.expect(403);
    call("x9Kq-Tw7z_Bn4Lr2").send().await.expect(200);
}

#[apply(on_both!)]
async fn the_server_logs_a_ready_made_command_while_there_is_no_key(backend: Backend) {
    let server = Server::start(&backend, &[("TRUSTED_PROXIES", "127.0.0.1")]).await;
    let events = server.events("bootstrap.token");
    assert_eq!(events.len(), 1, "{}", server.log());
    let message = events[0]["message"].as_str().unwrap();
    let (_, command) = message.split_once("curl ").expect("a command");
    // From a public address.
    let command = format!("curl -sS -H 'X-Forwarded-For: 203.0.113.9' {command}");
    let output = std::process::Command::new("sh").args(["-c", &command]).output().unwrap();
    let answer = String::from_utf8_lossy(&output.stdout);
    assert!(answer.contains("Bootstrap successful"), "{command}: {answer}");
}

#[apply(on_both!)]
async fn no_token_is_generated_with_a_key_or_a_configured_token(backend: Backend) {
    let server =
        Server::start(&backend, &[("BOOTSTRAP_TOKEN", "the right token of the test")]).await;
    assert!(server.events("bootstrap.token").is_empty());
    assert_eq!(server.stop().0, Some(0));
    let app = TestApp::new(&backend).await;
    app.admin().await;
    app.stop().await.unwrap();
    let server = Server::start(&backend, &[]).await;
    assert!(server.events("bootstrap.token").is_empty(), "{}", server.log());
}
