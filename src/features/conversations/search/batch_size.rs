//! Sizes of the batches in which messages are indexed.

/// Size of a batch that a large write indexes after its own transaction. Other writers can run
/// between batches.
pub(super) const BATCH_AFTER_WRITE: BatchSize = BatchSize { messages: 1000, bytes: 256 * 1024 };

/// A number of messages and their size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchSize {
    /// Number of messages.
    pub messages: i64,
    /// Bytes of their content.
    pub bytes: i64,
}

impl BatchSize {
    /// `messages` messages with `bytes` bytes of content in total.
    pub fn of(messages: usize, bytes: usize) -> Self {
        let [messages, bytes] = [messages, bytes].map(|n| i64::try_from(n).unwrap_or(i64::MAX));
        Self { messages, bytes }
    }

    /// Returns whether indexing this many messages would block other writers for too long.
    pub fn is_large(self) -> bool {
        self.twice().reaches(BATCH_AFTER_WRITE)
    }

    /// A batch of twice the size.
    pub(super) fn twice(self) -> Self {
        Self { messages: self.messages.saturating_mul(2), bytes: self.bytes.saturating_mul(2) }
    }

    /// Returns whether the number or the size is at least that of `other`.
    pub(super) fn reaches(self, other: Self) -> bool {
        self.messages >= other.messages || self.bytes >= other.bytes
    }
}
