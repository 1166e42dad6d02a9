//! Changes of the audit key. After a change, earlier keys sign nothing.

use super::{
    EARLIER_KEY, KEYS, NOT_SUCCESSOR, OLD_END, RETURNED_KEY, append, broken, intact, key_id, open,
    record, verify,
};
use crate::support::{Backend, TestApp};
use octopus::core::clock::Clock;
use octopus::state::{AppState, StartError};
use serde_json::json;

const A: &str = "the leaked key: thirty-two bytes or more";
const B: &str = "the current key: thirty-two bytes or more";
const C: &str = "yet another key: thirty-two bytes or more";

/// Appends a row with the key of `app`, which is `secret`, although the chain has another key.
/// An attacker with a leaked key and write access to the database could do this.
async fn forge(backend: &Backend, app: &AppState, secret: &str) {
    let save = "CREATE TABLE saved AS SELECT seq, hash_key_id FROM api_key_audit_logs";
    let restore = "UPDATE api_key_audit_logs SET hash_key_id = (SELECT s.hash_key_id FROM saved s \
                   WHERE s.seq = api_key_audit_logs.seq) WHERE seq IN (SELECT seq FROM saved); \
                   DROP TABLE saved";
    let id = key_id(secret);
    backend.execute(save).await;
    backend.execute(format!("UPDATE api_key_audit_logs SET hash_key_id = {id}")).await;
    append(app, 1).await;
    backend.execute(restore).await;
}

async fn cut_after(backend: &Backend, seq: i64) {
    backend
        .execute(format!(
            "DELETE FROM api_key_audit_logs WHERE seq > {seq}; UPDATE audit_head SET seq = {seq}, \
             hash = (SELECT hash FROM api_key_audit_logs WHERE seq = {seq})"
        ))
        .await;
}

#[apply(on_both!)]
async fn an_earlier_key_signs_nothing_after_the_change_of_the_key(backend: Backend) {
    let leaked = open(&backend, &[("AUDIT_KEY", A)]).await;
    append(&leaked, 3).await;
    let app = open(&backend, &[("AUDIT_KEY", B), ("AUDIT_KEYS_OLD", A)]).await;
    append(&app, 2).await;
    intact(&app, 6, "three, the change, and two").await;

    forge(&backend, &leaked, A).await;
    broken(&verify(&app, None).await, (7, EARLIER_KEY), "appended with the leaked key");
    // The rows of the new key are replaced.
    cut_after(&backend, 3).await;
    append(&leaked, 3).await;
    broken(&verify(&app, None).await, (6, OLD_END), "rewritten from before the change");
    // An anchor taken from this state verifies, whichever key signed the rows.
    let end = verify(&app, None).await.head;
    assert!(verify(&app, Some(&end)).await.intact);
}

#[apply(on_both!)]
async fn entries_of_several_keys_from_before_successions_verify(backend: Backend) {
    let first = open(&backend, &[("AUDIT_KEY", A)]).await;
    append(&first, 2).await;
    let second = AppState::open_existing(
        backend.config(&[("AUDIT_KEY", B), ("AUDIT_KEYS_OLD", A)]).await,
        Clock::default(),
    )
    .await;
    assert!(matches!(second, Err(StartError::AuditKeyMismatch)), "{second:?}");
    // The rows of servers of an earlier version during a rolling restart, without entries of key
    // changes.
    let other = backend.another();
    let second = open(&other, &[("AUDIT_KEY", B)]).await;
    drop(second);
    let second = open(&backend, &[("AUDIT_KEY", B), ("AUDIT_KEYS_OLD", A)]).await;
    cut_after(&backend, 2).await; // without the entry of the key change
    forge(&backend, &second, B).await;
    forge(&backend, &first, A).await;
    forge(&backend, &second, B).await;
    intact(&second, 5, "mixed, as in an earlier version").await;
    let third = open(&backend, &[("AUDIT_KEY", C), ("AUDIT_KEYS_OLD", &format!("{A},{B}"))]).await;
    append(&third, 1).await;
    intact(&third, 7, "and then a key of its own").await;
    forge(&backend, &second, B).await;
    broken(&verify(&third, None).await, (8, EARLIER_KEY), "from here on no other signs");
}

#[apply(on_both!)]
async fn a_key_that_was_changed_does_not_return(backend: Backend) {
    let first = open(&backend, &[("AUDIT_KEY", A)]).await;
    append(&first, 2).await;
    let second = open(&backend, &[("AUDIT_KEY", B), ("AUDIT_KEYS_OLD", A)]).await;
    append(&second, 1).await;
    let config = backend.config(&[("AUDIT_KEY", A), ("AUDIT_KEYS_OLD", B)]).await;
    let refused = AppState::open(config, Clock::default()).await;
    assert!(matches!(refused, Err(StartError::SupersededAuditKey)), "{refused:?}");
    intact(&second, 4, "nothing was added").await;

    // Nor with an inserted entry that changes back to the key and is signed with it.
    let change =
        |from: &str, to: &str| json!({ "previous_key_id": key_id(from), "key_id": key_id(to) });
    for (details, problem) in [(change(B, A), RETURNED_KEY), (change(C, A), NOT_SUCCESSOR)] {
        let fake = format!("UPDATE api_key_audit_logs SET hash_key_id = {}", key_id(A));
        backend.execute("CREATE TABLE saved AS SELECT * FROM api_key_audit_logs").await;
        backend.execute(fake).await;
        let mut tx = first.db.begin().await.unwrap();
        let (origin, subject) =
            (octopus::audit::Origin::SERVER, octopus::audit::Subject::Installation);
        let action = octopus::audit::Action::ChangeAuditKey;
        let now = first.clock.now();
        first.audit.record(&mut tx, &origin, action, subject, &details, now).await.unwrap();
        tx.commit().await.unwrap();
        backend
            .execute(
                "UPDATE api_key_audit_logs SET hash_key_id = (SELECT s.hash_key_id FROM saved s \
                 WHERE s.seq = api_key_audit_logs.seq) WHERE seq <= 4; DROP TABLE saved",
            )
            .await;
        broken(&verify(&second, None).await, (5, problem), problem);
        cut_after(&backend, 4).await;
    }
}

#[apply(on_both!)]
async fn a_server_with_the_earlier_key_adds_nothing_after_the_change(backend: Backend) {
    let variables = [("AUDIT_KEY", A), ("RATE_LIMIT_ENABLED", "false")];
    let app = TestApp::with(&backend, &variables).await;
    let admin = app.admin().await;
    let newer = open(&backend, &[("AUDIT_KEY", B), ("AUDIT_KEYS_OLD", A)]).await;
    let answer = app.post(KEYS, json!({"name": "n"})).key(&admin).send().await;
    let sentence =
        "The audit log has changed to another AUDIT_KEY: restart this server with that key";
    answer.refused(503, sentence);
    assert_eq!(app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys").await, 1);
    let mut tx = app.state.db.begin().await.unwrap();
    assert!(record(&app.state, &mut tx, 1).await.is_err());
    tx.rollback().await.unwrap();
    intact(&newer, 2, "the first key and the change").await;
}
