//! The storage quota of a user (`USER_MAX_…`).

use super::reader::Reader;

/// The storage quota of a signed-in user. `None` is no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct StorageQuota {
    /// `USER_MAX_BYTES`: bytes of the texts and metadata that the user wrote.
    pub bytes: Option<i64>,
    /// `USER_MAX_CONVERSATIONS`: conversations that the user created.
    pub conversations: Option<i64>,
}

impl StorageQuota {
    pub(super) fn read(r: &mut Reader) -> Self {
        Self {
            bytes: limit(r, "USER_MAX_BYTES"),
            conversations: limit(r, "USER_MAX_CONVERSATIONS"),
        }
    }

    /// Returns whether any limit is set.
    pub fn is_set(self) -> bool {
        self.bytes.is_some() || self.conversations.is_some()
    }
}

fn limit(r: &mut Reader, name: &str) -> Option<i64> {
    r.text(name)?;
    let most = r.parsed(name, i64::MAX, "a whole number");
    if most < 1 {
        r.problem(name, "must be at least 1; for no limit, do not set it");
    }
    Some(most)
}
