//! Backups: creation, verification, restoring, and the lock that keeps one server per database
//! file.

pub mod copying;
mod lock;
mod restoring;
mod scheduled;
mod verifying;

use crate::support::process::{octopus_on, output_text};
use crate::support::{Backend, TestApp, tests};
use octopus::features::conversations::search;
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use tokio_util::sync::CancellationToken;

// The list below names each test; the compiler reports an unlisted one as dead code.
#[expect(clippy::wildcard_imports, reason = "a second list of the tests would be redundant")]
use {copying::*, lock::*, restoring::*, scheduled::*, verifying::*};

tests!(on_both: [
    a_database_in_order_verifies_in_use_and_at_rest,
    redundant_data_that_differs_is_reported,
    backup_settings_on_postgres_and_wrong_numbers_are_reported_at_startup,
], on_sqlite: [
    a_second_server_on_the_same_file_refuses_to_start,
    the_lock_ends_with_its_process_and_a_clean_exit_removes_its_file,
    of_many_concurrent_starts_one_serves,
    commands_work_beside_a_running_server,
    a_server_that_refuses_a_database_leaves_no_lock_beside_it,
    a_backup_has_all_data_of_the_database_and_can_be_served,
    a_backup_reports_its_result_and_what_to_keep,
    a_backup_replaces_files_only_on_request_and_never_the_database,
    a_failed_backup_leaves_no_file_and_leftovers_do_not_block_the_next_one,
    a_backup_can_be_made_before_an_upgrade_and_after_a_crash,
    faults_that_sqlite_does_not_report_are_reported,
    a_page_that_was_overwritten_is_found_in_a_backup,
    verifying_a_backup_leaves_it_and_its_folder_as_they_are,
    a_raw_copy_is_verified_together_with_its_log,
    a_restored_database_is_the_backup_and_the_old_one_is_kept,
    an_invalid_backup_is_refused_and_nothing_changes,
    a_database_that_is_open_elsewhere_is_not_replaced,
    a_write_ahead_log_is_neither_lost_nor_applied_to_another_database,
    a_restore_that_is_killed_leaves_the_old_one_or_the_new_one_whole,
    a_second_name_of_the_database_is_removed_at_the_next_start,
    a_backup_of_an_older_octopus_is_restored_and_reported_as_such,
    every_created_file_is_private_to_its_owner,
    a_backup_is_made_at_the_start_and_not_again_before_it_is_time,
    only_the_newest_backups_are_kept_and_others_files_are_left_alone,
    a_backup_that_has_become_the_database_is_never_removed,
    a_failed_backup_is_reported_and_retried_and_removes_nothing,
], on_postgres: [
    many_servers_share_one_postgres,
    on_postgres_the_commands_name_their_replacements,
    a_dump_of_pg_dump_can_be_restored_and_verifies,
]);

/// A server with rows in every table that clients fill, and its admin key.
async fn filled(backend: &Backend) -> (TestApp, String) {
    let app = TestApp::new(backend).await;
    let admin = app.admin().await;
    let (_, id) = app.key(&admin, "read").await;
    let rotate = app.act(&format!("/api/v1/api-keys/{id}/rotate")).key(&admin).send().await;
    assert_eq!(rotate.status, 200, "{}", rotate.text);
    let users = [app.user("ann").await, app.user("bob").await];
    app.login("ann").await;
    for _ in 0..2 {
        let conversation = app.conversation(&admin, &users).await;
        let messages = format!("/api/v1/conversations/{conversation}/messages");
        for n in 0..5 {
            let body = json!({"role": "user", "content": format!("{n}: où est le poulpe?"), "user_id": users[0]});
            app.post(&messages, body).key(&admin).send().await.expect(201);
        }
    }
    let edit = json!({"content": "it is in the sea"});
    app.patch("/api/v1/conversations/1/messages/2", edit).key(&admin).send().await.expect(200);
    let deletion = app.delete("/api/v1/conversations/1/messages/3").key(&admin).send().await;
    assert!(deletion.status < 300, "{}", deletion.text);
    // Flush now, rather than within a second.
    search::catch_up(&app.state.db, &CancellationToken::new()).await.unwrap();
    (app, admin)
}

async fn run(backend: &Backend, arguments: &[&str]) -> Output {
    octopus_on(backend).await.args(arguments).output().unwrap()
}

/// Creates a backup of the test's database in its folder.
async fn backed_up(backend: &Backend, name: &str) -> PathBuf {
    let output = run(backend, &["backup", name]).await;
    assert!(output.status.success(), "{}", output_text(&output));
    backend.folder().join(name)
}

/// The names of the files in a folder.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
