//! The audit trail: that its rows form a chain, and that whatever is done to it behind the server's
//! back is told of.

pub mod adoption;
mod anchors;
mod command;
mod export;
mod failures;
mod keys;
mod people;
mod pruning;
mod replay;
mod succession;
mod tampering;
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

// The list below names each of them, and an unlisted one is dead code.
#[expect(clippy::wildcard_imports, reason = "a second list of the tests would tell nothing")]
use {
    adoption::*, anchors::*, command::*, export::*, failures::*, keys::*, people::*, pruning::*,
    replay::*, succession::*, tampering::*, writing::*,
};

tests!(on_both: [
    a_change_of_any_column_is_reported_with_its_row,
    a_row_taken_out_moved_or_put_in_is_reported,
    a_row_where_no_row_can_be_is_reported,
    a_second_row_in_a_place_is_reported,
    a_tail_cut_off_is_reported_where_it_was_cut,
    a_tail_cut_off_with_its_head_shows_against_an_anchor,
    a_head_that_was_changed_or_removed_is_reported,
    a_trail_cannot_be_spliced_of_rows_of_another,
    the_interface_reports_what_it_found,
    audit_read_may_verify_and_read_and_items_read_may_not,
    a_hash_is_the_hmac_that_the_design_describes,
    eight_writers_at_once_make_one_unbroken_chain,
    verifying_while_others_write_raises_no_false_alarm,
    a_change_whose_row_cannot_be_appended_does_not_happen,
    a_row_names_the_request_and_who_sent_it,
    names_stay_after_the_keys_are_gone,
    rows_verify_with_the_key_they_were_hashed_with,
    an_earlier_key_signs_nothing_after_the_change_of_the_key,
    entries_of_several_keys_from_before_successions_verify,
    a_key_that_was_changed_does_not_return,
    a_server_with_the_earlier_key_adds_nothing_after_the_change,
    each_change_of_a_key_behind_the_log_is_named,
    whatever_the_interface_does_with_keys_is_as_the_log_says,
    the_command_names_the_keys_that_differ,
    keys_whose_entries_were_removed_are_no_difference,
    no_secret_is_shown_in_what_is_printed_or_logged,
    an_older_trail_is_taken_into_the_chain_as_it_stands,
    many_who_start_on_an_older_database_take_its_trail_in_once,
    an_older_trail_may_hold_details_and_times_of_every_kind,
    a_chain_whose_head_was_reset_is_not_taken_in_anew,
    a_trail_stripped_of_its_hashes_is_not_taken_in_by_a_start,
    nothing_is_lost_on_the_way_from_the_first_version,
    refused_credentials_are_counted_by_address_and_reason,
    refusals_from_many_addresses_make_a_hundred_rows_and_one,
    refusals_that_could_not_be_recorded_are_counted_again,
    what_a_key_does_to_the_data_of_users_is_recorded,
    what_users_do_themselves_leaves_no_entry_of_a_key,
    an_imported_conversation_is_recorded_with_it,
    registrations_sign_ins_and_bad_bootstrap_tokens_are_counted,
    the_command_prints_the_end_of_the_chain,
    a_cut_off_tail_shows_against_the_anchor_file,
    a_line_that_was_cut_off_does_not_stop_the_anchor_file,
    the_end_of_the_chain_is_sent_to_the_anchor_url,
    an_export_has_every_entry_and_continues_where_another_ended,
    the_script_verifies_an_export_and_finds_what_was_changed,
    verify_tells_what_it_found_and_fails_when_that_is_bad,
    verify_changes_nothing_and_makes_nothing,
    a_checkpoint_of_the_log_is_an_anchor,
    a_tail_cut_off_while_the_server_runs_is_logged,
    a_key_that_is_too_short_is_told_before_anything_starts,
    old_rows_go_behind_a_checkpoint_and_the_rest_verifies,
    what_is_done_to_a_pruned_chain_is_reported,
    rows_of_a_broken_chain_are_not_pruned,
    many_who_prune_at_once_leave_one_chain,
    without_the_setting_no_row_is_ever_pruned,
], on_sqlite: [
    the_key_s_file_is_its_owner_s_alone_and_the_same_for_all,
    a_key_file_is_not_read_where_a_key_is_set,
    a_log_chained_anew_with_a_planted_key_file_does_not_verify,
    a_file_that_was_cut_short_stops_the_start,
    a_copy_from_before_the_migration_is_put_beside_the_database,
], on_postgres: [
    without_a_key_nothing_starts_on_postgres,
    a_table_that_inherits_hides_no_row,
]);

/// What a verification finds wrong.
const MISSING: &str = "the row is missing";
const NO_PLACE: &str = "the row was put in where there is no place for it";
const UNREADABLE: &str = "the row was changed: it cannot be read";
const CHANGED: &str = "the row was changed";
const MOVED: &str = "the row was moved here from another place";
const UNCHAINED: &str = "the row was put in: it has no hash";
const NOT_ADOPTED: &str =
    "the row has no hash, as rows from before the chain have until the server's next start";
const EARLIER_KEY: &str =
    "the row was hashed with an earlier key after the chain had changed to a newer one";
const NOT_SUCCESSOR: &str = "the row changes the audit key and does not name the one before it";
const RETURNED_KEY: &str = "the row changes the audit key to one that was in use before";
const OLD_END: &str = "the last row was not hashed with AUDIT_KEY: the server has not started with \
                       that key, or the chain was cut off and continued with an earlier one";
const UNKNOWN_KEY: &str =
    "the row was hashed with a key that is neither AUDIT_KEY nor one of AUDIT_KEYS_OLD";
const BROKEN_LINK: &str = "the row does not follow the one before it: one of them was replaced";
const CUT_OFF: &str = "the chain was cut off here";
const BEYOND: &str = "the row was put in after the end of the chain";
const OTHER_HEAD: &str = "the recorded end of the chain is not this row's hash";
const NO_HEAD: &str = "the recorded end of the chain is missing or cannot be read";
const OTHER_ANCHOR: &str = "the row's hash is not the anchor's: it or one before it was replaced";

const KEYS: &str = "/api/v1/api-keys";
const LOGS: &str = "/api/v1/api-keys/audit-logs";
const VERIFY: &str = "/api/v1/admin/audit/verify";

/// A server's parts, without the server.
async fn open(backend: &Backend, variables: &[(&str, &str)]) -> AppState {
    AppState::open(backend.config(variables).await, Clock::default()).await.unwrap()
}

/// Appends a row with something in every column, in `tx`.
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

/// Appends `n` such rows.
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

/// Asserts that the chain is whole, and as long as `rows`.
async fn intact(app: &AppState, rows: i64, what: &str) -> Anchor {
    let found = verify(app, None).await;
    assert_eq!((found.first_bad, found.verified_rows, found.intact), (None, rows, true), "{what}");
    assert_eq!(found.head.seq, rows, "{what}");
    found.head
}

/// Asserts that the first bad row is at `seq`, and what is said of it.
#[track_caller]
fn broken(found: &Verification, (seq, problem): (i64, &str), what: &str) {
    let fault = found.first_bad.as_ref().unwrap_or_else(|| panic!("nobody noticed: {what}"));
    assert_eq!((fault.seq, fault.problem), (seq, problem), "{what}");
    assert!(!found.intact, "{what}");
    // Those before it are in order.
    assert!(problem == NO_PLACE || found.verified_rows == (seq - 1).max(0), "{what}");
}

/// The id of an audit key, as its hashes have it.
fn key_id(secret: &str) -> u32 {
    let digest = Sha256::new().chain_update(b"octopus-audit-key-id\0").chain_update(secret);
    let digest = digest.finalize();
    u32::from_be_bytes(digest[..4].try_into().unwrap())
}

/// Bytes in hexadecimal digits, as SQL has them.
fn bytes(backend: &Backend, hex: &str) -> String {
    if backend.is_sqlite() { format!("x'{hex}'") } else { format!("'\\x{hex}'::bytea") }
}

async fn get(app: &TestApp, key: &str, path: &str) -> Value {
    app.get(path).key(key).send().await.expect(200)
}
