//! What reads texts of others, given texts that nobody wrote: the stable toolchain's equivalent of
//! `cargo fuzz`. Each target begins with texts it is known to read and to refuse, and changes them.
//! What once failed is kept in `seeds` and tried first.
//!
//! Targets that only this crate can reach stand beside what they are about: cursors, `If-Match`,
//! lines and what is searched for.

mod parsers;
mod requests;

pub use parsers::TESTS as PARSERS;
pub use requests::TESTS as REQUESTS;

use crate::support::{measured, scale};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, FileFailurePersistence, TestCaseError, TestError, TestRunner};

/// A runner that keeps what fails in `seeds/{target}.txt`. `PROPTEST_CASES` says how many cases,
/// otherwise there are `short` or `long` of them.
fn runner(target: &str, short: u32, long: u32) -> TestRunner {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/fuzz/seeds");
    let file = Box::leak(format!("{folder}/{target}.txt").into_boxed_str());
    let mut config = Config::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = scale(short, long);
    }
    config.failure_persistence = Some(Box::new(FileFailurePersistence::Direct(file)));
    TestRunner::new(config)
}

/// Says how many cases went well; fails for one that did not.
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

/// Asserts that `property` is true of whatever `strategy` gives.
fn check<S: Strategy>(
    target: &str,
    strategy: S,
    property: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let mut runner = runner(target, 2000, 1_000_000);
    let outcome = runner.run(&strategy, property);
    conclude(target, &runner, outcome);
}

/// A change of a text.
#[derive(Clone, Debug)]
enum Edit {
    Insert(Index, String),
    Remove(Index, usize),
    Replace(Index, char),
    Repeat(usize),
}

/// A little that is likely to matter.
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

/// One of these texts, changed or not, or any other.
fn like(corpus: &'static [&'static str]) -> impl Strategy<Value = String> {
    let known = (select(corpus), prop::collection::vec(edit(), 0..4));
    prop_oneof![
        6 => known.prop_map(|(text, edits)| edited(text, &edits)),
        1 => prop::collection::vec(scrap(), 0..12).prop_map(|scraps| scraps.concat()),
        1 => any::<String>(),
    ]
}
