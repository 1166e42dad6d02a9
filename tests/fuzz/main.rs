//! Fuzz tests for code that parses input: the equivalent of `cargo fuzz` on the stable toolchain.
//! Each target mutates a corpus of valid and invalid texts. Inputs that once failed are stored in
//! `seeds` and tried first.
//!
//! Targets for private functions are unit tests beside the code: cursors, `If-Match`, lines and
//! search queries.

#[macro_use]
extern crate macro_rules_attribute;

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod parsers;
mod requests;

use crate::support::{measured, scale};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, FileFailurePersistence, TestCaseError, TestError, TestRunner};

/// A runner that stores failing inputs in `seeds/{target}.txt`. `PROPTEST_CASES` sets the number
/// of cases; the default is `short` or `long`.
fn runner(target: &str, short: u32, long: u32) -> TestRunner {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/seeds");
    let file = Box::leak(format!("{folder}/{target}.txt").into_boxed_str());
    let mut config = Config::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = scale(short, long);
    }
    config.failure_persistence = Some(Box::new(FileFailurePersistence::Direct(file)));
    TestRunner::new(config)
}

/// Reports the number of cases, or panics with the failing one.
fn conclude<V: std::fmt::Debug>(
    target: &str,
    runner: &TestRunner,
    outcome: Result<(), TestError<V>>,
) {
    if let Err(failure) = outcome {
        panic!("{target}: {failure}");
    }
    measured(&format!("fuzz: {target}, {} cases", runner.config().cases));
}

/// Asserts `property` for the values of `strategy`.
fn check<S: Strategy>(
    target: &str,
    strategy: S,
    property: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let mut runner = runner(target, 2000, 1_000_000);
    let outcome = runner.run(&strategy, property);
    conclude(target, &runner, outcome);
}

/// A mutation of a text.
#[derive(Clone, Debug)]
enum Edit {
    Insert(Index, String),
    Remove(Index, usize),
    Replace(Index, char),
    Repeat(usize),
}

/// A short text with characters that parsers treat specially.
fn scrap() -> impl Strategy<Value = String> {
    let known = select(vec![
        ",",
        ";",
        ":",
        "/",
        "\"",
        "'",
        "\\",
        "*",
        "%",
        "-",
        "+",
        "=",
        "?",
        "#",
        "@",
        "[",
        "]",
        "{",
        "}",
        "(",
        ")",
        "\0",
        "\r\n",
        "\t",
        " ",
        "\u{a0}",
        "\u{202e}",
        "\u{feff}",
        "é",
        "ß",
        "İ",
        "日本",
        "🐙",
        "e\u{301}",
        "0",
        "-1",
        "00",
        "1e9",
        "9223372036854775807",
        "9223372036854775808",
        "340282366920938463463374607431768211456",
        "0x1",
        "NULL",
        "OR",
        "AND",
        "NOT",
        "NEAR(",
        "::",
        "::ffff:",
        "%25",
        "..",
    ]);
    prop_oneof![3 => known.prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from)]
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (any::<Index>(), scrap()).prop_map(|(at, text)| Edit::Insert(at, text)),
        (any::<Index>(), 1..4usize).prop_map(|(at, length)| Edit::Remove(at, length)),
        (any::<Index>(), any::<char>()).prop_map(|(at, c)| Edit::Replace(at, c)),
        (2..4usize).prop_map(Edit::Repeat),
    ]
}

fn edited(text: &str, edits: &[Edit]) -> String {
    let mut all: Vec<char> = text.chars().collect();
    for edit in edits {
        match edit {
            Edit::Insert(at, text) => {
                let at = at.index(all.len() + 1);
                all.splice(at..at, text.chars());
            }
            Edit::Remove(at, length) if !all.is_empty() => {
                let at = at.index(all.len());
                all.drain(at..all.len().min(at + length));
            }
            Edit::Replace(at, c) if !all.is_empty() => {
                let at = at.index(all.len());
                all[at] = *c;
            }
            Edit::Repeat(times) if all.len() < 1000 => all = all.repeat(*times),
            Edit::Remove(..) | Edit::Replace(..) | Edit::Repeat(_) => {}
        }
    }
    all.into_iter().collect()
}

/// A text of the corpus, mutated or not, or a random text.
fn like(corpus: &'static [&'static str]) -> impl Strategy<Value = String> {
    let known = (select(corpus), prop::collection::vec(edit(), 0..4));
    prop_oneof![
        6 => known.prop_map(|(text, edits)| edited(text, &edits)),
        1 => prop::collection::vec(scrap(), 0..12).prop_map(|scraps| scraps.concat()),
        1 => any::<String>(),
    ]
}
