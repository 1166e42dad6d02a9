//! The part of a message shown in a search result.

use super::words::{fold, folded};

/// Length of a snippet in characters.
const LENGTH: usize = 160;
/// Number of characters before the first match.
const BEFORE: usize = 40;

/// The part of `content` around the first match of `words`, which are folded, as HTML. Matches are
/// in `<mark>`; everything else is escaped. An ellipsis marks omitted text.
pub(super) fn snippet(content: &str, words: &[String]) -> String {
    let window = window(content, words.first().map_or("", String::as_str));
    let words: Vec<Vec<char>> = words.iter().map(|word| word.chars().collect()).collect();
    let folded: Vec<char> = window.shown.iter().map(|c| fold(*c)).collect();
    let mut marked = vec![false; folded.len()];
    for word in words.iter().filter(|word| !word.is_empty()) {
        for at in 0..folded.len() {
            // A word that continues beyond the window is marked up to the end of the window.
            let end = folded.len().min(at + word.len());
            let is_whole = at + word.len() <= folded.len() || window.is_cut_at_end;
            if is_whole && window.starts_word(word, at, end, &folded) {
                marked[at..end].fill(true);
            }
        }
    }
    window.html(&marked)
}

/// The visible part of a message.
struct Window {
    shown: Vec<char>,
    is_cut_at_start: bool,
    is_cut_at_end: bool,
    /// Folded characters right after the window, to match a word that continues beyond it.
    after: Vec<char>,
}

fn window(content: &str, word: &str) -> Window {
    // `find` is linear even for repetitive words. Folding keeps the number of characters.
    let folded = folded(content);
    let first = folded.find(word).map_or(0, |at| folded[..at].chars().count());
    let length = content.chars().count();
    // Near the end of the message, the window starts earlier to keep its length.
    let start = first.saturating_sub(BEFORE).min(length.saturating_sub(LENGTH));
    let end = length.min(start + LENGTH);
    Window {
        shown: content.chars().skip(start).take(end - start).collect(),
        is_cut_at_start: start > 0,
        is_cut_at_end: end < length,
        after: folded.chars().skip(end).take(LENGTH * 2).collect(),
    }
}

impl Window {
    /// Returns whether `word` begins at `at`; the window shows it up to `end`.
    fn starts_word(&self, word: &[char], at: usize, end: usize, folded: &[char]) -> bool {
        let (shown, cut_off) = word.split_at(end - at);
        folded[at..end] == *shown && self.after.starts_with(cut_off)
    }

    fn html(&self, marked: &[bool]) -> String {
        let mut html = String::with_capacity(self.shown.len() + 32);
        if self.is_cut_at_start {
            html.push('…');
        }
        let mut is_open = false;
        for (c, is_marked) in self.shown.iter().zip(marked) {
            if *is_marked != is_open {
                html.push_str(if is_open { "</mark>" } else { "<mark>" });
                is_open = *is_marked;
            }
            match c {
                '&' => html.push_str("&amp;"),
                '<' => html.push_str("&lt;"),
                '>' => html.push_str("&gt;"),
                '"' => html.push_str("&quot;"),
                '\'' => html.push_str("&#39;"),
                c => html.push(*c),
            }
        }
        if is_open {
            html.push_str("</mark>");
        }
        if self.is_cut_at_end {
            html.push('…');
        }
        html
    }
}

#[cfg(test)]
mod tests {
    use super::super::words::Words;
    use super::*;

    fn of(content: &str, text: &str) -> String {
        snippet(content, Words::parse(text).as_slice())
    }

    #[test]
    fn a_short_message_is_shown_whole_and_all_words_are_marked() {
        for (content, text, expected) in [
            ("Hello world", "WORLD", "Hello <mark>world</mark>"),
            ("aXbXc", "x", "a<mark>X</mark>b<mark>X</mark>c"),
            ("aaaa", "aa", "<mark>aaaa</mark>"),
            ("one two", "two one", "<mark>one</mark> <mark>two</mark>"),
            ("abcd", "abc bcd", "<mark>abcd</mark>"),
            ("今日は東京へ行く", "東京", "今日は<mark>東京</mark>へ行く"),
            ("a<b>&\"'", "<", "a<mark>&lt;</mark>b&gt;&amp;&quot;&#39;"),
            ("<mark>no</mark>", "zz", "&lt;mark&gt;no&lt;/mark&gt;"),
            ("", "x", ""),
        ] {
            assert_eq!(of(content, text), expected, "{content:?} {text:?}");
        }
    }

    #[test]
    fn characters_with_a_longer_case_mapping_are_matched() {
        let content = "İİİ ẞ ŉ ﬁ ǰ ΐ STRASSE ß".repeat(30);
        for text in ["İ", "ẞ", "ß", "ﬁ", "strasse", "ΐ", "ŉ ǰ", "\u{307}"] {
            let html = of(&content, text);
            assert_eq!(html.contains("<mark>"), text != "\u{307}", "{text} {html}");
        }
        assert_eq!(of("Maß", "ẞ"), "Ma<mark>ß</mark>");
    }

    #[test]
    fn a_long_message_is_cut_around_the_first_hit() {
        let content = format!("{}needle{}", "é".repeat(500), "😀".repeat(500));
        let html = of(&content, "Needle");
        let after = LENGTH - BEFORE - 6;
        let expected = format!("…{}<mark>needle</mark>{}…", "é".repeat(BEFORE), "😀".repeat(after));
        assert_eq!(html, expected);
        let at_the_end = of(&format!("{}needle", "x".repeat(500)), "needle");
        assert_eq!(at_the_end, format!("…{}<mark>needle</mark>", "x".repeat(LENGTH - 6)));
        let at_the_start = of(&format!("needle{}", "x".repeat(500)), "needle");
        assert_eq!(at_the_start, format!("<mark>needle</mark>{}…", "x".repeat(LENGTH - 6)));
    }

    #[test]
    fn a_word_that_the_end_cuts_off_is_marked_as_far_as_it_is_shown() {
        let phrase = "y".repeat(LENGTH + 20);
        let html = of(&format!("{}{phrase}", "x".repeat(100)), &phrase);
        let (before, shown) = ("x".repeat(BEFORE), "y".repeat(LENGTH - BEFORE));
        assert_eq!(html, format!("…{before}<mark>{shown}</mark>…"));
        let html = of(&format!("{}needlf", "x".repeat(LENGTH - 5)), "needle x");
        assert!(!html.contains("<mark>n"), "{html}");
    }
}
