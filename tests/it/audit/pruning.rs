//! Removal of old rows. A checkpoint, which is a row of the chain, replaces them.

use super::{
    BROKEN_LINK, CHANGED, CUT_OFF, LOGS, MISSING, NO_PLACE, VERIFY, append, bytes, get, open,
    verify,
};
use crate::support::{Backend, TestApp};
use chrono::TimeDelta;
use octopus::audit::{Anchor, Pruned, Verification};
use octopus::features::api_keys::service;
use octopus::state::AppState;
use tokio::task::JoinSet;

const REMOVED: &str = "retention removed the anchor's entry: compare with a later anchor";

/// Prunes six old rows, which leaves a checkpoint, and appends three rows at places 8 to 10.
/// Returns the head of the chain before the pruning.
async fn pruned(app: &AppState) -> Anchor {
    append(app, 6).await;
    let old = verify(app, None).await.head;
    app.clock.advance(TimeDelta::days(40));
    service::prune_audit_log(app).await.unwrap();
    append(app, 3).await;
    old
}

fn keeps_30_days() -> [(&'static str, &'static str); 1] {
    [("AUDIT_RETENTION_DAYS", "30")]
}

fn fault(found: &Verification) -> (i64, &str) {
    let fault = found.first_bad.as_ref().expect("a fault");
    assert!(!found.intact);
    (fault.seq, fault.problem)
}

#[apply(on_both!)]
async fn old_rows_are_replaced_by_a_checkpoint_and_the_rest_verifies(backend: Backend) {
    let variables = [keeps_30_days()[0], ("RATE_LIMIT_ENABLED", "false")];
    let app = TestApp::with(&backend, &variables).await;
    let admin = app.admin().await; // row 1
    append(&app.state, 5).await;
    let old = verify(&app.state, None).await.head;
    app.advance(TimeDelta::days(20));
    append(&app.state, 2).await;

    // Rows of the last 30 days are kept, including the whole day on which these begin.
    app.advance(TimeDelta::days(9));
    service::prune_audit_log(&app.state).await.unwrap();
    assert_eq!(get(&app, &admin, VERIFY).await["verified_rows"], 8, "nothing is old yet");
    app.advance(TimeDelta::days(2));
    service::prune_audit_log(&app.state).await.unwrap();

    let found = verify(&app.state, None).await;
    assert_eq!((found.first_bad, found.verified_rows), (None, 3));
    assert_eq!((found.removed_through.as_ref(), found.head.seq), (Some(&old), 9));
    let answer = get(&app, &admin, VERIFY).await;
    assert_eq!((&answer["intact"], &answer["verified_rows"]), (&true.into(), &3.into()));
    assert_eq!(answer["removed_through"], old.to_string());
    let logs = get(&app, &admin, LOGS).await;
    assert_eq!(logs.as_array().unwrap().len(), 3);
    let checkpoint = &logs[0];
    assert_eq!(
        (&checkpoint["action"], &checkpoint["performed_by"]),
        (&"prune_trail".into(), &"server".into())
    );
    assert_eq!(
        (&checkpoint["details"]["rows"], &checkpoint["details"]["through"]),
        (&6.into(), &old.to_string().into())
    );

    // Pruning runs at most once a day. The next checkpoint replaces this one.
    service::prune_audit_log(&app.state).await.unwrap();
    assert_eq!(verify(&app.state, None).await.head.seq, 9);
    app.advance(TimeDelta::days(60));
    service::prune_audit_log(&app.state).await.unwrap();
    let found = verify(&app.state, None).await;
    assert_eq!((found.first_bad, found.verified_rows, found.head.seq), (None, 1, 10));
    append(&app.state, 1).await;
    assert!(verify(&app.state, None).await.intact);
}

#[apply(on_both!)]
async fn tampering_with_a_pruned_chain_is_reported(backend: Backend) {
    const SAVE: &str = "CREATE TABLE saved_rows AS SELECT * FROM api_key_audit_logs";
    const RESTORE: &str = "DELETE FROM api_key_audit_logs;
        INSERT INTO api_key_audit_logs SELECT * FROM saved_rows;";
    let app = open(&backend, &keeps_30_days()).await;
    let old = pruned(&app).await;
    backend.execute(SAVE).await;
    let found = verify(&app, None).await;
    assert_eq!((found.first_bad, found.verified_rows), (None, 4));
    let put_in = "INSERT INTO api_key_audit_logs (seq, action, performed_by, details, timestamp) \
        SELECT 6, action, performed_by, details, timestamp FROM saved_rows WHERE seq = 9";
    let other_through = "UPDATE api_key_audit_logs \
        SET details = replace(details, '\"6:', '\"7:') WHERE seq = 7; \
        DELETE FROM api_key_audit_logs WHERE seq = 8";
    let other_hash = format!(
        "UPDATE api_key_audit_logs SET hash = {} WHERE seq = 7",
        bytes(&backend, &"07".repeat(32))
    );
    let forged = "UPDATE api_key_audit_logs SET action = 'prune_trail', \
        details = (SELECT replace(details, '\"6:', '\"8:') FROM saved_rows WHERE seq = 7) \
        WHERE seq = 9; DELETE FROM api_key_audit_logs WHERE seq < 9";
    let changes: [(&str, (i64, &str)); 7] = [
        // More rows are missing than the checkpoint covers.
        ("DELETE FROM api_key_audit_logs WHERE seq = 7", (1, MISSING)),
        ("DELETE FROM api_key_audit_logs WHERE seq = 8", (8, MISSING)),
        (put_in, (6, NO_PLACE)),
        (other_through, (7, NO_PLACE)),
        (&other_hash, (7, BROKEN_LINK)),
        (forged, (9, CHANGED)),
        ("DELETE FROM api_key_audit_logs", (1, CUT_OFF)),
    ];
    for (change, expected) in changes {
        backend.execute(change).await;
        assert_eq!(fault(&verify(&app, None).await), expected, "{change}");
        backend.execute(RESTORE).await;
    }
    assert!(verify(&app, None).await.intact);

    // Anchors at the checkpoint, after it, and before it, where no row is left to compare.
    assert!(verify(&app, Some(&old)).await.intact);
    let other = Anchor { hash: [7; 32], ..old.clone() };
    assert_eq!(fault(&verify(&app, Some(&other)).await).0, 6);
    let head = verify(&app, None).await.head;
    assert!(verify(&app, Some(&head)).await.intact);
    let before = Anchor { seq: 5, ..old };
    assert_eq!(fault(&verify(&app, Some(&before)).await), (5, REMOVED));
    assert!(app.audit.has(&app.db, &before).await.unwrap(), "no tail was cut off");
}

#[apply(on_both!)]
async fn rows_of_a_broken_chain_are_not_pruned(backend: Backend) {
    let app = open(&backend, &keeps_30_days()).await;
    append(&app, 6).await;
    backend.execute("UPDATE api_key_audit_logs SET performed_by = 'host' WHERE seq = 3").await;
    app.clock.advance(TimeDelta::days(40));
    let before = app.clock.now() - TimeDelta::days(30);
    let outcome = app.audit.prune(&app.db, before, app.clock.now()).await.unwrap();
    assert!(matches!(outcome, Pruned::Broken(fault) if fault.seq == 3));
    service::prune_audit_log(&app).await.unwrap();
    let found = verify(&app, None).await;
    assert_eq!((fault(&found), found.head.seq), ((3, CHANGED), 6), "the evidence is kept");
}

#[apply(on_both!)]
async fn concurrent_pruning_leaves_one_chain(backend: Backend) {
    let app = open(&backend, &keeps_30_days()).await;
    append(&app, 50).await;
    app.clock.advance(TimeDelta::days(40));
    let mut tasks = JoinSet::new();
    for n in 0..8 {
        let app = app.clone();
        tasks.spawn(async move {
            if n % 2 == 0 {
                service::prune_audit_log(&app).await.unwrap();
            } else {
                append(&app, 10).await;
            }
        });
    }
    tasks.join_all().await;
    let found = verify(&app, None).await;
    assert_eq!((found.first_bad, found.verified_rows, found.head.seq), (None, 41, 91));
}

#[apply(on_both!)]
async fn without_the_setting_no_row_is_ever_pruned(backend: Backend) {
    let app = open(&backend, &[]).await;
    append(&app, 3).await;
    app.clock.advance(TimeDelta::days(10_000));
    service::prune_audit_log(&app).await.unwrap();
    assert_eq!(verify(&app, None).await.verified_rows, 3);
}
