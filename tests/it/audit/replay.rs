//! API keys that differ from the audit log, because the table was changed outside the server.

use super::{KEYS, VERIFY, get, verify};
use crate::support::process::{octopus_on, output_text};
use crate::support::{Backend, TestApp};
use chrono::TimeDelta;
use octopus::audit::Verification;
use octopus::features::api_keys::service;
use serde_json::{Value, json};

/// The differences: key id and property.
fn named(found: &Verification) -> Vec<(i64, &str)> {
    assert_eq!(found.first_bad, None);
    assert_eq!(found.intact, found.key_differences.is_empty());
    found.key_differences.iter().map(|found| (found.api_key_id, found.field)).collect()
}

/// Creates an admin key and two others, deactivates the last one, and returns the admin secret.
async fn three_keys(app: &TestApp) -> String {
    let admin = app.admin().await;
    let bound = json!({
        "name": "bound", "scopes": "read", "expires_at": "2099-01-01T00:00:00Z",
        "allowed_ips": "192.0.2.0/24", "rate_limit_per_minute": 60,
    });
    app.post(KEYS, bound).key(&admin).send().await.expect(201);
    app.post(KEYS, json!({"name": "revoked"})).key(&admin).send().await.expect(201);
    app.act(&format!("{KEYS}/3/deactivate")).key(&admin).send().await.expect(200);
    admin
}

/// A statement that changes a key without an audit entry, a statement that undoes the change, and
/// the resulting differences: key id and field.
type Attack<'a> = (&'a str, &'a str, &'a [(i64, &'static str)]);

#[apply(on_both!)]
async fn each_unlogged_change_of_a_key_is_reported(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = three_keys(&app).await;
    let ada = app.user("ada").await;
    assert_eq!(named(&verify(&app.state, None).await), []);
    let hash = super::bytes(&backend, &"07".repeat(32));
    let own = format!("UPDATE api_keys SET created_by_user_id = {ada} WHERE id = 2");
    let insert = format!(
        "INSERT INTO api_keys (id, key_hash, key_prefix, name, name_key, scopes, created_at) \
         VALUES (99, {hash}, 'octopus_mine', 'mine', 'mine', 'admin', '2026-01-01T00:00:00+00:00')"
    );
    let attacks: [Attack<'_>; 10] = [
        (
            "UPDATE api_keys SET scopes = 'admin' WHERE id = 2",
            "UPDATE api_keys SET scopes = 'read' WHERE id = 2",
            &[(2, "scopes")],
        ),
        (
            "UPDATE api_keys SET is_active = TRUE WHERE id = 3",
            "UPDATE api_keys SET is_active = FALSE WHERE id = 3",
            &[(3, "is_active")],
        ),
        (
            "UPDATE api_keys SET is_active = FALSE WHERE id = 2",
            "UPDATE api_keys SET is_active = TRUE WHERE id = 2",
            &[(2, "is_active")],
        ),
        (
            "UPDATE api_keys SET expires_at = NULL WHERE id = 2",
            "UPDATE api_keys SET expires_at = '2099-01-01T00:00:00+00:00' WHERE id = 2",
            &[(2, "expires_at")],
        ),
        (
            "UPDATE api_keys SET allowed_ips = NULL WHERE id = 2",
            "UPDATE api_keys SET allowed_ips = '192.0.2.0/24' WHERE id = 2",
            &[(2, "allowed_ips")],
        ),
        (
            "UPDATE api_keys SET rate_limit_per_minute = NULL WHERE id = 2",
            "UPDATE api_keys SET rate_limit_per_minute = 60 WHERE id = 2",
            &[(2, "rate_limit_per_minute")],
        ),
        (
            &own,
            "UPDATE api_keys SET created_by_user_id = NULL WHERE id = 2",
            &[(2, "created_by_user_id")],
        ),
        (
            "UPDATE api_keys SET name = 'other', allowed_ips = NULL WHERE id = 2",
            "UPDATE api_keys SET name = 'bound', allowed_ips = '192.0.2.0/24' WHERE id = 2",
            &[(2, "name"), (2, "allowed_ips")],
        ),
        (&insert, "DELETE FROM api_keys WHERE id = 99", &[(99, "exists")]),
        ("DELETE FROM api_keys WHERE id = 3", "SELECT 1", &[(3, "exists")]),
    ];
    for (attack, undo, expected) in attacks {
        backend.execute(attack).await;
        let found = verify(&app.state, None).await;
        assert_eq!(named(&found), expected, "{attack}");
        let head = found.head.clone();
        assert_eq!(named(&verify(&app.state, Some(&head)).await), expected, "an anchor is no cure");
        backend.execute(undo).await;
    }
    let answer = get(&app, &admin, VERIFY).await;
    let expected = json!([
        {"api_key_id": 3, "field": "exists", "logged": true, "stored": false, "seq": 4}
    ]);
    assert_eq!(answer["key_differences"], expected);
    assert_eq!((&answer["intact"], &answer["first_bad"]), (&json!(false), &Value::Null));
}

#[apply(on_both!)]
async fn keys_changed_through_the_api_match_the_audit_log(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = three_keys(&app).await;
    let change = json!({
        "name": "renamed", "description": "d", "scopes": "write", "expires_at": null,
        "allowed_ips": null, "rate_limit_per_minute": 7,
    });
    app.patch(&format!("{KEYS}/2"), change).key(&admin).send().await.expect(200);
    app.patch(&format!("{KEYS}/3"), json!({"is_active": true}))
        .key(&admin)
        .send()
        .await
        .expect(200);
    let grace = json!({"grace_period_seconds": 60});
    app.post(&format!("{KEYS}/2/rotate"), grace).key(&admin).send().await.expect(200); // key 4
    app.act(&format!("{KEYS}/3/rotate")).key(&admin).send().await.expect(200); // key 5
    app.delete(&format!("{KEYS}/5")).key(&admin).send().await.expect(204);
    let short =
        json!({"name": "short", "expires_at": app.state.clock.now() + TimeDelta::minutes(9)});
    app.post(KEYS, short).key(&admin).send().await.expect(201);
    assert_eq!(named(&verify(&app.state, None).await), []);
    app.advance(TimeDelta::hours(1));
    app.act(&format!("{KEYS}/cleanup-expired")).key(&admin).send().await.expect(200);
    assert_eq!(named(&verify(&app.state, None).await), []);
    backend.execute("UPDATE api_keys SET rotated_at = NULL, grace_expires_at = NULL").await;
    let found = verify(&app.state, None).await;
    assert_eq!(named(&found), [(2, "rotated"), (2, "grace_expires_at"), (3, "rotated")]);
    // A key that was changed with SQL matches the log after the API sets the field.
    let other = backend.another();
    let app = TestApp::new(&other).await;
    let admin = three_keys(&app).await;
    app.patch(&format!("{KEYS}/2"), json!({"scopes": "write"}))
        .key(&admin)
        .send()
        .await
        .expect(200);
    assert_eq!(named(&verify(&app.state, None).await), []);
}

#[apply(on_both!)]
async fn the_command_names_the_keys_that_differ(backend: Backend) {
    let app = TestApp::new(&backend).await;
    three_keys(&app).await;
    backend.execute("UPDATE api_keys SET scopes = 'admin', is_active = TRUE WHERE id <> 1").await;
    let output = octopus_on(&backend).await.arg("verify").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let expected = "octopus: API key 2: scopes is \"admin\", and \"read\" according to the audit \
                    log\nAPI key 3: scopes is \"admin\", and \"read\" according to the audit log\n\
                    API key 3: is_active is true, and false according to the audit log\n";
    assert_eq!(output_text(&output), expected);
    let output = octopus_on(&backend).await.args(["verify", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["ok"], &report["intact"]), (&json!(false), &json!(false)));
    assert_eq!(report["key_differences"].as_array().unwrap().len(), 3, "{report}");
}

#[apply(on_both!)]
async fn keys_whose_entries_were_pruned_are_not_reported(backend: Backend) {
    let variables = [("AUDIT_RETENTION_DAYS", "30"), ("RATE_LIMIT_ENABLED", "false")];
    let app = TestApp::with(&backend, &variables).await;
    let admin = three_keys(&app).await;
    app.advance(TimeDelta::days(40));
    app.post(KEYS, json!({"name": "new"})).key(&admin).send().await.expect(201);
    service::prune_audit_log(&app.state).await.unwrap();
    let found = verify(&app.state, None).await;
    assert!(found.removed_through.is_some());
    assert_eq!(named(&found), []);
    // The remaining entries still match.
    app.patch(&format!("{KEYS}/2"), json!({"scopes": "write"}))
        .key(&admin)
        .send()
        .await
        .expect(200);
    backend.execute("UPDATE api_keys SET scopes = 'admin' WHERE id IN (2, 4)").await;
    assert_eq!(named(&verify(&app.state, None).await), [(2, "scopes"), (4, "scopes")]);
    // While keys differ, the entries that prove it are not pruned.
    app.advance(TimeDelta::days(40));
    service::prune_audit_log(&app.state).await.unwrap();
    assert_eq!(named(&verify(&app.state, None).await), [(2, "scopes"), (4, "scopes")]);
}
