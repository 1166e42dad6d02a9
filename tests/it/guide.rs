//! The scripts that create and remove a feature, and the guide: its diffs apply to the feature that
//! it creates. `ci/guide.sh` also compiles the result and runs its tests.

use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const GUIDE: &str = "docs/FEATURE_IMPLEMENTATION_GUIDE.md";

/// Runs `program` in `folder`. Returns its output.
///
/// # Panics
/// If it fails.
#[track_caller]
fn run(folder: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        // Not the repository that a git hook runs the tests for.
        .env_remove("GIT_DIR")
        .env_remove("GIT_INDEX_FILE")
        .env_remove("GIT_WORK_TREE")
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (printed, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {printed}{errors}");
    printed
}

/// A repository with one commit of the files that the scripts read and change, without notes.
fn repository() -> TempDir {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("tests")).unwrap();
    for path in ["rustfmt.toml", "migrations", "scripts", "src", "tests/support"] {
        let to = copy.path().join(path);
        run(root, "cp", &["-R", path, to.to_str().unwrap()]);
    }
    for name in ["items", "notes"] {
        let tests = format!("tests/{name}.rs");
        if root.join(&tests).exists() {
            fs::copy(root.join(&tests), copy.path().join(&tests)).unwrap();
        }
    }
    run(copy.path(), "git", &["init", "--quiet"]);
    if copy.path().join("src/features/notes").exists() {
        // The reader of the guide has made it.
        run(copy.path(), "scripts/remove-feature", &["notes", "--no-build"]);
    }
    commit(copy.path());
    copy
}

fn commit(folder: &Path) {
    run(folder, "git", &["add", "--all"]);
    let author = ["-c", "user.name=test", "-c", "user.email=test@example.com"];
    let commit = ["-c", "commit.gpgsign=false", "commit", "--quiet", "--message", "test"];
    run(folder, "git", &[&author[..], &commit[..]].concat());
}

/// The changed lines of each committed file: added, removed, and the path.
fn changed(folder: &Path) -> Vec<String> {
    let lines = run(folder, "git", &["diff", "--numstat", "HEAD"]);
    lines.lines().map(|line| line.replace('\t', " ")).collect()
}

/// The files that are not committed.
fn new_files(folder: &Path) -> Vec<String> {
    let files = run(folder, "git", &["ls-files", "--others", "--exclude-standard"]);
    files.lines().map(str::to_owned).collect()
}

/// The diffs of the guide, for the migration `number`.
fn diffs(number: &str) -> Vec<String> {
    let guide = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(GUIDE)).unwrap();
    let migration = regex::Regex::new(r"\d{4}_notes\.sql").unwrap();
    let guide = migration.replace_all(&guide, format!("{number}_notes.sql"));
    let blocks = guide.split("\n```diff\n").skip(1);
    blocks.map(|rest| format!("{}\n", rest.split_once("\n```").unwrap().0)).collect()
}

fn number_of_notes(files: &[String]) -> String {
    let name = files.iter().find_map(|file| file.strip_prefix("migrations/sqlite/")).unwrap();
    name.strip_suffix("_notes.sql").unwrap().to_owned()
}

#[track_caller]
fn is_formatted(folder: &Path) {
    let files = new_files(folder)
        .into_iter()
        .filter(|file| Path::new(file).extension().is_some_and(|it| it == "rs"));
    let files: Vec<String> = files.chain(["src/features/mod.rs".into()]).collect();
    assert!(files.len() == 8, "{files:?}");
    let mut arguments = vec!["--check", "--edition", "2024"];
    arguments.extend(files.iter().map(String::as_str));
    run(folder, "rustfmt", &arguments);
}

#[apply(without_database!)]
fn a_new_feature_adds_three_lines_elsewhere_and_every_diff_of_the_guide_applies() {
    let copy = repository();
    let folder = copy.path();
    // From another directory.
    let script = folder.join("scripts/new-feature");
    run(&folder.join("src"), script.to_str().unwrap(), &["notes", "--no-build"]);
    let lines = ["2 0 src/features/mod.rs", "1 0 src/security/scope.rs"];
    assert_eq!(changed(folder), lines);
    let files = new_files(folder);
    is_formatted(folder);

    let diffs = diffs(&number_of_notes(&files));
    assert!(diffs.len() >= 3, "{} diffs", diffs.len());
    for (number, diff) in (1..).zip(diffs) {
        let file = folder.join(".git").join(format!("{number}.diff"));
        fs::write(&file, diff).unwrap();
        run(folder, "git", &["apply", file.to_str().unwrap()]);
        is_formatted(folder);
    }
    assert_eq!(new_files(folder), files);
    assert_eq!(changed(folder), lines);

    run(folder, "scripts/remove-feature", &["notes", "--no-build"]);
    assert_eq!(run(folder, "git", &["status", "--porcelain"]), "");
}

#[apply(without_database!)]
fn every_name_in_a_new_feature_is_formatted() {
    for names in [&["entries", "entry"][..], &["organisational_unit_members"]] {
        let copy = repository();
        run(copy.path(), "scripts/new-feature", &[names, &["--no-build"]].concat());
        is_formatted(copy.path());
        for file in new_files(copy.path()) {
            let text = fs::read_to_string(copy.path().join(&file)).unwrap();
            assert!(!text.contains('@'), "{file} has a word of the template:\n{text}");
        }
    }
}

#[apply(without_database!)]
fn a_name_that_is_invalid_or_taken_is_refused_and_nothing_changes() {
    let copy = repository();
    let cases: [(&[&str], &str); 8] = [
        (&["Notes"], "Notes is not a name"),
        (&["a__bs"], "a__bs is not a name"),
        (&["../notes"], "../notes is not a name"),
        (&["sheep"], "the singular must differ from sheep"),
        (&["types"], "type is a reserved word"),
        (&["users"], "src/features/users exists"),
        (&["messages"], "the database has a table of this name"),
        (&["accounts", "user"], "user is taken"),
    ];
    for (names, reason) in cases {
        let output = Command::new(copy.path().join("scripts/new-feature"))
            .args(names)
            .arg("--no-build")
            .output()
            .unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && errors.contains(reason), "{names:?}: {errors}");
    }
    for name in ["users", "nothing", "conversations"] {
        let script = copy.path().join("scripts/remove-feature");
        let output = Command::new(script).args([name, "--no-build"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}");
    }
    assert_eq!(run(copy.path(), "git", &["status", "--porcelain"]), "");
}

#[apply(without_database!)]
fn a_table_whose_migration_is_committed_is_dropped_by_a_new_one() {
    let copy = repository();
    let folder = copy.path();
    run(folder, "scripts/new-feature", &["notes", "--no-build"]);
    commit(folder);
    run(folder, "scripts/remove-feature", &["notes", "--no-build"]);
    let files = new_files(folder);
    let [postgres, sqlite] = &files[..] else { panic!("{files:?}") };
    for (file, database) in [(postgres, "postgres"), (sqlite, "sqlite")] {
        let number = file.strip_prefix(&format!("migrations/{database}/")).unwrap();
        let number = number.strip_suffix("_remove_notes.sql").unwrap();
        let number = number.trim_start_matches('0');
        let text = fs::read_to_string(folder.join(file)).unwrap();
        assert!(text.starts_with("DROP TABLE notes;\n"), "{text}");
        assert!(text.contains(&format!("SET readable_from = {number};")), "{text}");
    }
    for file in changed(folder) {
        assert!(!file.contains("migrations/"), "{file} was changed");
    }
    // The name is free again.
    run(folder, "scripts/new-feature", &["notes", "--no-build"]);
}

#[apply(without_database!)]
fn the_demo_feature_is_removed_with_its_count() {
    let copy = repository();
    let folder = copy.path();
    if !folder.join("src/features/items").exists() {
        return; // It is removed already.
    }
    run(folder, "scripts/remove-feature", &["items", "--no-build"]);
    let changed: Vec<_> =
        changed(folder).into_iter().filter(|line| line.starts_with("0 1 ")).collect();
    let expected =
        ["admin/model.rs", "admin/repository.rs"].map(|f| format!("0 1 src/features/{f}"));
    assert_eq!(changed[..2], expected);
    assert_eq!(changed[2], "0 1 src/security/scope.rs");
    let features = fs::read_to_string(folder.join("src/features/mod.rs")).unwrap();
    assert!(!features.contains("items"), "{features}");
}
