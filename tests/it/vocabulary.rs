//! Code and documentation use the field's terms: the words of docs/ARCHITECTURE.md, section Terms, and
//! none of those below.

use std::fs;
use std::path::{Path, PathBuf};

/// Words that are not used, and what replaces them.
const COINED: &[(&str, &str)] = &[
    ("somebody", "a user, a client, another process"),
    ("nobody", "no user, no client"),
    ("whoever", "a user who, a client that"),
    ("oneself", "the current user"),
    ("deed", "operation"),
    ("deeds", "operations"),
    ("trail", "audit log"),
    ("told", "notified, returned"),
    ("hear", "receive"),
    ("heard", "received"),
    ("lend", "acquire a connection"),
    ("lent", "pooled connection"),
    ("lender", "connection pool"),
    ("salvage", "unread body"),
    ("seat", "stream slot"),
    ("seats", "stream slots"),
    ("moving in", "import from FastAPI"),
    ("goes on", "continues"),
    ("going on", "continuing, resuming"),
    ("is gone", "was deleted"),
    ("are gone", "were deleted"),
    ("as good as", "idempotent"),
    ("sign of life", "heartbeat"),
    ("signs of life", "heartbeats"),
    ("logged in", "signed in"),
    ("walk", "quick start, tutorial"),
    ("beat", "heartbeat"),
    ("trouble", "outage, transient error"),
    ("notice", "webhook event"),
    ("notices", "webhook events"),
    ("recheck", "revalidation"),
    ("one s own", "the current user's"),
];

/// Texts that may contain a coined word, each for a reason.
const ALLOWED: &[&str] = &[
    // Stored audit actions, the operation id of an API route, and an option of the first version.
    "adopt_trail",
    "prune_trail",
    "import_trail",
    "verify_audit_trail",
    "adopt-trail",
    // A table that a migration created.
    "expiry_notices",
    // The system's unprivileged user, and names that no user has.
    "`nobody`",
    "\"nobody\"",
    "TRIGGER nobody",
    "FUNCTION nobody",
    "of nobody",
    "'somebody'",
];
/// Files that list former names and texts.
const FORMER: [&str; 3] = ["docs/COMPATIBILITY.md", "docs/CHANGELOG.md", "tests/it/vocabulary.rs"];

/// Returns the words of `line`: lower case, identifiers split into their words, one blank between.
fn words(line: &str) -> String {
    let mut text = String::from(" ");
    let mut before = ' ';
    for c in line.chars() {
        if c.is_ascii_uppercase() && before.is_ascii_lowercase() {
            text.push(' ');
        }
        match c {
            c if c.is_alphabetic() => text.extend(c.to_lowercase()),
            _ if text.ends_with(' ') => {}
            _ => text.push(' '),
        }
        before = c;
    }
    text.push(' ');
    text
}

/// Returns the coined words of `line`.
fn coined(line: &str) -> Vec<&'static str> {
    let text = words(line);
    let is_in = |(word, _): &&(&str, &str)| text.contains(&format!(" {word} "));
    COINED.iter().filter(is_in).map(|(word, _)| *word).collect()
}

/// Returns the part of a line of a test that is checked: test data may be any text.
fn without_strings(line: &str) -> String {
    line.split('"').step_by(2).collect::<Vec<_>>().join(" ")
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[apply(without_database!)]
fn no_coined_word_is_used() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Not migrations: those that have landed are never edited.
    let top = ["README.md", "SECURITY.md", "Dockerfile", ".env.example", "Cargo.toml", "build.rs"];
    let mut paths: Vec<PathBuf> = top.iter().map(|file| root.join(file)).collect();
    for folder in ["src", "tests/it", "benches", "docs", "scripts", "deploy", "ci", ".ci"] {
        files(&root.join(folder), &mut paths);
    }
    let (mut checked, mut found) = (0, vec![]);
    for path in paths {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        if FORMER.contains(&name.as_str()) {
            continue;
        }
        let Ok(text) = fs::read_to_string(&path) else { continue }; // an image
        checked += 1;
        let is_test = name.starts_with("tests/") || name.starts_with("benches/");
        for (number, line) in (1..).zip(text.lines()) {
            let line =
                ALLOWED.iter().fold(line.to_owned(), |line, allowed| line.replace(allowed, ""));
            let line = if is_test { without_strings(&line) } else { line };
            for word in coined(&line) {
                let (_, instead) = COINED.iter().find(|(coined, _)| *coined == word).unwrap();
                found.push(format!("{name}:{number}: {word} → {instead}"));
            }
        }
    }
    assert!(checked > 400, "{checked} files");
    assert!(found.is_empty(), "{} coined words:\n{}", found.len(), found.join("\n"));
}

#[apply(without_database!)]
fn a_coined_word_is_found_in_identifiers_and_text() {
    for (line, expected) in [
        ("fn take_trail(self)", vec!["trail"]),
        ("struct AuditTrail;", vec!["trail"]),
        ("/// It is told that it goes on.", vec!["told", "goes on"]),
        ("trailing detail, untold", vec![]),
    ] {
        assert_eq!(coined(line), expected, "{line}");
    }
}
