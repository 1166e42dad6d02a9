//! The program never writes a file through a link planted by another user, and it removes read
//! access of others from its database.

use crate::audit::adoption::first_version;
use crate::support::process::{Server, octopus_on, output_text};
use crate::support::{Backend, TestApp};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Output;

const VICTIM: &str = "not ours to write";

/// How a file name can be taken before the program uses it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum LinkKind {
    Symbolic,
    Dangling,
    Hard,
}

impl LinkKind {
    const ALL: [Self; 3] = [Self::Symbolic, Self::Dangling, Self::Hard];

    /// Creates a link at `path` to a file in `elsewhere`.
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

/// Asserts that the target of the links is unchanged.
#[track_caller]
fn assert_unharmed(elsewhere: &Path, what: &str) {
    let victim = elsewhere.join("victim");
    assert_eq!(fs::read_to_string(&victim).unwrap(), VICTIM, "{what}");
    assert_eq!(fs::metadata(&victim).unwrap().permissions().mode() & 0o777, 0o644, "{what}");
    assert!(!elsewhere.join("absent").exists(), "{what}");
}

async fn run(backend: &Backend, arguments: &[&str]) -> Output {
    octopus_on(backend).await.args(arguments).output().unwrap()
}

/// A folder for the targets of links.
fn elsewhere(backend: &Backend) -> PathBuf {
    let elsewhere = backend.folder().join("elsewhere");
    fs::create_dir_all(&elsewhere).unwrap();
    elsewhere
}

#[apply(on_sqlite!)]
async fn no_command_follows_a_planted_link(backend: Backend) {
    // The name of the link, the command that uses it, and the kinds with which it succeeds.
    let cases: [(&str, &[&str], &[LinkKind]); 12] = [
        ("b.db", &["backup", "b.db"], &[]),
        ("b.db", &["backup", "b.db", "--force"], &[LinkKind::Hard]),
        ("b.db.unfinished", &["backup", "b.db"], &[LinkKind::Hard]),
        ("b.db.unfinished-journal", &["backup", "b.db"], &LinkKind::ALL),
        ("octopus.db.unfinished", &["restore", "good.db"], &[LinkKind::Hard]),
        ("octopus.db.lock", &["restore", "good.db"], &[]),
        ("octopus.db.audit-key", &["bootstrap"], &[]),
        ("octopus.db-wal", &["bootstrap"], &[]),
        ("octopus.db-shm", &["bootstrap"], &[]),
        ("octopus.db-journal", &["bootstrap"], &[]),
        ("octopus.db.before-migration-1", &["migrate"], &LinkKind::ALL),
        ("octopus.db.before-migration-1.unfinished", &["migrate"], &[LinkKind::Hard]),
    ];
    for (name, arguments, succeed) in cases {
        for link in LinkKind::ALL {
            let what = format!("{arguments:?} with a {link:?} link at {name}");
            let backend = backend.another();
            if arguments[0] == "migrate" {
                first_version(&backend).await;
            } else if arguments[0] != "bootstrap" {
                TestApp::new(&backend).await.stop().await.unwrap();
                assert!(run(&backend, &["backup", "good.db"]).await.status.success());
            }
            let elsewhere = elsewhere(&backend);
            link.at(&backend.folder().join(name), &elsewhere);
            let output = run(&backend, arguments).await;
            assert_unharmed(&elsewhere, &what);
            let succeeds = succeed.contains(&link);
            assert_eq!(output.status.success(), succeeds, "{what}: {}", output_text(&output));
            if !succeeds {
                assert!(output_text(&output).contains(name), "{what}: {}", output_text(&output));
            }
        }
    }
}

#[apply(on_sqlite!)]
async fn a_scheduled_backup_does_not_touch_the_target_of_a_planted_link(backend: Backend) {
    let folder = backend.folder().join("backups");
    fs::create_dir(&folder).unwrap();
    let elsewhere = elsewhere(&backend);
    for (hour, link) in [(1, LinkKind::Symbolic), (2, LinkKind::Dangling), (3, LinkKind::Hard)] {
        let name = format!("octopus-20200101T0{hour}0000Z.db");
        link.at(&folder.join(&name), &elsewhere);
        link.at(&folder.join(name + ".unfinished"), &elsewhere);
    }
    // A pipe without a reader: opening it for writing blocks forever.
    let pipe = folder.join("octopus-20200101T040000Z.db.unfinished");
    assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
    let variables = [("BACKUP_DIR", folder.to_str().unwrap()), ("BACKUP_KEEP", "1")];
    let server = Server::start(&backend, &variables).await;
    for _ in 0..500 {
        if !server.events("backup.created").is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(server.events("backup.created").len(), 1, "{}", server.log());
    drop(server);
    assert_unharmed(&elsewhere, "a scheduled backup");
}

#[apply(on_sqlite!)]
async fn a_database_readable_by_others_is_made_private(backend: Backend) {
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

#[apply(on_both!)]
async fn a_report_of_an_import_replaces_a_planted_link(backend: Backend) {
    for link in LinkKind::ALL {
        let elsewhere = elsewhere(&backend);
        let report = backend.folder().join("report.json");
        let _ = fs::remove_file(&report);
        link.at(&report, &elsewhere);
        let source = backend.folder().join("nothing.db");
        let arguments = ["import", source.to_str().unwrap(), "--report", "report.json"];
        run(&backend, &arguments).await;
        assert_unharmed(&elsewhere, &format!("a {link:?} link in place of a report"));
    }
}

/// Each call that can create a file, and why it does not follow a link. A new call fails the test
/// until it is added here and, if it has a name, to the tests above.
#[apply(without_database!)]
fn every_call_that_creates_a_file_is_listed() {
    let known = [
        ("src/audit/keys.rs", "OpenOptions::new", "a random name, O_EXCL"),
        ("src/audit/keys.rs", "hard_link(", "fails where anything is"),
        ("src/cli/init.rs", "OpenOptions::new", "O_EXCL"),
        ("src/db/sqlite/copy.rs", ".persist(", "replaces a link itself"),
        ("src/db/sqlite/copy.rs", ".persist_noclobber(", "fails where anything is"),
        (
            "src/db/sqlite/copy.rs",
            "VACUUM INTO",
            "into the file made by private_file, checked afterwards",
        ),
        ("src/db/write_probe.rs", "tempfile_in", "no name"),
        ("src/db/private_file.rs", "OpenOptions::new", "O_EXCL, O_NOFOLLOW"),
        ("src/db/sqlite/restore.rs", "hard_link(", "fails where anything is"),
        ("src/audit/anchors.rs", "OpenOptions::new", "appends, O_NOFOLLOW"),
        ("src/features/conversations/transfer/spool.rs", "tempfile_in", "no name"),
        ("src/import_fastapi/run.rs", "tempdir(", "a random name, for its owner alone"),
        ("src/import_fastapi/report.rs", "NamedTempFile::new_in", "a random name, O_EXCL"),
        ("src/import_fastapi/report.rs", ".persist(", "replaces a link itself"),
        (
            "src/import_fastapi/source/database.rs",
            ".tempdir(",
            "a random name, for its owner alone",
        ),
        ("src/import_fastapi/source/database.rs", "fs::copy(", "within that folder"),
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
        // Unit tests are at the end of a file.
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
