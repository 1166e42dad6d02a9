//! Imported API keys: which keep working, and their permissions.

use super::source::{Key, MASTER, READER, Source};
use super::{import, run};
use crate::support::process::{Server, octopus_on, output_text};
use crate::support::{Backend, TestApp};
use serde_json::{Value, json};

const KEYS: &str = "/api/v1/api-keys?include_inactive=true";

/// All keys, ordered by id.
async fn shown(app: &TestApp) -> Vec<Value> {
    let keys = app.get(KEYS).key(MASTER).send().await.expect(200);
    keys.as_array().unwrap().clone()
}

async fn with(backend: &Backend, keys: &[Key<'_>]) -> Source {
    let source = Source::second(backend.folder()).await;
    source.key(Key::default()).await;
    for key in keys {
        source.key(key.clone()).await;
    }
    source
}

/// Short, but not a known placeholder.
const WEAK: &str = "test-key-of-the-office";
const PLACEHOLDERS: [&str; 4] = [
    "your-secret-api-key-here",
    "Your-Secret-API-Key-Here",
    "default-api-key",
    "octopus_abc123...your-actual-key-here",
];

fn doubtful() -> Vec<Key<'static>> {
    let mut keys = vec![Key { id: 2, key: WEAK, name: "office", ..Key::default() }];
    for (id, key) in (3..).zip(PLACEHOLDERS) {
        keys.push(Key { id, key, name: "a placeholder", ..Key::default() });
    }
    keys
}

#[apply(on_both!)]
async fn placeholders_and_weak_keys_arrive_switched_off_and_are_named_but_not_shown(
    backend: Backend,
) {
    let source = with(&backend, &doubtful()).await;
    let imported = import(&backend, &source, &[]).await;
    let kinds: Vec<_> =
        imported.notes().into_iter().map(|(_, id, kind, done)| (id, kind, done)).collect();
    let off = |id: i64, kind: &str| (id, kind.to_owned(), "switched_off".to_owned());
    let mut expected = vec![off(2, "weak")];
    expected.extend((3..=6).map(|id| off(id, "placeholder")));
    assert_eq!(kinds, expected);
    assert!(
        imported.output.contains("office") && imported.output.contains("5 API keys deactivated")
    );
    for secret in PLACEHOLDERS.into_iter().chain([WEAK]) {
        assert!(!imported.output.contains(secret) && !imported.report.to_string().contains(secret));
    }
    let app = TestApp::new(&backend).await;
    for secret in PLACEHOLDERS.into_iter().chain([WEAK]) {
        app.get("/api/v1/users")
            .key(secret)
            .send()
            .await
            .refused(401, "Invalid or inactive API Key");
    }
    let active: Vec<_> = shown(&app).await.iter().map(|key| key["is_active"].clone()).collect();
    assert_eq!(
        active,
        [json!(true), json!(false), json!(false), json!(false), json!(false), json!(false)]
    );
    // An administrator can activate it.
    let body = json!({"is_active": true});
    app.patch("/api/v1/api-keys/2", body).key(MASTER).send().await.expect(200);
    app.get("/api/v1/users").key(WEAK).send().await.expect(200);
}

#[apply(on_both!)]
async fn weak_keys_work_where_that_is_accepted_but_placeholders_never_do(backend: Backend) {
    let source = with(&backend, &doubtful()).await;
    let imported = import(&backend, &source, &["--accept-weak"]).await;
    assert!(imported.notes().contains(&("api_keys".into(), 2, "weak".into(), "kept".into())));
    let app = TestApp::new(&backend).await;
    app.get("/api/v1/users").key(WEAK).send().await.expect(200);
    for secret in PLACEHOLDERS {
        app.get("/api/v1/users").key(secret).send().await.expect(401);
    }
    let prefixes: Vec<(String,)> =
        app.rows("SELECT key_prefix FROM api_keys ORDER BY id LIMIT 2").await;
    let prefixes: Vec<&str> = prefixes.iter().map(|(prefix,)| prefix.as_str()).collect();
    assert_eq!(prefixes, ["octopus_Jq3-", "test-"], "less of a short one");
}

#[apply(on_both!)]
async fn a_key_has_the_permissions_of_its_scopes_or_of_the_original(backend: Backend) {
    let writer = "octopus_Wr1te-Uo1kX_zH7w2mVvJ0bT9sYcN4dLrPqA5eFgUi1";
    let both = "octopus_B0th--Uo1kX_zH7w2mVvJ0bT9sYcN4dLrPqA5eFgUi1";
    let off = "octopus_0ff---Uo1kX_zH7w2mVvJ0bT9sYcN4dLrPqA5eFgUi1";
    let keys = [
        Key { id: 2, key: READER, name: "reader", scopes: "read", ..Key::default() },
        Key { id: 3, key: writer, name: "writer", scopes: "write", ..Key::default() },
        Key { id: 4, key: both, name: "both", scopes: "write, read", ..Key::default() },
        Key { id: 5, key: off, name: "off", scopes: "read", is_active: false, ..Key::default() },
    ];
    for (options, reader, writes, kind, done) in [
        (&[][..], "read", 403, "narrower", "kept"),
        (&["--keep-effective-access"][..], "read,write", 201, "widened", "changed"),
    ] {
        let target = backend.another();
        let source = with(&target, &keys).await;
        let imported = import(&target, &source, options).await;
        let note = |id| ("api_keys".to_owned(), id, kind.to_owned(), done.to_owned());
        assert_eq!(imported.notes(), [note(2), note(3)], "each one, and no other");
        assert!(
            imported.report["notes"][0]["name"] == "reader" && imported.output.contains("writer")
        );
        let app = TestApp::new(&target).await;
        let scopes: Vec<_> = shown(&app)
            .await
            .iter()
            .map(|key| key["scopes"].as_str().unwrap().to_owned())
            .collect();
        let other = if options.is_empty() { "write" } else { "read,write" };
        assert_eq!(scopes, ["admin,read,write", reader, other, "read,write", "read"]);
        app.get("/api/v1/users").key(READER).send().await.expect(200);
        let answer = app.post("/api/v1/conversations", json!({})).key(READER).send().await;
        assert_eq!(answer.status, writes, "{}", answer.text);
        // Operations that require an admin key also required one in the original.
        app.get("/api/v1/api-keys").key(READER).send().await.expect(403);
        app.stop().await.unwrap();
        target.remove().await;
    }
}

#[apply(on_both!)]
async fn an_imported_key_without_admin_cannot_read_the_audit_log(backend: Backend) {
    let all = ["read", "read,write", "read,audit:read", "write,keys:verify,audit:read"];
    let secret = |n: usize| format!("octopus_Audit{n}Uo1kX_zH7w2mVvJ0bT9sYcN4dLrPqA5eFgUi1");
    let secrets: Vec<String> = (0..all.len()).map(secret).collect();
    let keys: Vec<Key<'_>> = (2..)
        .zip(all.iter().zip(&secrets))
        .map(|(id, (scopes, key))| Key { id, key, name: "a key", scopes, ..Key::default() })
        .collect();
    for options in [&[][..], &["--keep-effective-access"]] {
        let target = backend.another();
        let source = with(&target, &keys).await;
        let imported = import(&target, &source, options).await;
        let unknown = imported.notes().into_iter().filter(|note| note.2 == "unknown_scope");
        assert_eq!(unknown.map(|note| note.1).collect::<Vec<_>>(), [4, 5]);
        let app = TestApp::new(&target).await;
        for key in &secrets {
            for path in ["api-keys/audit-logs", "admin/audit/verify"] {
                let answer = app.get(&format!("/api/v1/{path}")).key(key).send().await;
                assert_eq!(answer.status, 403, "{path}: {}", answer.text);
            }
            let body = json!({"key": MASTER});
            app.post("/api/v1/api-keys/verify", body).key(key).send().await.expect(403);
        }
        app.stop().await.unwrap();
        target.remove().await;
    }
}

#[apply(on_both!)]
async fn a_weak_key_that_was_accepted_can_stay_the_master_key(backend: Backend) {
    let source = Source::second(backend.folder()).await;
    let weak = "a-key-of-19-letters";
    source.key(Key { key: weak, ..Key::default() }).await;
    let variables = [("MASTER_API_KEY", weak)];
    for options in [&["--accept-weak"][..], &[]] {
        let mut command = octopus_on(&backend).await;
        command.arg("import").arg(&source.path).args(options).envs(variables);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", output_text(&output));
    }
    let server = Server::start(&backend, &variables).await;
    let own = reqwest::Client::new().get(server.url("/api/v1/api-keys/me"));
    let own = own.header("Octopus-API-Key", weak).send().await.unwrap();
    assert_eq!(own.status(), 200);
    assert!(server.events("master_key.ignored").is_empty(), "{}", server.log());
}

#[apply(on_both!)]
async fn unknown_scopes_grant_no_permission(backend: Backend) {
    let other = "octopus_0ther-Uo1kX_zH7w2mVvJ0bT9sYcN4dLrPqA5eFgUi1";
    let blank = "octopus_B1ank-Uo1kX_zH7w2mVvJ0bT9sYcN4dLrPqA5eFgUi1";
    let keys = [
        Key { id: 2, key: READER, name: "some", scopes: "read,root,Admin,write", ..Key::default() },
        Key { id: 3, key: other, name: "none", scopes: "superuser", ..Key::default() },
        Key { id: 4, key: blank, name: "blank", scopes: " ,", ..Key::default() },
    ];
    let source = with(&backend, &keys).await;
    let imported = import(&backend, &source, &[]).await;
    let note =
        |id, kind: &str, done: &str| ("api_keys".to_owned(), id, kind.to_owned(), done.to_owned());
    let expected = [
        note(2, "unknown_scope", "changed"),
        note(3, "unknown_scope", "changed"),
        note(3, "no_scope", "switched_off"),
        note(4, "no_scope", "switched_off"),
    ];
    assert_eq!(imported.notes(), expected);
    assert!(imported.output.contains("'root', 'Admin'"), "{}", imported.output);
    let app = TestApp::new(&backend).await;
    let keys = shown(&app).await;
    assert_eq!((&keys[1]["scopes"], &keys[1]["is_active"]), (&json!("read,write"), &json!(true)));
    assert_eq!((&keys[2]["scopes"], &keys[2]["is_active"]), (&json!("read"), &json!(false)));
    app.get("/api/v1/users").key(other).send().await.expect(401);
    app.stop().await.unwrap();

    let wide = backend.another();
    let source = with(
        &wide,
        &[Key { id: 3, key: other, name: "none", scopes: "superuser", ..Key::default() }],
    )
    .await;
    let imported = import(&wide, &source, &["--keep-effective-access"]).await;
    let kinds: Vec<_> = imported.notes().into_iter().map(|note| note.2).collect();
    assert_eq!(kinds, ["unknown_scope", "widened"]);
    let app = TestApp::new(&wide).await;
    app.get("/api/v1/users").key(other).send().await.expect(200);
    app.stop().await.unwrap();
    wide.remove().await;
}

#[apply(on_both!)]
async fn only_a_missing_address_list_is_no_restriction_and_no_list_becomes_wider(backend: Backend) {
    let secret = |n: i64| format!("octopus_Addr{n:02}Uo1kX_zH7w2mVvJ0bT9sYcN4dLrPqA5eFgUi1");
    let many: Vec<String> = (0..102).map(|n| format!("10.0.0.{n}")).collect();
    let many = many.join(",");
    // Original list, imported list, whether the key is active, and the status from 127.0.0.1.
    let lists = [
        (None, Value::Null, true, 200),
        (Some(""), Value::Null, true, 200),
        (Some("127.0.0.1"), json!("127.0.0.1"), true, 200),
        (Some("192.0.2.1, 2001:DB8::1"), json!("192.0.2.1,2001:db8::1"), true, 403),
        (Some(r#"["192.0.2.1"]"#), json!("192.0.2.1"), true, 403),
        (Some("10.0.0.0/8"), json!("10.0.0.0/8"), true, 403),
        (Some("localhost,127.0.0.1"), json!("127.0.0.1"), true, 200),
        (Some("testclient"), Value::Null, false, 401),
        (Some("10.0.0.1/8"), Value::Null, false, 401),
        (Some("[]"), Value::Null, false, 401),
        (Some(" "), Value::Null, false, 401),
        (Some(","), Value::Null, false, 401),
        (Some(" , "), Value::Null, false, 401),
        (Some("[\"\"]"), Value::Null, false, 401),
        (Some(many.as_str()), json!(many.rsplitn(3, ',').last().unwrap()), true, 403),
    ];
    let secrets: Vec<String> = (2..).take(lists.len()).map(secret).collect();
    let keys: Vec<Key<'_>> = lists
        .iter()
        .zip(&secrets)
        .zip(2..)
        .map(|((list, key), id)| Key {
            id,
            key,
            name: "a list",
            allowed_ips: list.0,
            ..Key::default()
        })
        .collect();
    let source = with(&backend, &keys).await;
    let imported = import(&backend, &source, &[]).await;
    let notes: Vec<_> = imported
        .notes()
        .into_iter()
        .map(|(_, id, kind, done)| format!("{id} {kind} {done}"))
        .collect();
    let expected = [
        "7 network kept",
        "8 address_dropped changed",
        "9 address_dropped changed",
        "9 no_address switched_off",
        "10 address_dropped changed",
        "10 no_address switched_off",
        "11 no_address switched_off",
        "12 no_address switched_off",
        "13 no_address switched_off",
        "14 no_address switched_off",
        "15 no_address switched_off",
        "16 address_dropped changed",
    ];
    assert_eq!(notes, expected);
    let app = TestApp::new(&backend).await;
    let shown = shown(&app).await;
    for (((was, is, active, status), secret), key) in lists.iter().zip(&secrets).zip(&shown[1..]) {
        assert_eq!((&key["allowed_ips"], &key["is_active"]), (is, &json!(active)), "{was:?}");
        let answer = app.get("/api/v1/users").key(secret).send().await;
        assert_eq!(answer.status, *status, "{was:?}: {}", answer.text);
    }
}

#[apply(on_both!)]
async fn times_of_keys_are_utc_and_an_unreadable_expiry_is_in_the_past(backend: Backend) {
    let secret = |n: i64| format!("octopus_Times{n}Uo1kX_zH7w2mVvJ0bT9sYcN4dLrPqA5eFgUi1");
    let secrets: Vec<String> = (2..=6).map(secret).collect();
    let ends = [
        ("2999-01-02 03:04:05.000006", "2999-01-02T03:04:05.000006Z", 200),
        ("2999-01-02T05:04:05+02:00", "2999-01-02T03:04:05.000000Z", 200),
        ("2025-01-02 03:04:05.000006", "2025-01-02T03:04:05.000006Z", 401),
        ("next year", "", 401),
        ("", "", 401),
    ];
    let keys: Vec<Key<'_>> = ends
        .iter()
        .zip(&secrets)
        .zip(2..)
        .map(|((end, key), id)| Key {
            id,
            key,
            name: "a time",
            expires_at: Some(end.0),
            ..Key::default()
        })
        .collect();
    let source = with(&backend, &keys).await;
    let imported = import(&backend, &source, &[]).await;
    let notes: Vec<_> = imported
        .notes()
        .into_iter()
        .map(|(_, id, kind, done)| format!("{id} {kind} {done}"))
        .collect();
    assert_eq!(notes, ["5 end_unreadable switched_off", "6 end_unreadable switched_off"]);
    let app = TestApp::new(&backend).await;
    let shown = shown(&app).await;
    for (((end, expected, status), secret), key) in ends.iter().zip(&secrets).zip(&shown[1..]) {
        if !expected.is_empty() {
            assert_eq!(key["expires_at"], *expected, "{end}");
        }
        assert_eq!(key["last_used_at"], "2025-03-01T10:20:30.123456Z");
        assert_eq!(key["last_used_ip"], "192.0.2.9");
        assert_eq!(app.get("/api/v1/users").key(secret).send().await.status, *status, "{end}");
    }
    // A key with an unreadable expiry cannot become a key without expiry.
    let body = json!({"is_active": true});
    app.patch("/api/v1/api-keys/5", body).key(MASTER).send().await.expect(409);
}

#[apply(on_both!)]
async fn unusable_keys_are_reported(backend: Backend) {
    let mistyped = format!("octopus_{}", "a".repeat(49));
    let keys = [
        Key { id: 2, key: &mistyped, name: "mistyped", ..Key::default() },
        Key {
            id: 3,
            key: "ein Schlüssel mit Leerzeichen und Umlaut",
            name: "umlaut",
            ..Key::default()
        },
        Key { id: 4, key: "", name: "empty", ..Key::default() },
        Key { id: 5, key: READER, name: "", ..Key::default() },
    ];
    let source = with(&backend, &keys).await;
    let more = "UPDATE api_keys SET created_by_user_id = 77 WHERE id = 5; DROP INDEX ix_api_keys_key;
         INSERT INTO api_keys SELECT 6, \"key\", 'twice', description, scopes, is_active, created_at,
            last_used_at, 'testclient', expires_at, allowed_ips, created_by_user_id
            FROM api_keys WHERE id = 1;";
    source.execute(more).await;
    let imported = import(&backend, &source, &[]).await;
    let notes: Vec<_> = imported
        .notes()
        .into_iter()
        .map(|(_, id, kind, done)| format!("{id} {kind} {done}"))
        .collect();
    let expected = [
        "2 weak switched_off",
        "2 cannot_be_sent switched_off",
        "3 cannot_be_sent switched_off",
        "4 no_secret left_out",
        "5 unknown_creator changed",
        "6 duplicate left_out",
    ];
    assert_eq!(notes, expected);
    assert_eq!(imported.rows("api_keys"), [6, 4, 0, 2]);
    assert!(imported.output.lines().last().unwrap().contains(" 2 skipped"), "{}", imported.output);
    let app = TestApp::new(&backend).await;
    let names: Vec<_> = shown(&app).await.iter().map(|key| key["name"].clone()).collect();
    assert_eq!(names, ["Master API Key", "mistyped", "umlaut", "Key 5"]);

    // If no usable key is left, the command prints how to create one.
    let other = backend.another();
    let source = Source::second(other.folder()).await;
    source.key(Key { key: "your-secret-api-key-here", ..Key::default() }).await;
    let output = run(&other, &source, &[]).await;
    let output = String::from_utf8(output.stdout).unwrap();
    assert!(output.contains("octopus keys create"), "{output}");
    other.remove().await;
}

#[apply(on_both!)]
async fn the_audit_log_is_imported_into_the_chain(backend: Backend) {
    const LOGS: &str = "/api/v1/api-keys/audit-logs";
    let source = Source::full(backend.folder()).await;
    import(&backend, &source, &[]).await;
    let app = TestApp::new(&backend).await;
    let logs = app.get(&format!("{LOGS}?order=asc")).key(MASTER).send().await.expect(200);
    let logs = logs.as_array().unwrap();
    let shown: Vec<Value> = logs
        .iter()
        .map(|log| {
            json!([log["action"], log["api_key_id"], log["api_key_name"], log["performed_by"]])
        })
        .collect();
    let expected = [
        json!(["create", 2, "reader", "host"]),
        json!(["delete", null, null, "host"]),
        json!(["import", 1, "Master API Key", "host"]),
        json!(["import", 2, "reader", "host"]),
        json!(["import", null, null, "host"]),
    ];
    assert_eq!(shown, expected);
    let original = json!({
        "id": 1, "api_key_id": 2, "action": "create", "performed_by_key_id": 1,
        "performed_by_ip": "192.0.2.1", "details": {"name": "reader", "scopes": "read"},
        "timestamp": "2025-01-01 00:00:01.000000",
    });
    assert_eq!(logs[0]["details"], json!({ "original": original }));
    assert_eq!(logs[1]["details"]["original"]["details"], "no JSON, and [key]");
    assert_eq!(logs[3]["details"]["scopes"], "read");
    assert_eq!(logs[4]["details"]["imported"]["messages"], 4);
    assert_eq!(logs[4]["details"]["sha256"].as_str().unwrap().len(), 64);
    let of_key = app.get(&format!("{LOGS}?api_key_id=2&action=create")).key(MASTER);
    assert_eq!(of_key.send().await.expect(200).as_array().map(Vec::len), Some(1));
    let verified = app.get("/api/v1/admin/audit/verify").key(MASTER).send().await.expect(200);
    assert_eq!((&verified["intact"], &verified["verified_rows"]), (&json!(true), &json!(5)));
    assert_eq!(verified["key_differences"], json!([]), "imported entries change no key");
    app.stop().await.unwrap();

    let early = backend.another();
    let source = Source::with_early_audit_log(early.folder()).await;
    source.key(Key::default()).await;
    let row = "INSERT INTO api_key_audit_logs (api_key_id, action, performed_by, ip_address) \
        VALUES (1, 'auth_failed', 'somebody', '192.0.2.7'), (1, 'looked_at', NULL, NULL)";
    source.execute(row).await;
    import(&early, &source, &[]).await;
    let app = TestApp::new(&early).await;
    let logs = app.get(&format!("{LOGS}?action=import_trail")).key(MASTER).send().await.expect(200);
    assert_eq!(logs[0]["details"]["original"]["action"], "looked_at");
    let logs = app.get(&format!("{LOGS}?action=auth_failed")).key(MASTER).send().await.expect(200);
    let original = &logs[0]["details"]["original"];
    assert_eq!(
        (&original["performed_by"], &original["ip_address"]),
        (&json!("somebody"), &json!("192.0.2.7"))
    );
    app.stop().await.unwrap();
    early.remove().await;
}
