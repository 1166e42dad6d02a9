//! Estimates with zxcvbn how many guesses a secret withstands.
//!
//! The running time of zxcvbn grows much faster than its input: 34 ms for 24 characters in the
//! worst case, more than a second for 64. It therefore gets at most [`WINDOW`] characters per call.
//! A secret is at least as hard to guess as any part of it, so a longer secret is rated by the best
//! of three parts. Repeats, sequences and the owner's names are removed first, because a part of
//! them may look random.

/// Maximum number of characters per call of zxcvbn.
const WINDOW: usize = 24;
/// Minimum number of characters of a sequence that is reduced.
const MIN_SEQUENCE: usize = 4;
/// Minimum number of characters of a name that is searched for.
const MIN_NAME: usize = 3;
/// The rows of a US keyboard.
const KEYBOARD_ROWS: [&str; 4] = ["`1234567890-=", "qwertyuiop[]", "asdfghjkl;'", "zxcvbnm,./"];

/// Returns the decimal logarithm of the number of guesses that an attacker needs for `secret`, if
/// they know the `names` of its owner. Takes up to 100 ms of CPU time.
pub fn log10(secret: &str, names: &[&str]) -> f64 {
    let names = name_parts(names);
    let reduced = reduced(&without_names(secret, &names));
    let by_reduced = windows(&reduced).map(|part| estimate(&part, &[])).fold(0.0, f64::max);
    if secret.chars().count() > WINDOW {
        return by_reduced;
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    estimate(secret, &names).min(by_reduced)
}

fn estimate(text: &str, names: &[&str]) -> f64 {
    if text.is_empty() { 0.0 } else { zxcvbn::zxcvbn(text, names).guesses_log10() }
}

/// Returns the first, the middle and the last [`WINDOW`] characters of `text`.
fn windows(text: &str) -> impl Iterator<Item = String> {
    let characters: Vec<char> = text.chars().collect();
    let last = characters.len().saturating_sub(WINDOW);
    let mut starts = vec![0, last / 2, last];
    starts.dedup();
    starts.into_iter().map(move |start| characters.iter().skip(start).take(WINDOW).collect())
}

/// Returns the names and their words in lower case, the longest first.
fn name_parts(names: &[&str]) -> Vec<String> {
    let mut parts: Vec<String> = vec![];
    for name in names.iter().map(|name| name.to_lowercase()) {
        let words = name.split(|c: char| !c.is_alphanumeric());
        parts.extend(words.chain(name.split('@')).map(str::to_owned));
        parts.push(name);
    }
    parts.retain(|part| part.chars().count() >= MIN_NAME);
    parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
    parts.dedup();
    parts
}

/// Removes `names` from `secret`, ignoring case.
fn without_names(secret: &str, names: &[String]) -> String {
    let lower = secret.to_lowercase();
    let rest = names.iter().fold(lower.clone(), |rest, name| rest.replace(name, ""));
    if rest == lower { secret.to_owned() } else { rest }
}

/// Shortens each sequence in `text` to its first character, and then a repeated text to one period.
fn reduced(text: &str) -> String {
    let characters: Vec<char> = text.to_lowercase().chars().collect();
    let mut kept = vec![];
    let mut rest = &characters[..];
    while !rest.is_empty() {
        let length = sequence_length(rest);
        kept.push(rest[0]);
        rest = &rest[if length >= MIN_SEQUENCE { length } else { 1 }..];
    }
    kept.truncate(period(&kept));
    if kept.len() == characters.len() { text.to_owned() } else { kept.into_iter().collect() }
}

/// Returns the length of the sequence at the beginning of `text`: neighbouring code points or keys,
/// forwards or backwards, or the same character.
fn sequence_length(text: &[char]) -> usize {
    let by_code = sequence_length_by(text, |c| Some(i64::from(u32::from(c))));
    by_code.max(sequence_length_by(text, key_position))
}

fn sequence_length_by(text: &[char], position: impl Fn(char) -> Option<i64>) -> usize {
    let step = |at: usize| {
        let (one, other) = (position(*text.get(at)?)?, position(*text.get(at + 1)?)?);
        Some(other - one).filter(|step| step.abs() <= 1)
    };
    let Some(first) = step(0) else { return 1 };
    2 + (1..text.len()).take_while(|at| step(*at) == Some(first)).count()
}

/// Returns the position of a character on the keyboard. Positions in different rows are never
/// neighbours.
fn key_position(character: char) -> Option<i64> {
    let find =
        |(row, keys): (i64, &&str)| Some(100 * row + i64::try_from(keys.find(character)?).ok()?);
    (0..).zip(&KEYBOARD_ROWS).find_map(find)
}

/// Returns the length of the shortest prefix whose repetition gives `text`; the last repetition may
/// be incomplete. Returns the length of `text` if nothing is repeated.
fn period(text: &[char]) -> usize {
    let repeats =
        |length: &usize| text[*length..].iter().zip(text).all(|(one, other)| one == other);
    (1..=text.len() / 2).find(repeats).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_and_sequences_of_any_length_are_reduced() {
        for (text, expected) in [
            ("aaaaaaaa", "a"),
            ("abcabcabcab", "abc"),
            ("01234567890123456789", "0"),
            ("abcdefghijklmnopqrstuvwxyz0123456789", "a0"),
            ("qwertyuiopASDFGHJKLmnbvcxz", "qam"),
            ("zyxwv98765", "z9"),
            ("kVkVkVkV", "kv"),
            ("correct horse", "correct horse"),
            ("Tr0ub4dour&3", "Tr0ub4dour&3"),
            ("", ""),
        ] {
            assert_eq!(reduced(text), expected, "{text}");
        }
    }

    #[test]
    fn a_secret_is_as_hard_to_guess_as_its_best_part() {
        let strong = "x9Kq-Tw7z_Bn4Lr2";
        for text in [strong.to_owned(), format!("{}{strong}", "a".repeat(100)), strong.repeat(8)] {
            assert!(log10(&text, &[]) > 10.0, "{text}");
        }
        let email = "a.rather.long.name@some.domain.example.com";
        assert!(log10(email, &[]) > 10.0 && log10(email, &[email]) < 3.0);
        assert!(log10(&format!("{email}1").repeat(2), &[email]) < 3.0);
    }
}
