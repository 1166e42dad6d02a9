//! Database files that cannot be opened: every command names the path, the cause and the remedy.

use crate::support::Backend;
use crate::support::process::{octopus, output_text};
use sqlx::sqlite::{SqliteConnectOptions, SqliteLockingMode};
use sqlx::{ConnectOptions, Connection, Executor};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The user `nobody`, which owns no file.
const OTHER: u32 = 65534;

/// Commands that open the database. `serve` is the default.
const COMMANDS: [&[&str]; 7] = [
    &["serve"],
    &["migrate"],
    &["bootstrap"],
    &["keys", "list"],
    &["backup", "b.db"],
    &["verify"],
    &["anchor"],
];

/// Asserts that each command fails on the database `file` with an error that has all of `expected`.
fn all_fail(program: &dyn Fn() -> Command, file: &Path, expected: &[&str]) {
    for arguments in COMMANDS {
        let mut command = program();
        command.args(arguments).env("PORT", "0");
        command.env("DATABASE_URL", format!("sqlite:///{}", file.display()));
        let output = command.output().unwrap();
        let text = output_text(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        let directory = file.parent().unwrap().to_str().unwrap();
        for part in expected.iter().chain([&directory]) {
            assert!(text.contains(part), "{arguments:?}: no {part:?} in {text}");
        }
        assert!(!text.contains("code: "), "{arguments:?}: {text}");
    }
}

/// A database file in a separate directory.
fn database(backend: &Backend, folder: &str) -> PathBuf {
    let folder = backend.folder().join(folder);
    fs::create_dir(&folder).unwrap();
    let file = folder.join("octopus.db");
    let url = format!("sqlite:///{}", file.display());
    let output = octopus(&folder).arg("migrate").env("DATABASE_URL", url).output().unwrap();
    assert!(output.status.success(), "{}", output_text(&output));
    file
}

#[apply(on_sqlite!)]
async fn a_file_that_cannot_be_opened_is_explained(backend: Backend) {
    let folder = backend.folder();
    let program = || octopus(folder);
    let directory = folder.join("a.db");
    fs::create_dir(&directory).unwrap();
    all_fail(&program, &directory, &["a.db: it is a directory; name a file"]);
    let text = folder.join("text.db");
    fs::write(&text, "Dear diary, ".repeat(1000)).unwrap();
    all_fail(&program, &text, &["text.db is not an SQLite database; name another file"]);
    let missing = folder.join("missing");
    all_fail(&program, &missing.join("octopus.db"), &["does not exist; create it"]);
}

#[apply(on_sqlite!)]
async fn a_locked_file_is_explained(backend: Backend) {
    let file = database(&backend, "locked");
    let options = SqliteConnectOptions::new().filename(&file);
    let mut other = options.locking_mode(SqliteLockingMode::Exclusive).connect().await.unwrap();
    other.execute("BEGIN IMMEDIATE; UPDATE installation SET version = version").await.unwrap();
    let url = format!("sqlite:///{}", file.display());
    for arguments in [&["keys", "list"][..], &["backup", "b.db"]] {
        let mut command = octopus(backend.folder());
        let output = command.args(arguments).env("DATABASE_URL", &url).output().unwrap();
        let text = output_text(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("octopus.db: another process has locked it"), "{text}");
    }
    other.close().await.unwrap();
}

/// The program at a path that every user may run, or `None` if this test cannot change the user.
fn program_for_others(backend: &Backend) -> Option<PathBuf> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        let why = "only root can run a process as another user";
        assert!(std::env::var_os("OCTOPUS_REQUIRE_MOUNT").is_none(), "{why}");
        return None;
    }
    fs::set_permissions(backend.folder(), Permissions::from_mode(0o755)).unwrap();
    let (built, copy) = (octopus(backend.folder()), backend.folder().join("octopus"));
    if fs::hard_link(built.get_program(), &copy).is_err() {
        fs::copy(built.get_program(), &copy).unwrap();
    }
    Some(copy)
}

#[apply(on_sqlite!)]
async fn files_and_folders_of_another_user_are_explained(backend: Backend) {
    let Some(program) = program_for_others(&backend) else { return };
    let as_other = || {
        let mut command = Command::new(&program);
        command.env_clear().current_dir(backend.folder()).uid(OTHER).gid(OTHER);
        command
    };
    let users = "belongs to uid 0, and this process runs as uid 65534";
    // A file of root in a folder that everyone may write.
    let file = database(&backend, "file");
    let open = || fs::set_permissions(file.parent().unwrap(), Permissions::from_mode(0o777));
    open().unwrap();
    all_fail(&as_other, &file, &["Permission denied", &format!("it {users}"), "chown"]);
    // A file of the user in a folder that only root may write.
    let file = database(&backend, "folder");
    chown(&file, Some(OTHER), Some(OTHER)).unwrap();
    fs::set_permissions(file.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
    all_fail(&as_other, &file, &["Permission denied", users]);
    // A folder that the user may not enter.
    let file = database(&backend, "closed");
    fs::set_permissions(file.parent().unwrap(), Permissions::from_mode(0o700)).unwrap();
    all_fail(&as_other, &file, &["Permission denied"]);
    // A file of root that SQLite would use as the write-ahead log.
    let file = database(&backend, "log");
    chown(&file, Some(OTHER), Some(OTHER)).unwrap();
    fs::set_permissions(file.parent().unwrap(), Permissions::from_mode(0o777)).unwrap();
    let log = file.with_file_name("octopus.db-wal");
    fs::write(&log, "").unwrap();
    fs::set_permissions(&log, Permissions::from_mode(0o600)).unwrap();
    all_fail(&as_other, &file, &["octopus.db-wal: Permission denied", users]);
}
