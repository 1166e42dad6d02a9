//! How many guesses a secret takes, estimated by zxcvbn.
//!
//! zxcvbn takes time that grows much faster than its input (34 ms for 24 characters at worst, more than
//! a second for 64), so it sees at most [`WINDOW`] characters at once. A secret is at least as
//! hard to guess as any part of it: of a longer one, the best of three parts counts. Repeats, sequences
//! and the owner's names are reduced before, as a part of them may look random.

/// Most characters that zxcvbn sees at once.
const WINDOW: usize = 24;
/// Shorter sequences are not reduced.
const RUN: usize = 4;
/// Shorter names are not looked for.
const NAME: usize = 3;
/// Neighbours on a keyboard.
const ROWS: [&str; 4] = ["`1234567890-=", "qwertyuiop[]", "asdfghjkl;'", "zxcvbnm,./"];

/// The decimal logarithm of the guesses that `secret` takes somebody who knows the `names` of its
/// owner. Takes up to 100 ms of CPU.
pub fn log10(secret: &str, names: &[&str]) -> f64 {
    let names = parts_of(names);
    let reduced = reduced(&without(secret, &names));
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

/// The first, the middle and the last [`WINDOW`] characters.
fn windows(text: &str) -> impl Iterator<Item = String> {
    let characters: Vec<char> = text.chars().collect();
    let last = characters.len().saturating_sub(WINDOW);
    let mut starts = vec![0, last / 2, last];
    starts.dedup();
    starts.into_iter().map(move |start| characters.iter().skip(start).take(WINDOW).collect())
}

/// The names and the words they consist of, in lower case, the longest first.
fn parts_of(names: &[&str]) -> Vec<String> {
    let mut parts: Vec<String> = vec![];
    for name in names.iter().map(|name| name.to_lowercase()) {
        let words = name.split(|c: char| !c.is_alphanumeric());
        parts.extend(words.chain(name.split('@')).map(str::to_owned));
        parts.push(name);
    }
    parts.retain(|part| part.chars().count() >= NAME);
    parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
    parts.dedup();
    parts
}

/// `secret` without `names`, in any case.
fn without(secret: &str, names: &[String]) -> String {
    let lower = secret.to_lowercase();
    let rest = names.iter().fold(lower.clone(), |rest, name| rest.replace(name, ""));
    if rest == lower { secret.to_owned() } else { rest }
}

/// `text` with each sequence cut to its first character, and what is repeated only once.
fn reduced(text: &str) -> String {
    let characters: Vec<char> = text.to_lowercase().chars().collect();
    let mut kept = vec![];
    let mut rest = &characters[..];
    while !rest.is_empty() {
        let run = run(rest);
        kept.push(rest[0]);
        rest = &rest[if run >= RUN { run } else { 1 }..];
    }
    kept.truncate(period(&kept));
    if kept.len() == characters.len() { text.to_owned() } else { kept.into_iter().collect() }
}

/// How many characters at the beginning are a sequence: of code points or on a keyboard, forwards,
/// backwards, or all the same.
fn run(text: &[char]) -> usize {
    let by_code = run_by(text, |c| Some(i64::from(u32::from(c))));
    by_code.max(run_by(text, key))
}

fn run_by(text: &[char], place: impl Fn(char) -> Option<i64>) -> usize {
    let step = |at: usize| {
        let (one, other) = (place(*text.get(at)?)?, place(*text.get(at + 1)?)?);
        Some(other - one).filter(|step| step.abs() <= 1)
    };
    let Some(first) = step(0) else { return 1 };
    2 + (1..text.len()).take_while(|at| step(*at) == Some(first)).count()
}

/// The place of a character on a keyboard; rows are far from each other.
fn key(character: char) -> Option<i64> {
    let find =
        |(row, keys): (i64, &&str)| Some(100 * row + i64::try_from(keys.find(character)?).ok()?);
    (0..).zip(&ROWS).find_map(find)
}

/// The length of the shortest beginning that the whole text repeats, the last time perhaps in part.
/// All of it where nothing is repeated.
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
