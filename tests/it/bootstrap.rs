//! Creation of the first key with `/bootstrap` or `MASTER_API_KEY`, which works exactly once.

use crate::support::process::{Server, octopus_on, output_text};
use crate::support::{Backend, TestApp};
use chrono::TimeDelta;
use octopus::core::config::Config;
use octopus::security::secret::TokenKind;
use serde_json::json;

const TOKEN: &str = "8f0c-lamp-otter-violet-317";
const MASTER: &str = "a-master-key-of-32-characters-or-more";
const COMPLETED: &str =
    "Bootstrap already completed. Use an admin API key to create more API keys.";

#[apply(on_both!)]
async fn bootstrap_returns_the_first_key_with_instructions(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let answer = app.act("/bootstrap").send().await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let body = answer.expect(200);
    let mut fields: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["api_key", "instructions", "message", "name", "scopes"]);
    assert_eq!(
        (&body["name"], &body["scopes"]),
        (&"Master API Key".into(), &"admin,read,write".into())
    );
    assert!(body["message"].is_string());
    let instructions = body["instructions"].as_object().unwrap();
    assert_eq!(instructions.keys().collect::<Vec<_>>(), ["1", "2", "3"]);
    assert!(instructions.values().all(|step| step.as_str().is_some_and(|s| !s.is_empty())));

    let key = body["api_key"].as_str().unwrap();
    assert!(key.len() == 57 && key.starts_with("octopus_"), "{key}");
    let me = app.get("/api/v1/api-keys/me").key(key).send().await.expect(200);
    assert_eq!((&me["name"], &me["scopes"]), (&body["name"], &body["scopes"]));
    assert_eq!((&me["expires_at"], &me["allowed_ips"]), (&json!(null), &json!(null)));
    let logs = app.get("/api/v1/api-keys/audit-logs").key(key).send().await.expect(200);
    assert_eq!(logs.as_array().unwrap().len(), 1, "{logs}");
    assert_eq!(logs[0]["action"], "bootstrap");
    assert_eq!(
        (&logs[0]["api_key_id"], &logs[0]["performed_by_key_id"]),
        (&me["id"], &json!(null))
    );
    assert_eq!(logs[0]["performed_by_ip"], "127.0.0.1");
}

#[apply(on_both!)]
async fn bootstrap_works_once_and_then_reveals_no_count(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let first = app.act("/bootstrap").send().await.expect(200);
    app.act("/bootstrap").send().await.refused(400, COMPLETED);
    // Also after the first key is deleted.
    let key = first["api_key"].as_str().unwrap();
    app.key(key, "admin").await;
    let (second, _) = app.key(key, "admin").await;
    app.delete("/api/v1/api-keys/1").key(&second).send().await.expect(204);
    app.act("/bootstrap").send().await.refused(400, COMPLETED);
}

#[apply(on_both!)]
async fn of_64_concurrent_callers_exactly_one_gets_the_key(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let answers = app.send_concurrently(64, || app.act("/bootstrap")).await;
    let won = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(won, 1);
    for answer in answers.into_iter().filter(|answer| answer.status != 200) {
        answer.refused(400, COMPLETED);
    }
    assert_eq!(app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys").await, 1);
    assert_eq!(app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM api_key_audit_logs").await, 1);
}

#[apply(on_both!)]
async fn the_host_and_64_concurrent_callers_create_one_key(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let from_command_line = octopus::features::api_keys::bootstrap::from_command_line(&app.state);
    let (from_command_line, answers) =
        tokio::join!(from_command_line, app.send_concurrently(64, || app.act("/bootstrap")));
    let won = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(won + usize::from(from_command_line.is_ok()), 1);
    assert_eq!(app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys").await, 1);
}

#[apply(on_both!)]
async fn a_bootstrap_token_is_checked_before_anything_else(backend: Backend) {
    let app = TestApp::with(&backend, &[("BOOTSTRAP_TOKEN", TOKEN)]).await;
    let missing = app.act("/bootstrap").send().await;
    assert_eq!(missing.status, 403, "{}", missing.text);
    assert!(missing["detail"].as_str().unwrap().contains("Octopus-Bootstrap-Token"));
    let with = |token: &'static str| app.act("/bootstrap").header("Octopus-Bootstrap-Token", token);
    for wrong in ["", "the wrong token", &TOKEN[1..], "8f0c-lamp-otter-violet-3172", "\u{e9}"] {
        with(wrong).send().await.expect(403);
    }
    with(TOKEN).send().await.expect(200);
    // Without the right token, the response does not reveal whether a key exists.
    with("the wrong token").send().await.expect(403);
    app.act("/bootstrap").send().await.expect(403);
    with(TOKEN).send().await.refused(400, COMPLETED);
}

#[apply(on_both!)]
async fn a_browser_request_from_another_site_is_refused(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.act("/bootstrap").header("Sec-Fetch-Site", "cross-site").send().await.expect(403);
    assert_eq!(app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys").await, 0);
    app.act("/bootstrap").header("Sec-Fetch-Site", "same-origin").send().await.expect(200);
}

#[apply(on_both!)]
async fn bootstrap_closes_an_hour_after_the_start(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.advance(TimeDelta::minutes(61));
    let answer = app.act("/bootstrap").send().await;
    assert_eq!(answer.status, 403, "{}", answer.text);
    let detail = answer["detail"].as_str().unwrap();
    assert!(detail.contains("`octopus bootstrap`") && detail.contains("restart"), "{detail}");
    assert_eq!(app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys").await, 0);
    // The command line still works, and afterwards bootstrap is completed.
    app.admin().await;
    app.act("/bootstrap").send().await.refused(400, COMPLETED);
}

#[apply(on_both!)]
async fn a_window_of_zero_minutes_never_closes(backend: Backend) {
    let app = TestApp::with(&backend, &[("BOOTSTRAP_WINDOW_MINUTES", "0")]).await;
    app.advance(TimeDelta::days(1000));
    app.act("/bootstrap").send().await.expect(200);
}

#[apply(on_both!)]
async fn a_bootstrap_token_works_after_the_window(backend: Backend) {
    let variables = [("BOOTSTRAP_TOKEN", TOKEN), ("BOOTSTRAP_WINDOW_MINUTES", "1")];
    let app = TestApp::with(&backend, &variables).await;
    app.advance(TimeDelta::minutes(61));
    let call = app.act("/bootstrap").header("Octopus-Bootstrap-Token", TOKEN);
    call.send().await.expect(200);
}

#[apply(on_both!)]
async fn a_configured_master_key_is_registered_at_the_start(backend: Backend) {
    let app = TestApp::with(&backend, &[("MASTER_API_KEY", MASTER)]).await;
    app.act("/bootstrap").send().await.refused(400, COMPLETED);
    let me = app.get("/api/v1/api-keys/me").key(MASTER).send().await.expect(200);
    assert_eq!(
        (&me["name"], &me["scopes"]),
        (&"Master API Key".into(), &"admin,read,write".into())
    );
    let logs = app.get("/api/v1/api-keys/audit-logs").key(MASTER).send().await.expect(200);
    assert_eq!(logs.as_array().unwrap().len(), 1, "{logs}");
    assert_eq!((&logs[0]["action"], &logs[0]["api_key_id"]), (&"bootstrap".into(), &me["id"]));
    assert!(!logs.to_string().contains(MASTER));
}

#[apply(on_both!)]
async fn a_configured_master_key_is_not_registered_twice(backend: Backend) {
    let app = TestApp::with(&backend, &[("MASTER_API_KEY", MASTER)]).await;
    app.stop().await.unwrap();
    let app = TestApp::with(&backend, &[("MASTER_API_KEY", MASTER)]).await;
    app.get("/api/v1/api-keys/me").key(MASTER).send().await.expect(200);
    assert_eq!(app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys").await, 1);
}

#[apply(on_both!)]
async fn a_placeholder_registers_nothing(backend: Backend) {
    let placeholder = "your-secret-api-key-here";
    let app = TestApp::with(&backend, &[("MASTER_API_KEY", placeholder)]).await;
    let me = app.get("/api/v1/api-keys/me").key(placeholder).send().await;
    me.refused(401, "Invalid or inactive API Key");
    app.act("/bootstrap").send().await.expect(200);
}

#[apply(on_both!)]
async fn a_master_key_is_ignored_when_there_are_keys(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    app.stop().await.unwrap();
    let app = TestApp::with(&backend, &[("MASTER_API_KEY", MASTER)]).await;
    let me = app.get("/api/v1/api-keys/me").key(MASTER).send().await;
    me.refused(401, "Invalid or inactive API Key");
    app.get("/api/v1/api-keys/me").key(&admin).send().await.expect(200);
    assert_eq!(app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys").await, 1);
}

#[apply(without_database!)]
fn a_master_key_that_could_never_work_stops_the_start() {
    let problems = |key: &str| {
        let variables = [("MASTER_API_KEY".to_owned(), key.to_owned())];
        Config::from_variables(variables.into_iter().collect()).err()
    };
    let vector = "octopus_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg0dZoMQ";
    let ours = TokenKind::ApiKey.generate(&mut rand::rng());
    assert_eq!(problems(ours.expose()), None);
    assert_eq!(problems(MASTER), None);
    // The second has the length of a key and a wrong checksum: every request with it would be
    // refused.
    for unusable in ["a master key with spaces that is long", &vector.replace("MQ", "MR")] {
        let problems = problems(unusable).unwrap_or_else(|| panic!("{unusable} was accepted"));
        assert!(problems.0.iter().all(|p| p.starts_with("MASTER_API_KEY")), "{problems:?}");
        assert!(!problems.to_string().contains(unusable));
    }
}

#[apply(on_both!)]
async fn a_weak_master_key_is_not_registered_and_works_if_it_is_already_a_key(backend: Backend) {
    let weak = ["too-short-to-be-a-key", "passwordpasswordpasswordpassword"];
    for key in weak {
        let mut command = octopus_on(&backend).await;
        command.env("MASTER_API_KEY", key).env("PORT", "0");
        let output = command.output().unwrap();
        let text = output_text(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("MASTER_API_KEY ") && !text.contains(key), "{text}");
    }
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    app.stop().await.unwrap();
    for key in weak {
        let server = Server::start(&backend, &[("MASTER_API_KEY", key)]).await;
        let own = reqwest::Client::new().get(server.url("/api/v1/api-keys/me"));
        let own = own.header("Octopus-API-Key", &admin).send().await.unwrap();
        assert_eq!(own.status(), 200);
        assert_eq!(server.events("master_key.ignored").len(), 1, "{}", server.log());
    }
}
