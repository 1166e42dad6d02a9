//! Splits words into phrases that SQLite's trigram index matches in time linear in a message.

use std::collections::HashMap;

/// Maximum number of occurrences of one trigram in all phrases. FTS5 reads the positions of a
/// trigram once for each of its occurrences in a phrase, and a word of 199 equal letters has 197.
const OCCURRENCES: usize = 4;

/// The phrases of an index query.
#[derive(Debug, PartialEq, Eq)]
pub struct Phrases {
    /// Parts of the words, of at least three characters. A message with all words has all phrases.
    pub all: Vec<String>,
    /// Whether, conversely, a message with all phrases has all words.
    pub are_exact: bool,
}

impl Phrases {
    /// The phrases of `words`, each of which has at least three characters.
    pub fn of(words: &[String]) -> Self {
        let mut phrases = Self { all: vec![], are_exact: true };
        let mut occurrences = HashMap::new();
        for word in words {
            phrases.add(word, &mut occurrences);
        }
        phrases
    }

    /// Adds the phrases of `word`, split at each trigram that has reached [`OCCURRENCES`].
    fn add<'w>(&mut self, word: &'w str, occurrences: &mut HashMap<&'w str, usize>) {
        let mut bounds: Vec<usize> = word.char_indices().map(|(start, _)| start).collect();
        bounds.push(word.len());
        let mut begin = 0;
        for (start, trigram) in bounds.windows(4).enumerate() {
            let count = occurrences.entry(&word[trigram[0]..trigram[3]]).or_default();
            if *count < OCCURRENCES {
                *count += 1;
                continue;
            }
            self.are_exact = false;
            if begin < start {
                self.all.push(word[bounds[begin]..trigram[2]].to_owned());
            }
            begin = start + 1;
        }
        if begin + 3 < bounds.len() {
            self.all.push(word[bounds[begin]..].to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigram_occurs_a_few_times_in_all_phrases() {
        let phrases = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            let Phrases { all, are_exact } = Phrases::of(&words);
            (all.join("|"), are_exact)
        };
        let equal = "a".repeat(199);
        for (words, expected) in [
            (vec!["one"], ("one", true)),
            (vec!["banana", "日本語の文章"], ("banana|日本語の文章", true)),
            (vec!["aaaaaa"], ("aaaaaa", true)),
            (vec!["aaaaaaa"], ("aaaaaa", false)),
            (vec!["aaaaaaab"], ("aaaaaa|aab", false)),
            (vec!["baaaaaaaaa"], ("baaaaaa", false)),
            (vec!["ééééééééx"], ("éééééé|ééx", false)),
            (vec![&equal, "aaaa", "two"], ("aaaaaa|two", false)),
        ] {
            assert_eq!(phrases(&words), (expected.0.to_owned(), expected.1), "{words:?}");
        }
    }
}
