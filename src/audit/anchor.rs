//! Anchors: positions in the chain with their hashes.

use super::chain::{GENESIS_HASH, Hash};
use serde::{Serialize, Serializer};
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

/// A position in the chain and its hash, written `SEQ:HASH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The position; 0 is before the first entry.
    pub seq: i64,
    /// The hash of the entry at that position.
    pub hash: Hash,
}

/// Error: the string is not an anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an anchor is SEQ:HASH, a number and 64 hexadecimal digits, as in the log event \
     audit.checkpoint"
)]
pub struct AnchorError;

impl Anchor {
    /// Maximum length: a 64-bit number, a colon and 64 digits, with room for leading zeros.
    pub const MAX_CHARACTERS: usize = 100;
    /// The position before the first entry.
    pub(super) const GENESIS: Self = Self { seq: 0, hash: GENESIS_HASH };
}

impl FromStr for Anchor {
    type Err = AnchorError;

    fn from_str(text: &str) -> Result<Self, AnchorError> {
        let (seq, hash) = text.split_once(':').ok_or(AnchorError)?;
        let seq = seq.parse().ok().filter(|seq| *seq >= 0).ok_or(AnchorError)?;
        let mut bytes = GENESIS_HASH;
        hex::decode_to_slice(hash, &mut bytes).map_err(|_| AnchorError)?;
        Ok(Self { seq, hash: bytes })
    }
}

impl Display for Anchor {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, hex::encode(self.hash))
    }
}

impl Serialize for Anchor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_anchor_is_read_as_it_is_written() {
        let text = format!("17:{}", "0f".repeat(32));
        assert_eq!(text.parse::<Anchor>().unwrap().to_string(), text);
        for wrong in ["", "17", "17:", "x:00", "-1:00", "17:zz", &text[..text.len() - 1]] {
            assert_eq!(wrong.parse::<Anchor>(), Err(AnchorError), "{wrong}");
        }
    }
}
