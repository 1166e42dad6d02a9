//! No file that the program creates is reached through a link that another user planted, and a
//! database that others can read is taken from them.

use crate::audit::adoption::first_version;
use crate::support::process::{Server, octopus_on, said};
use crate::support::{Backend, TestApp, tests};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Output;

tests!(on_both: [
    a_report_of_an_import_replaces_a_planted_link,
], on_sqlite: [
    no_command_follows_a_planted_link,
    a_scheduled_backup_leaves_what_a_planted_link_names,
    a_database_that_others_can_read_is_taken_from_them,
], once: [
    every_place_that_creates_a_file_is_known,
]);

const VICTIM: &str = "not ours to write";

/// How a name can be taken before the program uses it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Plant {
    Symbolic,
    Dangling,
    Hard,
}

impl Plant {
    const ALL: [Self; 3] = [Self::Symbolic, Self::Dangling, Self::Hard];

    /// Plants a link at `path` to a file in `elsewhere`.
    fn at(self, path: &Path, elsewhere: &Path) {
        let victim = elsewhere.join("victim");
        fs::write(&victim, VICTIM).unwrap();
        fs::set_permissions(&victim, Permissions::from_mode(0o644)).unwrap();
        match self {
            Self::Symbolic => symlink(&victim, path).unwrap(),
            Self::Dangling => symlink(elsewhere.join("absent"), path).unwrap(),
            Self::Hard => fs::hard_link(&victim, path).unwrap(),
        }
    }
}

/// Asserts that what links name is as it was.
#[track_caller]
fn unharmed(elsewhere: &Path, what: &str) {
    let victim = elsewhere.join("victim");
    assert_eq!(fs::read_to_string(&victim).unwrap(), VICTIM, "{what}");
    assert_eq!(fs::metadata(&victim).unwrap().permissions().mode() & 0o777, 0o644, "{what}");
    assert!(!elsewhere.join("absent").exists(), "{what}");
}

async fn run(backend: &Backend, arguments: &[&str]) -> Output {
    octopus_on(backend).await.args(arguments).output().unwrap()
}

/// A folder for what links name.
fn elsewhere(backend: &Backend) -> PathBuf {
    let elsewhere = backend.folder().join("elsewhere");
    fs::create_dir_all(&elsewhere).unwrap();
    elsewhere
}

async fn no_command_follows_a_planted_link(backend: Backend) {
    // The name that is planted, the command that comes upon it, and whether it must succeed.
    let cases: [(&str, &[&str], &[Plant]); 12] = [
        ("b.db", &["backup", "b.db"], &[]),
        ("b.db", &["backup", "b.db", "--force"], &[Plant::Hard]),
        ("b.db.unfinished", &["backup", "b.db"], &[Plant::Hard]),
        ("b.db.unfinished-journal", &["backup", "b.db"], &Plant::ALL),
        ("octopus.db.unfinished", &["restore", "good.db"], &[Plant::Hard]),
        ("octopus.db.lock", &["restore", "good.db"], &[]),
        ("octopus.db.audit-key", &["bootstrap"], &[]),
        ("octopus.db-wal", &["bootstrap"], &[]),
        ("octopus.db-shm", &["bootstrap"], &[]),
        ("octopus.db-journal", &["bootstrap"], &[]),
        ("octopus.db.before-migration-1", &["migrate"], &Plant::ALL),
        ("octopus.db.before-migration-1.unfinished", &["migrate"], &[Plant::Hard]),
    ];
    for (name, arguments, succeed) in cases {
        for plant in Plant::ALL {
            let what = format!("{arguments:?} with a {plant:?} link at {name}");
            let backend = backend.another();
            if arguments[0] == "migrate" {
                first_version(&backend).await;
            } else if arguments[0] != "bootstrap" {
                TestApp::new(&backend).await.stop().await.unwrap();
                assert!(run(&backend, &["backup", "good.db"]).await.status.success());
            }
            let elsewhere = elsewhere(&backend);
            plant.at(&backend.folder().join(name), &elsewhere);
            let output = run(&backend, arguments).await;
            unharmed(&elsewhere, &what);
            let succeeds = succeed.contains(&plant);
            assert_eq!(output.status.success(), succeeds, "{what}: {}", said(&output));
            if !succeeds {
                assert!(said(&output).contains(name), "{what}: {}", said(&output));
            }
        }
    }
}

async fn a_scheduled_backup_leaves_what_a_planted_link_names(backend: Backend) {
    let folder = backend.folder().join("backups");
    fs::create_dir(&folder).unwrap();
    let elsewhere = elsewhere(&backend);
    for (hour, plant) in [(1, Plant::Symbolic), (2, Plant::Dangling), (3, Plant::Hard)] {
        let name = format!("octopus-20200101T0{hour}0000Z.db");
        plant.at(&folder.join(&name), &elsewhere);
        plant.at(&folder.join(name + ".unfinished"), &elsewhere);
    }
    // Nobody reads this pipe: who opens it waits forever.
    let pipe = folder.join("octopus-20200101T040000Z.db.unfinished");
    assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
    let variables = [("BACKUP_DIR", folder.to_str().unwrap()), ("BACKUP_KEEP", "1")];
    let server = Server::start(&backend, &variables).await;
    for _ in 0..500 {
        if !server.events("backup.made").is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(server.events("backup.made").len(), 1, "{}", server.log());
    drop(server);
    unharmed(&elsewhere, "a scheduled backup");
}

async fn a_database_that_others_can_read_is_taken_from_them(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.admin().await;
    app.stop().await.unwrap();
    let names = ["octopus.db", "octopus.db.audit-key"];
    for mode in [0o644, 0o660, 0o666, 0o777] {
        for name in names {
            let path = backend.folder().join(name);
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        let server = Server::start(&backend, &[]).await;
        let warnings = server.events("database.permissions_tightened");
        let named = |name: &str| {
            let is_it = |file: &str| file.ends_with(name);
            warnings.iter().any(|event| event["file"].as_str().is_some_and(is_it))
        };
        for name in names {
            let found = fs::metadata(backend.folder().join(name)).unwrap().permissions().mode();
            assert_eq!(found & 0o777, 0o600, "{name} had {mode:o}");
            assert!(named(name), "{name}: {}", server.log());
        }
        assert!(warnings.iter().all(|event| event["was"] == format!("{mode:o}")), "{warnings:?}");
        assert_eq!(server.stop().0, Some(0));
        let server = Server::start(&backend, &[]).await;
        assert!(server.events("database.permissions_tightened").is_empty(), "{}", server.log());
    }
}

async fn a_report_of_an_import_replaces_a_planted_link(backend: Backend) {
    for plant in Plant::ALL {
        let elsewhere = elsewhere(&backend);
        let report = backend.folder().join("report.json");
        let _ = fs::remove_file(&report);
        plant.at(&report, &elsewhere);
        let source = backend.folder().join("nothing.db");
        let arguments = ["import", source.to_str().unwrap(), "--report", "report.json"];
        run(&backend, &arguments).await;
        unharmed(&elsewhere, &format!("a {plant:?} link in place of a report"));
    }
}

/// Each call that can create a file, and why it does not follow a link. A new one fails the test,
/// until it is added here and, unless it has no name, to the tests above.
fn every_place_that_creates_a_file_is_known() {
    let known = [
        ("src/audit/keys.rs", "OpenOptions::new", "a random name, O_EXCL"),
        ("src/audit/keys.rs", "hard_link(", "fails where anything is"),
        ("src/db/connect.rs", "tempfile_in", "no name"),
        ("src/db/copy.rs", ".persist(", "replaces a link itself"),
        ("src/db/copy.rs", ".persist_noclobber(", "fails where anything is"),
        ("src/db/copy.rs", "VACUUM INTO", "into the file made by private_file, checked afterwards"),
        ("src/db/last_write.rs", "tempfile_in", "no name"),
        ("src/db/private_file.rs", "OpenOptions::new", "O_EXCL, O_NOFOLLOW"),
        ("src/db/restore.rs", "hard_link(", "fails where anything is"),
        ("src/audit/anchors.rs", "OpenOptions::new", "appends, O_NOFOLLOW"),
        ("src/features/conversations/transfer/spool.rs", "tempfile_in", "no name"),
        ("src/moving_in/mod.rs", "tempdir(", "a random name, for its owner alone"),
        ("src/moving_in/report.rs", "NamedTempFile::new_in", "a random name, O_EXCL"),
        ("src/moving_in/report.rs", ".persist(", "replaces a link itself"),
        ("src/moving_in/source/mod.rs", ".tempdir(", "a random name, for its owner alone"),
        ("src/moving_in/source/mod.rs", "fs::copy(", "within that folder"),
    ];
    let calls = [
        "OpenOptions::new",
        "File::create",
        "File::options",
        "fs::write(",
        "fs::copy(",
        "fs::rename(",
        "hard_link(",
        "fs::symlink;",
        "fs::symlink(",
        "create_dir",
        "tempfile_in",
        "tempfile()",
        "tempdir(",
        "NamedTempFile::new",
        ".persist(",
        ".persist_noclobber(",
        "VACUUM INTO",
        ".create_if_missing(true",
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = vec![];
    for file in sources(&root.join("src")) {
        let text = fs::read_to_string(&file).unwrap();
        // Tests stand at the end.
        let text = text.split("#[cfg(test)]").next().unwrap();
        let name = file.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        for call in calls.iter().filter(|call| text.contains(**call)) {
            let is_known = |(known, what, _): &&(&str, &str, &str)| {
                *known == name && (what.contains(*call) || call.contains(*what))
            };
            if !known.iter().any(|entry| is_known(&entry)) {
                found.push(format!("{name}: {call}"));
            }
        }
    }
    assert!(found.is_empty(), "creates a file, and is not known: {found:?}");
    for (file, call, _) in known {
        let text = fs::read_to_string(root.join(file)).unwrap();
        assert!(text.contains(call), "{file} has no {call} any more");
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = vec![];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    files
}
