//! The audit keys, which sign the chain.

use super::{UNKNOWN_KEY, append, broken, intact, key_id, open, verify};
use crate::support::process::{Server, octopus, octopus_on, output_text};
use crate::support::{AUDIT_KEY, Backend};
use octopus::audit::AuditKeys;
use octopus::core::clock::Clock;
use octopus::core::config::Config;
use octopus::db::query;
use octopus::state::AppState;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

const A: &str = "the first key: thirty-two bytes or more";
const B: &str = "the second key: thirty-two bytes or more";

#[apply(on_both!)]
async fn rows_verify_with_the_key_they_were_hashed_with(backend: Backend) {
    let app = open(&backend, &[("AUDIT_KEY", A)]).await;
    append(&app, 3).await;
    let old = format!("{}, {A} ,", "x".repeat(32));
    let app = open(&backend, &[("AUDIT_KEY", B), ("AUDIT_KEYS_OLD", &old)]).await;
    intact(&app, 4, "three with the old key, and the change").await;
    append(&app, 2).await;
    intact(&app, 6, "with both").await;
    let without = open(&backend, &[("AUDIT_KEY", B)]).await;
    broken(&verify(&without, None).await, (1, UNKNOWN_KEY), "without the old key");
    let last = "SELECT action, performed_by, details FROM api_key_audit_logs WHERE seq = 4";
    let (action, by, details): (String, String, String) = query(&app.db, last).one().await.unwrap();
    assert_eq!((&*action, &*by), ("change_audit_key", "server"));
    let details: Value = serde_json::from_str(&details).unwrap();
    assert_eq!(details, json!({ "previous_key_id": key_id(A), "key_id": key_id(B) }));
    // The id of the key is part of the hashed data.
    let swap = "UPDATE api_key_audit_logs SET hash_key_id = \
                (SELECT hash_key_id FROM api_key_audit_logs WHERE seq = 4) WHERE seq = 2";
    backend.execute(swap).await;
    broken(&verify(&app, None).await, (2, super::BROKEN_LINK), "another key of ours");
}

#[apply(on_both!)]
async fn no_secret_is_printed_or_logged(backend: Backend) {
    let old = format!("{A},{AUDIT_KEY}");
    let variables =
        [("AUDIT_KEY", B), ("AUDIT_KEYS_OLD", &*old), ("RUST_LOG", "octopus=trace,info")];
    let app = open(&backend, &variables).await;
    let shown = format!("{app:?}{:#?}{:?}", app.audit, app.config);
    app.db.close().await;
    let server = Server::start(&backend, &variables).await;
    let log = server.log();
    assert!(!server.events("server.listening").is_empty(), "{log}");
    for text in [shown, log] {
        for secret in [A, B, AUDIT_KEY] {
            assert!(!text.contains(secret) && !text.contains(&hex::encode(secret)), "{text}");
        }
    }
}

fn key_file(backend: &Backend) -> PathBuf {
    backend.folder().join("octopus.db.audit-key")
}

#[apply(on_sqlite!)]
async fn the_key_file_is_private_and_shared_by_all_processes(backend: Backend) {
    let mut starters = JoinSet::new();
    for _ in 0..16 {
        let backend = backend.clone();
        // Separate threads, as separate processes would be.
        starters.spawn_blocking(move || {
            Handle::current().block_on(async {
                let app = open(&backend, &[]).await;
                append(&app, 2).await;
                app.db.close().await;
            });
        });
    }
    starters.join_all().await;
    let mode = fs::metadata(key_file(&backend)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let secret = fs::read_to_string(key_file(&backend)).unwrap();
    assert_eq!(hex::decode(&secret).unwrap().len(), 32, "random bytes in hexadecimal digits");
    let app = open(&backend, &[]).await;
    intact(&app, 32, "all had the same key").await;
    assert!(!format!("{app:?}").contains(&secret));
    app.db.close().await;
    let mut names: Vec<_> = fs::read_dir(backend.folder()).unwrap().collect();
    names.sort_by_key(|entry| entry.as_ref().unwrap().file_name());
    let names: Vec<_> = names.into_iter().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["octopus.db", "octopus.db.audit-key"], "nothing half-made is left");
}

#[apply(on_sqlite!)]
async fn a_key_file_is_not_read_where_a_key_is_set(backend: Backend) {
    let app = open(&backend, &[]).await;
    append(&app, 3).await;
    app.db.close().await;
    // The key of the file is used only if the operator configures it.
    let app = open(&backend, &[("AUDIT_KEY", A)]).await;
    broken(&verify(&app, None).await, (1, UNKNOWN_KEY), "with the file alone");
    app.db.close().await;
    let secret = fs::read_to_string(key_file(&backend)).unwrap();
    let app = open(&backend, &[("AUDIT_KEY", A), ("AUDIT_KEYS_OLD", &secret)]).await;
    append(&app, 2).await;
    let found = verify(&app, None).await;
    assert!(found.intact, "{found:?}");
    app.db.close().await;
    // The server does not open the file, and logs one line about it at startup.
    for text in [&*secret, "truncated"] {
        fs::write(key_file(&backend), text).unwrap();
        let variables = [("AUDIT_KEY", A), ("AUDIT_KEYS_OLD", &*secret)];
        let server = Server::start(&backend, &variables).await;
        let lines = server.events("audit.key_file_ignored");
        assert_eq!(lines.len(), 1, "{}", server.log());
        assert!(lines[0].to_string().contains("octopus.db.audit-key"), "{}", lines[0]);
        server.stop();
    }
    fs::remove_file(key_file(&backend)).unwrap();
    let server = Server::start(&backend, &[("AUDIT_KEY", A), ("AUDIT_KEYS_OLD", &*secret)]).await;
    assert!(server.events("audit.key_file_ignored").is_empty(), "{}", server.log());
    assert!(!key_file(&backend).exists(), "none is made where AUDIT_KEY is set");
}

/// The attack: the attacker removes entries and rebuilds the chain with a key in a file beside the
/// database.
#[apply(on_sqlite!)]
async fn a_log_chained_anew_with_a_planted_key_file_does_not_verify(backend: Backend) {
    let app = open(&backend, &[("AUDIT_KEY", A)]).await;
    append(&app, 5).await;
    backend.execute("DELETE FROM api_key_audit_logs").await;
    backend.execute("UPDATE audit_head SET seq = 0").await;
    let zero = super::bytes(&backend, &"00".repeat(32));
    backend.execute(format!("UPDATE audit_head SET hash = {zero}")).await;
    let forger = open(&backend, &[("AUDIT_KEY", B)]).await;
    append(&forger, 3).await;
    fs::write(key_file(&backend), B).unwrap();
    let victim = open(&backend, &[("AUDIT_KEY", A)]).await;
    broken(&verify(&victim, None).await, (1, UNKNOWN_KEY), "a planted key file");
}

#[apply(on_sqlite!)]
async fn a_file_that_was_cut_short_stops_the_start(backend: Backend) {
    open(&backend, &[]).await.db.close().await;
    let secret = fs::read_to_string(key_file(&backend)).unwrap();
    for text in ["", "0123456789abcdef"] {
        fs::write(key_file(&backend), text).unwrap();
        let config = backend.config(&[]).await;
        let error = AppState::open(config, Clock::default()).await.expect_err("started");
        let sentence = error.to_string();
        assert!(sentence.contains("octopus.db.audit-key: it is truncated"), "{sentence}");
        let output = octopus_on(&backend).await.arg("verify").output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(output_text(&output).contains("it is truncated"), "{}", output_text(&output));
        assert_eq!(fs::read_to_string(key_file(&backend)).unwrap(), text, "it is left as it is");
    }
    fs::write(key_file(&backend), format!("{secret}\n")).unwrap();
    let app = open(&backend, &[]).await;
    intact(&app, 0, "a line's end is no part of it").await;
}

#[apply(on_both!)]
async fn a_key_that_is_too_short_is_reported_before_the_start(backend: Backend) {
    let short = "31 bytes are not quite enough..";
    assert_eq!(short.len(), 31);
    for name in ["AUDIT_KEY", "AUDIT_KEYS_OLD"] {
        let mut command = octopus_on(&backend).await;
        let output = command.env(name, short).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let sentence = output_text(&output);
        assert!(
            sentence.contains(&format!("{name} ")) && sentence.contains("32 bytes"),
            "{sentence}"
        );
        assert!(!sentence.contains(short), "{sentence}");
    }
    let listed = format!("{A},{short}");
    for (name, value) in [("AUDIT_KEYS_OLD", &listed), ("AUDIT_KEY", &format!("{A},"))] {
        let variables = HashMap::from([(name.to_owned(), value.clone())]);
        let problems = Config::from_variables(variables).expect_err("a short one, or a comma");
        assert!(!problems.to_string().contains(value), "{problems}");
    }
    assert_eq!(fs::read_dir(backend.folder()).unwrap().count(), 0, "nothing was started");
}

#[apply(on_postgres!)]
async fn the_server_does_not_start_on_postgres_without_a_key(backend: Backend) {
    backend.start_empty();
    let is_empty = "this database is empty"; // because the database is empty
    let unset = "AUDIT_KEY must be set";
    for (command, expected) in [
        (&[][..], unset),
        (&["bootstrap"], unset),
        (&["migrate"], unset),
        (&["verify"], is_empty),
        (&["keys", "list"], is_empty),
    ] {
        let mut octopus = octopus(backend.folder());
        octopus.env("DATABASE_URL", backend.url().await).env("PORT", "0").args(command);
        let output = octopus.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        let sentence = output_text(&output);
        assert!(sentence.contains(expected), "{command:?}: {sentence}");
    }
    backend.open().await.close().await;
    for command in [&["verify"][..], &["keys", "list"]] {
        let mut octopus = octopus(backend.folder());
        octopus.env("DATABASE_URL", backend.url().await).env("PORT", "0").args(command);
        let sentence = output_text(&octopus.output().unwrap());
        assert!(sentence.contains(unset), "{command:?}: {sentence}");
    }
    let config =
        Config::from_variables(HashMap::from([("DATABASE_URL".to_owned(), backend.url().await)]));
    assert!(AuditKeys::load(&config.unwrap()).is_err());
}
