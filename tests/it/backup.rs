//! Backups, what is verified of a database, restoring, and the lock that keeps one server at a file.

mod lock;

use crate::support::tests;

// The list below names each of them, and an unlisted one is dead code.
#[expect(clippy::wildcard_imports, reason = "a second list of the tests would tell nothing")]
use lock::*;

tests!(on_both: [
], on_sqlite: [
    a_second_server_on_the_same_file_refuses_to_start,
    the_lock_goes_with_its_process_and_leaves_nothing_after_a_clean_end,
    of_many_that_start_at_once_one_serves,
    commands_go_on_beside_a_server,
    a_server_that_refuses_a_database_leaves_no_lock_beside_it,
], on_postgres: [
    many_servers_share_one_postgres,
]);
