//! The audit log: its entries form a hash chain, and verification reports every manipulation of the
//! database.

pub mod adoption;
mod anchors;
mod command;
mod export;
mod failures;
mod key_change;
mod keys;
mod pruning;
mod replay;
mod tampering;
mod users;
mod writing;

use crate::support::{Backend, TestApp, tests};
use octopus::audit::{Action, Anchor, Origin, PerformedBy, Subject, Verification};
use octopus::core::clock::Clock;
use octopus::db::Tx;
use octopus::http::RequestId;
use octopus::state::AppState;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

// The list below names each test; the compiler reports an unlisted one as dead code.
#[expect(clippy::wildcard_imports, reason = "a second list of the tests would be redundant")]
use {
    adoption::*, anchors::*, command::*, export::*, failures::*, key_change::*, keys::*,
    pruning::*, replay::*, tampering::*, users::*, writing::*,
};

tests!(on_both: [
    a_change_of_any_column_is_reported_with_its_row,
    a_removed_moved_or_inserted_row_is_reported,
    a_row_at_an_impossible_place_is_reported,
    a_second_row_in_a_place_is_reported,
    a_tail_cut_off_is_reported_where_it_was_cut,
    a_tail_cut_off_with_its_head_shows_against_an_anchor,
    a_head_that_was_changed_or_removed_is_reported,
    an_audit_log_cannot_be_spliced_from_rows_of_another,
    the_api_reports_the_findings,
    audit_read_may_verify_and_read_and_items_read_may_not,
    a_hash_is_the_hmac_that_the_design_describes,
    eight_concurrent_writers_make_one_unbroken_chain,
    verifying_while_others_write_raises_no_false_alarm,
    a_change_whose_entry_cannot_be_appended_is_rolled_back,
    an_entry_has_the_request_id_and_the_caller,
    the_names_of_deleted_keys_stay_in_the_audit_log,
    rows_verify_with_the_key_they_were_hashed_with,
    an_earlier_key_signs_nothing_after_the_change_of_the_key,
    entries_of_several_keys_from_before_successions_verify,
    a_key_that_was_changed_does_not_return,
    a_server_with_the_earlier_key_adds_nothing_after_the_change,
    each_unlogged_change_of_a_key_is_reported,
    keys_changed_through_the_api_match_the_audit_log,
    the_command_names_the_keys_that_differ,
    keys_whose_entries_were_pruned_are_not_reported,
    no_secret_is_printed_or_logged,
    an_older_audit_log_is_adopted_into_the_chain_unchanged,
    concurrent_starts_on_an_older_database_adopt_its_audit_log_once,
    an_older_audit_log_may_have_details_and_times_of_every_kind,
    a_chain_whose_head_was_reset_is_not_adopted_again,
    an_audit_log_without_its_hashes_is_not_adopted_at_startup,
    migrating_from_the_first_version_loses_no_data,
    refused_credentials_are_counted_by_address_and_reason,
    refusals_from_many_addresses_create_at_most_101_entries,
    refusals_that_could_not_be_recorded_are_counted_again,
    operations_of_a_key_on_user_data_are_recorded,
    operations_of_users_create_no_entry_for_a_key,
    an_imported_conversation_is_recorded_with_it,
    registrations_sign_ins_and_bad_bootstrap_tokens_are_counted,
    the_command_prints_the_end_of_the_chain,
    a_cut_off_tail_shows_against_the_anchor_file,
    a_line_that_was_cut_off_does_not_stop_the_anchor_file,
    the_end_of_the_chain_is_sent_to_the_anchor_url,
    an_export_has_every_entry_and_continues_where_another_ended,
    the_script_verifies_an_export_and_finds_what_was_changed,
    verify_reports_its_findings_and_fails_for_a_broken_chain,
    verify_neither_changes_nor_creates_anything,
    a_checkpoint_of_the_log_is_an_anchor,
    a_tail_cut_off_while_the_server_runs_is_logged,
    a_key_that_is_too_short_is_reported_before_the_start,
    old_rows_are_replaced_by_a_checkpoint_and_the_rest_verifies,
    tampering_with_a_pruned_chain_is_reported,
    rows_of_a_broken_chain_are_not_pruned,
    concurrent_pruning_leaves_one_chain,
    without_the_setting_no_row_is_ever_pruned,
], on_sqlite: [
    the_key_file_is_private_and_shared_by_all_processes,
    a_key_file_is_not_read_where_a_key_is_set,
    a_log_chained_anew_with_a_planted_key_file_does_not_verify,
    a_file_that_was_cut_short_stops_the_start,
    a_copy_from_before_the_migration_is_stored_beside_the_database,
], on_postgres: [
    the_server_does_not_start_on_postgres_without_a_key,
    a_table_that_inherits_hides_no_row,
]);

/// The problems that a verification reports.
const MISSING: &str = "the entry is missing";
const NO_PLACE: &str = "the entry was inserted at an invalid position";
const UNREADABLE: &str = "the entry was changed: it cannot be read";
const CHANGED: &str = "the entry was changed";
const MOVED: &str = "the entry was moved here from another position";
const UNCHAINED: &str = "the entry was inserted: it has no hash";
const NOT_ADOPTED: &str =
    "the entry has no hash: the server's next start adds hashes to entries from before the chain";
const EARLIER_KEY: &str =
    "the entry was signed with an earlier key after the chain changed to a newer one";
const NOT_SUCCESSOR: &str = "the entry changes the audit key and does not name the previous key";
const RETURNED_KEY: &str = "the entry changes the audit key to one that was in use before";
const OLD_END: &str = "the last entry was not signed with AUDIT_KEY: the server has not started \
                       with that key, or the chain was truncated and continued with an earlier one";
const UNKNOWN_KEY: &str =
    "the entry was signed with a key that is neither AUDIT_KEY nor one of AUDIT_KEYS_OLD";
const BROKEN_LINK: &str = "the entry does not follow the previous entry: one of them was replaced";
const CUT_OFF: &str = "the chain is truncated here";
const BEYOND: &str = "the entry was inserted after the head of the chain";
const OTHER_HEAD: &str = "the recorded head of the chain is not this entry's hash";
const NO_HEAD: &str = "the recorded head of the chain is missing or cannot be read";
const OTHER_ANCHOR: &str =
    "the entry's hash differs from the anchor: it or an earlier entry was replaced";

const KEYS: &str = "/api/v1/api-keys";
const LOGS: &str = "/api/v1/api-keys/audit-logs";
const VERIFY: &str = "/api/v1/admin/audit/verify";

/// The application state without a running server.
async fn open(backend: &Backend, variables: &[(&str, &str)]) -> AppState {
    AppState::open(backend.config(variables).await, Clock::default()).await.unwrap()
}

/// Appends an entry with a value in every column, in `tx`.
async fn record(app: &AppState, tx: &mut Tx, n: i64) -> sqlx::Result<()> {
    let sent = HeaderValue::from_static("a-request");
    let origin = Origin {
        by: PerformedBy::Key { id: 7, name: "the caller".into() },
        ip: Some([192, 0, 2, 1].into()),
        request_id: Some(RequestId::of(Some(&sent))),
    };
    let (subject, details) = (Subject::Key(n, "the key"), json!({"n": n, "text": "\"ä\\\n"}));
    app.audit.record(tx, &origin, Action::UpdateUser, subject, &details, app.clock.now()).await
}

/// Appends `n` such entries.
async fn append(app: &AppState, n: i64) {
    let mut tx = app.db.begin().await.unwrap();
    for n in 1..=n {
        record(app, &mut tx, n).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn verify(app: &AppState, anchor: Option<&Anchor>) -> Verification {
    app.audit.verify(&app.db, anchor).await.unwrap()
}

/// Asserts that the chain is intact and has `rows` entries.
async fn intact(app: &AppState, rows: i64, what: &str) -> Anchor {
    let found = verify(app, None).await;
    assert_eq!((found.first_bad, found.verified_rows, found.intact), (None, rows, true), "{what}");
    assert_eq!(found.head.seq, rows, "{what}");
    found.head
}

/// Asserts that the first bad entry is at `seq`, with this `problem`.
#[track_caller]
fn broken(found: &Verification, (seq, problem): (i64, &str), what: &str) {
    let fault = found.first_bad.as_ref().unwrap_or_else(|| panic!("no fault found: {what}"));
    assert_eq!((fault.seq, fault.problem), (seq, problem), "{what}");
    assert!(!found.intact, "{what}");
    // The entries before it verify.
    assert!(problem == NO_PLACE || found.verified_rows == (seq - 1).max(0), "{what}");
}

/// The id of an audit key as stored with its hashes.
fn key_id(secret: &str) -> u32 {
    let digest = Sha256::new().chain_update(b"octopus-audit-key-id\0").chain_update(secret);
    let digest = digest.finalize();
    u32::from_be_bytes(digest[..4].try_into().unwrap())
}

/// A SQL literal of bytes given in hexadecimal.
fn bytes(backend: &Backend, hex: &str) -> String {
    if backend.is_sqlite() { format!("x'{hex}'") } else { format!("'\\x{hex}'::bytea") }
}

async fn get(app: &TestApp, key: &str, path: &str) -> Value {
    app.get(path).key(key).send().await.expect(200)
}
