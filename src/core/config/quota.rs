//! How much one user may store.

use super::reader::Reader;

/// What a signed-in user may store; `None` is no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct StorageQuota {
    /// `USER_MAX_BYTES`: bytes of the texts and metadata they wrote.
    pub bytes: Option<i64>,
    /// `USER_MAX_CONVERSATIONS`: conversations they created.
    pub conversations: Option<i64>,
}

impl StorageQuota {
    pub(super) fn read(r: &mut Reader) -> Self {
        Self {
            bytes: number(r, "USER_MAX_BYTES"),
            conversations: number(r, "USER_MAX_CONVERSATIONS"),
        }
    }

    /// Whether there is any limit.
    pub fn is_set(self) -> bool {
        self.bytes.is_some() || self.conversations.is_some()
    }
}

fn number(r: &mut Reader, name: &str) -> Option<i64> {
    r.text(name)?;
    let most = r.parsed(name, i64::MAX, "a whole number");
    if most < 1 {
        r.problem(name, "must be at least 1; leave it out for no limit");
    }
    Some(most)
}
