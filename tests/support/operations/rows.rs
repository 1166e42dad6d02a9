//! Every operation of the OpenAPI document is in the list of one test target: of `tests/TAG.rs` if
//! that exists, otherwise of `tests/it`.

use super::OperationOf;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The checks that the test target of a tag must call.
const CHECKS: [&str; 5] = [
    "check_rows(",
    "check_credentials(",
    "check_sessions(",
    "check_worst_requests(",
    "check_write_responses(",
];

/// The file of the test target of `tag`. It need not exist.
fn target(tag: &str) -> PathBuf {
    let name = format!("tests/{}.rs", tag.replace('-', "_"));
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The method and path of each operation whose first tag `is_chosen`, without a tag for the empty
/// text.
fn documented(is_chosen: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let document = serde_json::to_value(octopus::api::document()).unwrap();
    let mut operations = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let is_method =
                !["summary", "description", "servers", "parameters"].contains(&method.as_str());
            if is_method && is_chosen(operation["tags"][0].as_str().unwrap_or_default()) {
                operations.insert(format!("{method} {path}"));
            }
        }
    }
    operations
}

/// Checks the list of the test target of `tag`: it has one row for each operation of the tag, and
/// no others.
///
/// # Panics
/// If a row is missing, surplus, or incomplete.
pub fn check_rows<W: 'static>(
    tag: &str,
    operations: impl IntoIterator<Item = &'static OperationOf<W>>,
) {
    assert!(target(tag).is_file(), "the tests of {tag} belong in {}", target(tag).display());
    compare(&documented(|it| it == tag), operations);
}

/// Checks the list of `tests/it`: it has one row for each operation whose tag has no test target of
/// its own, and each such target calls all checks.
///
/// # Panics
/// If a row is missing, surplus, or incomplete, or if a test target omits a check.
pub fn check_rows_of_other_tags<W: 'static>(
    operations: impl IntoIterator<Item = &'static OperationOf<W>>,
) {
    compare(&documented(|tag| tag.is_empty() || !target(tag).is_file()), operations);
    let document = serde_json::to_value(octopus::api::document()).unwrap();
    for tag in document["tags"].as_array().unwrap() {
        let tag = tag["name"].as_str().unwrap();
        if let Ok(text) = fs::read_to_string(target(tag)) {
            let missing: Vec<_> = CHECKS.iter().filter(|call| !text.contains(**call)).collect();
            assert!(missing.is_empty(), "{} does not call {missing:?}", target(tag).display());
        }
    }
}

fn compare<W: 'static>(
    documented: &BTreeSet<String>,
    operations: impl IntoIterator<Item = &'static OperationOf<W>>,
) {
    assert!(!documented.is_empty(), "no operation is documented");
    let mut rows = BTreeSet::new();
    for operation in operations {
        let name = operation.name();
        let has_body = operation.written().is_some() && operation.method != "delete";
        assert_eq!(
            operation.bodies.is_some(),
            has_body,
            "{name} needs {:?}: exactly writes other than DELETE have bodies",
            operation.needs
        );
        assert!(rows.insert(name.clone()), "{name} has two rows");
    }
    let missing: Vec<_> = documented.difference(&rows).collect();
    let surplus: Vec<_> = rows.difference(documented).collect();
    assert!(missing.is_empty(), "operations without a row: {missing:?}");
    assert!(surplus.is_empty(), "rows without an operation: {surplus:?}");
}
