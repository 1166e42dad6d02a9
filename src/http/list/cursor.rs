//! Cursors: opaque strings that mark a position in a list.
//!
//! A cursor contains the name of the list and a value of its sort key, not an entry id, so it stays
//! valid when the entry is deleted. It grants no access, so it is not signed. Its checksum detects
//! truncated and mistyped cursors.

use crate::core::error::{Error, Result};
use crate::core::stored_time::StoredTime;
use crate::db::Query;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Datelike, Utc};

/// Version of the cursor format: the first byte of each cursor.
const VERSION: u8 = 1;
/// Maximum length of a cursor in characters.
pub(super) const MAX_LENGTH: usize = 128;

/// The list a cursor belongs to: a name, or a name and a parent id such as `("messages", 7)`. Each
/// list and each sort key of a list needs its own name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List {
    name: &'static str,
    /// Id of the parent resource; 0, which is not a valid id, if there is none.
    parent: i64,
}

impl From<&'static str> for List {
    fn from(name: &'static str) -> Self {
        Self { name, parent: 0 }
    }
}

impl From<(&'static str, i64)> for List {
    fn from((name, parent): (&'static str, i64)) -> Self {
        Self { name, parent }
    }
}

/// The sort key of a list: one value of an entry, or a pair of values.
pub trait CursorKey: Copy {
    /// Appends the key to a cursor's bytes.
    fn write(self, bytes: &mut Vec<u8>);

    /// Reads the key from the front of `bytes` and advances `bytes`.
    fn read(bytes: &mut &[u8]) -> Option<Self>;

    /// Appends the key's values to a statement, separated by commas.
    fn push_bind(self, statement: Query<'_>) -> Query<'_>;
}

impl CursorKey for i64 {
    fn write(self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.to_be_bytes());
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let (number, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(Self::from_be_bytes(*number))
    }

    fn push_bind(self, statement: Query<'_>) -> Query<'_> {
        statement.push_bind(self)
    }
}

/// Stored as whole microseconds, like times in the database.
impl CursorKey for DateTime<Utc> {
    fn write(self, bytes: &mut Vec<u8>) {
        self.timestamp_micros().write(bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let time = Self::from_timestamp_micros(i64::read(bytes)?)?;
        // SQLite compares times as text, and Postgres has a limited range of times.
        (0..=9999).contains(&time.year()).then_some(time)
    }

    fn push_bind(self, statement: Query<'_>) -> Query<'_> {
        statement.push_bind(self)
    }
}

/// Any stored time, so that a list with a time out of range can be read to its end.
impl CursorKey for StoredTime {
    fn write(self, bytes: &mut Vec<u8>) {
        self.0.timestamp_micros().write(bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        DateTime::from_timestamp_micros(i64::read(bytes)?).map(Self)
    }

    fn push_bind(self, statement: Query<'_>) -> Query<'_> {
        statement.push_bind(self)
    }
}

/// Sorted by the first value, then by the second.
impl<A: CursorKey, B: CursorKey> CursorKey for (A, B) {
    fn write(self, bytes: &mut Vec<u8>) {
        self.0.write(bytes);
        self.1.write(bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some((A::read(bytes)?, B::read(bytes)?))
    }

    fn push_bind(self, statement: Query<'_>) -> Query<'_> {
        self.1.push_bind(self.0.push_bind(statement).push(", "))
    }
}

impl List {
    /// Encodes the position `key` in this list.
    pub(super) fn cursor(self, key: impl CursorKey) -> String {
        let mut bytes = self.prefix();
        key.write(&mut bytes);
        let checksum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&checksum.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Decodes `cursor`. Fails with 400 when it is invalid or belongs to another list.
    pub(super) fn position<K: CursorKey>(self, cursor: &str) -> Result<K> {
        self.decode(cursor).ok_or(Error::Refused("Invalid cursor".into()))
    }

    fn decode<K: CursorKey>(self, cursor: &str) -> Option<K> {
        if cursor.len() > MAX_LENGTH {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (content, checksum) = bytes.split_last_chunk()?;
        if crc32fast::hash(content) != u32::from_be_bytes(*checksum) {
            return None;
        }
        let mut rest = content.strip_prefix(&*self.prefix())?;
        let key = K::read(&mut rest)?;
        rest.is_empty().then_some(key)
    }

    /// The prefix of all cursors of this list, which is unique to it.
    fn prefix(self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(self.name.as_bytes());
        bytes.push(0);
        self.parent.write(&mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    fn users() -> List {
        "users".into()
    }

    #[test]
    fn a_cursor_decodes_to_the_position_it_encodes() {
        for key in [0, 1, -1, 42, i64::MIN, i64::MAX] {
            let cursor = users().cursor(key);
            assert!(cursor.len() <= MAX_LENGTH);
            assert!(cursor.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)));
            assert_eq!(users().position::<i64>(&cursor).unwrap(), key);
        }
        let messages = List::from(("messages", i64::MAX));
        assert_eq!(messages.position::<i64>(&messages.cursor(7)).unwrap(), 7);
        let time = DateTime::from_timestamp_micros(1_795_410_000_123_456).unwrap();
        let recent = List::from("recent conversations");
        let cursor = recent.cursor((time, 7));
        assert_eq!(recent.position::<(DateTime<Utc>, i64)>(&cursor).unwrap(), (time, 7));
        let micros = (time.timestamp_micros(), 7);
        assert_eq!(recent.position::<(i64, i64)>(&cursor).unwrap(), micros);
    }

    #[test]
    fn a_cursor_with_one_character_changed_is_refused() {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        // Names of different lengths, to cover every length of the last base64 group.
        for name in ["users", "users ", "users  "] {
            let list = List::from(name);
            let cursor = list.cursor(1234);
            for place in 0..cursor.len() {
                for other in ALPHABET.iter().chain(b"=+/ \0") {
                    let mut changed = cursor.clone().into_bytes();
                    if changed[place] == *other {
                        continue;
                    }
                    changed[place] = *other;
                    let changed = String::from_utf8(changed).unwrap();
                    assert!(list.position::<i64>(&changed).is_err(), "{cursor} and {changed}");
                }
                let without = [&cursor[..place], &cursor[place + 1..]].concat();
                assert!(list.position::<i64>(&without).is_err(), "{cursor} and {without}");
                assert!(list.position::<i64>(&cursor[..place]).is_err(), "{cursor} to {place}");
            }
            for longer in ["A", "=", "AAAA", " "].map(|end| format!("{cursor}{end}")) {
                assert!(list.position::<i64>(&longer).is_err(), "{longer}");
            }
        }
    }

    #[test]
    fn a_cursor_of_another_list_or_of_another_key_is_refused() {
        let lists: [List; 7] = [
            "users".into(),
            "user".into(),
            "users2".into(),
            "messages".into(),
            ("messages", 1).into(),
            ("messages", 2).into(),
            ("messages", 1 << 32).into(),
        ];
        for (n, list) in lists.iter().enumerate() {
            let cursor = list.cursor(5);
            for (m, other) in lists.iter().enumerate() {
                assert_eq!(other.position::<i64>(&cursor).is_ok(), n == m, "{list:?} {other:?}");
            }
        }
        assert!(users().position::<(i64, i64)>(&users().cursor(5)).is_err());
        assert!(users().position::<i64>(&users().cursor((5, 5))).is_err());
    }

    #[test]
    fn texts_that_are_not_cursors_are_refused() {
        let with_checksum = |bytes: &[u8]| {
            let checksum = crc32fast::hash(bytes).to_be_bytes();
            URL_SAFE_NO_PAD.encode([bytes, &checksum[..]].concat())
        };
        let whole = [users().prefix(), 7i64.to_be_bytes().to_vec()].concat();
        assert_eq!(users().position::<i64>(&with_checksum(&whole)).unwrap(), 7);
        let mut next_version = whole.clone();
        next_version[0] = VERSION + 1;
        let longer = [&whole[..], &[0]].concat();
        for text in [
            String::new(),
            "nonsense".into(),
            "é".into(),
            "A".repeat(MAX_LENGTH),
            "A".repeat(100_000),
            with_checksum(b""),
            with_checksum(&next_version),
            with_checksum(&longer),
            with_checksum(&whole[..whole.len() - 1]),
        ] {
            let refused = users().position::<i64>(&text);
            assert!(
                matches!(refused, Err(Error::Refused(why)) if why == "Invalid cursor"),
                "{text}"
            );
        }
        // Times outside the range that the databases can store.
        let far = users().cursor((i64::MAX, 1));
        assert!(users().position::<(DateTime<Utc>, i64)>(&far).is_err());
        let far = users().cursor((253_402_300_800_000_000, 1));
        assert!(users().position::<(DateTime<Utc>, i64)>(&far).is_err());
    }

    fn list() -> impl Strategy<Value = List> {
        let name = select(vec!["users", "messages", "recent conversations", "a", ""]);
        (name, any::<i64>()).prop_map(List::from)
    }

    proptest! {
        #[test]
        fn a_cursor_decodes_only_for_its_list_and_key(
            list in list(), other in list(), key: (i64, i64), at: Index, c: char,
        ) {
            let cursor = list.cursor(key);
            prop_assert_eq!(list.position::<(i64, i64)>(&cursor).unwrap(), key);
            prop_assert!(list.position::<i64>(&cursor).is_err());
            prop_assert_eq!(other.position::<(i64, i64)>(&cursor).is_ok(), other == list);
            let mut changed: Vec<char> = cursor.chars().collect();
            changed[at.index(cursor.len())] = c;
            let changed: String = changed.into_iter().collect();
            prop_assert!(changed == cursor || list.position::<(i64, i64)>(&changed).is_err());
        }

        #[test]
        fn decoding_and_encoding_returns_the_same_text(list in list(), text: String) {
            if let Ok(key) = list.position::<i64>(&text) {
                prop_assert_eq!(list.cursor(key), text);
            }
        }
    }
}
