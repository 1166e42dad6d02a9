//! Parses the words of a search and matches them against messages.

use crate::core::offload::offload_large;
use aho_corasick::AhoCorasick;
use std::collections::{HashMap, HashSet};
use std::iter;
use std::ops::RangeInclusive;
use std::sync::{Arc, LazyLock};

/// The distinct, case-folded words of a search. A message must contain all of them.
#[derive(Clone, Debug)]
pub struct Words {
    all: Arc<[String]>,
    /// Matches all words in one pass. It omits words that are part of another word, which implies
    /// them.
    matcher: Matcher,
}

/// Matches all words in time linear in the text, independent of the number of words.
#[derive(Clone, Debug)]
struct Matcher {
    automaton: AhoCorasick,
    words: usize,
}

impl Matcher {
    fn new(all: &[String]) -> Self {
        let is_whole = |word: &&String| {
            !all.iter().any(|other| other.len() > word.len() && other.contains(word.as_str()))
        };
        let words: Vec<&String> = all.iter().filter(is_whole).collect();
        // A query has at most 200 characters, far below the automaton's limits.
        let automaton = AhoCorasick::new(&words).expect("200 characters are within the limits");
        Self { automaton, words: words.len() }
    }

    fn are_all_in(&self, folded: &str) -> bool {
        let mut missing: HashSet<usize> = (0..self.words).collect();
        // No word is part of another, so at most one match ends at each position.
        self.automaton.find_overlapping_iter(folded).any(|found| {
            missing.remove(&found.pattern().as_usize());
            missing.is_empty()
        })
    }
}

impl Words {
    /// Splits `text`, which is not blank, at whitespace and control characters. Text in double
    /// quotes is one word; an unmatched quote is an ordinary character.
    pub(super) fn parse(text: &str) -> Self {
        let is_blank = |c: char| c.is_whitespace() || c.is_control();
        let mut words: Vec<String> = vec![];
        let mut rest = text.trim_matches(is_blank);
        while !rest.is_empty() {
            let quoted = rest.strip_prefix('"').and_then(|inner| inner.split_once('"'));
            let (word, after) =
                quoted.unwrap_or_else(|| rest.split_once(is_blank).unwrap_or((rest, "")));
            let word = folded(word.trim_matches(is_blank)).replace(char::is_control, " ");
            if !word.is_empty() && !words.contains(&word) {
                words.push(word);
            }
            rest = after.trim_start_matches(is_blank);
        }
        // Only quotes, empty or unmatched: search for the text itself.
        if words.is_empty() {
            words.push(folded(text).replace(char::is_control, " "));
        }
        let matcher = Matcher::new(&words);
        Self { all: words.into(), matcher }
    }

    /// The words.
    pub(super) fn as_slice(&self) -> &[String] {
        &self.all
    }

    /// The ids of the `messages` whose content has all words.
    pub(super) async fn all_in(&self, messages: Vec<(i64, String)>) -> Vec<i64> {
        let bytes = messages.iter().map(|(_, content)| content.len()).sum();
        let words = self.clone();
        offload_large(bytes, move || {
            let found = messages.into_iter().filter(|(_, content)| words.are_in(content));
            found.map(|(id, _)| id).collect()
        })
        .await
    }

    /// Returns whether `content` has all words.
    pub(super) fn are_in(&self, content: &str) -> bool {
        self.matcher.are_all_in(&folded(content))
    }
}

/// Letters, most of rare scripts, that Unicode added, or gave another case, after the version from
/// which SQLite's tables were generated. They are not folded.
const UNFOLDED: [RangeInclusive<char>; 12] = [
    '\u{37F}'..='\u{37F}',
    '\u{528}'..='\u{52F}',
    '\u{13A0}'..='\u{13F5}',
    '\u{1C80}'..='\u{1CBF}',
    '\u{2C2F}'..='\u{2C2F}',
    '\u{A698}'..='\u{A69B}',
    '\u{A796}'..='\u{A79F}',
    '\u{A7AB}'..='\u{A7FF}',
    '\u{104B0}'..='\u{10595}',
    '\u{10C80}'..='\u{10D65}',
    '\u{118A0}'..='\u{16E5F}',
    '\u{16EA0}'..='\u{1E921}',
];

/// Case-folds `text`. Each character folds to exactly one character, as in SQLite's trigram index:
/// ß is not SS, and İ and ı are not i.
pub(super) fn folded(text: &str) -> String {
    if text.is_ascii() { text.to_ascii_lowercase() } else { text.chars().map(fold).collect() }
}

/// Folds one character through upper case: ς and σ are equal, as are ſ and s.
pub(super) fn fold(c: char) -> char {
    fn single(mut cased: impl ExactSizeIterator<Item = char>) -> Option<char> {
        cased.next().filter(|_| cased.len() == 0)
    }
    if c.is_ascii() {
        return c.to_ascii_lowercase();
    }
    // Fast path: no character from CJK radicals to Yi has another case.
    if ('\u{2E80}'..='\u{A63F}').contains(&c) {
        return c;
    }
    if c == 'ı' || UNFOLDED.iter().any(|range| range.contains(&c)) {
        return c;
    }
    let upper = single(c.to_uppercase()).unwrap_or(c);
    single(upper.to_lowercase()).unwrap_or(upper)
}

/// For each folded character, the other characters that fold to it.
static UNFOLDINGS: LazyLock<HashMap<char, Vec<char>>> = LazyLock::new(|| {
    let mut unfoldings = HashMap::<char, Vec<char>>::new();
    for c in '\0'..=*UNFOLDED[UNFOLDED.len() - 1].end() {
        let folded = fold(c);
        if folded != c {
            unfoldings.entry(folded).or_default().push(c);
        }
    }
    unfoldings
});

/// Every character that folds to `folded`.
pub(super) fn written(folded: char) -> impl Iterator<Item = char> {
    let others = UNFOLDINGS.get(&folded).map(Vec::as_slice).unwrap_or_default();
    iter::once(folded).chain(others.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::select;
    use sqlx::{Connection, Executor, SqliteConnection};

    fn words(text: &str) -> Vec<String> {
        Words::parse(text).all.to_vec()
    }

    #[test]
    fn whitespace_separates_words_and_quotes_enclose_phrases() {
        for (text, expected) in [
            ("one", vec!["one"]),
            (" One  TWO\u{3000}three\tone ", vec!["one", "two", "three"]),
            ("\"one two\" three", vec!["one two", "three"]),
            ("\" one two \"\"three\"four", vec!["one two", "three", "four"]),
            ("say \"hello", vec!["say", "\"hello"]),
            ("5\" wide", vec!["5\"", "wide"]),
            ("\"\" x", vec!["x"]),
            ("\"", vec!["\""]),
            ("\"\"", vec!["\"\""]),
            ("\"one\ntwo\u{1f}three\"", vec!["one two three"]),
            ("日本語　東京", vec!["日本語", "東京"]),
        ] {
            assert_eq!(words(text), expected, "{text:?}");
        }
    }

    #[test]
    fn folding_ignores_case_and_keeps_the_number_of_characters() {
        assert_eq!(folded("ÉCOLE ΟΔΟΣ οδος ẞß ſſ µ İı Ⓐ Ж"), "école οδοσ οδοσ ßß ss μ İı ⓐ ж");
        for c in '\0'..=char::MAX {
            let result = fold(c);
            assert_eq!(fold(result), result, "{c} {:x}", u32::from(c));
        }
    }

    #[test]
    fn every_spelling_of_a_folded_character_is_listed() {
        for c in '\0'..=char::MAX {
            assert!(written(fold(c)).any(|way| way == c), "{c} {:x}", u32::from(c));
        }
        assert_eq!(written('μ').collect::<String>(), "μµΜ");
        assert_eq!(written('語').collect::<String>(), "語");
    }

    #[tokio::test]
    async fn every_character_is_folded_as_sqlite_does() {
        const SCHEMA: &str = "CREATE VIRTUAL TABLE s USING fts5 (content, tokenize = 'trigram');
                              CREATE VIRTUAL TABLE v USING fts5vocab (s, instance);";
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        connection.execute(SCHEMA).await.unwrap();
        let is_cased = |c: &char| c.is_lowercase() || c.is_uppercase() || fold(*c) != *c;
        let mut transaction = connection.begin().await.unwrap();
        for c in ('\u{1}'..=char::MAX).filter(is_cased) {
            let insert = sqlx::query("INSERT INTO s (rowid, content) VALUES ($1, $2)");
            let insert = insert.bind(u32::from(c)).bind(c.to_string().repeat(3));
            insert.execute(&mut *transaction).await.unwrap();
        }
        let select = sqlx::query_as("SELECT doc, term FROM v");
        let terms: Vec<(u32, String)> = select.fetch_all(&mut *transaction).await.unwrap();
        assert!(terms.len() > 2000, "{}", terms.len());
        for (code, term) in terms {
            let c = char::from_u32(code).unwrap();
            assert_eq!(term, fold(c).to_string().repeat(3), "{c} {code:x}");
        }
    }

    #[test]
    fn a_message_needs_all_of_them() {
        let words = Words::parse("Two \"ne, t\"");
        assert!(words.are_in("ONE, TWO") && !words.are_in("two one,") && !words.are_in(""));
        let overlapping = Words::parse("abc bcd a b");
        assert!(overlapping.are_in("xabcd") && !overlapping.are_in("abc b a"));
    }

    proptest! {
        #[test]
        fn any_query_becomes_words_that_a_message_can_contain(
            scraps in prop::collection::vec(prop_oneof![
                3 => select(vec!["a", "two", "\"", " ", "\u{3000}", "\0", "\u{1f}", "\n", "ß", "İ", "日本", "*", "AND"])
                    .prop_map(str::to_owned),
                1 => any::<char>().prop_map(String::from),
            ], 1..20),
        ) {
            let text = scraps.concat();
            let is_blank = |c: char| c.is_whitespace() || c.is_control();
            prop_assume!(!text.chars().all(is_blank));
            let parsed = Words::parse(&text);
            prop_assert!(!parsed.all.is_empty());
            for word in parsed.as_slice() {
                prop_assert!(!word.is_empty() && !word.chars().any(char::is_control), "{word:?}");
                prop_assert_eq!(&folded(word), word);
            }
            // A text with all words matches, in any order.
            let content: Vec<&str> = parsed.all.iter().rev().map(String::as_str).collect();
            prop_assert!(parsed.are_in(&content.join(" – ")));
            // The query itself matches, unless it has quotes or control characters.
            if !text.contains('"') && !text.contains(char::is_control) {
                prop_assert!(parsed.are_in(&text), "{:?}", parsed);
            }
        }
    }
}
