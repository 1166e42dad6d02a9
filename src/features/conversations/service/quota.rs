//! Storage quota of a signed-in user.

use crate::core::error::{Error, Result};
use crate::db::Tx;
use crate::features::conversations::model::{Message, MessageChanges, Metadata, NewMessage};
use crate::features::conversations::repository::storage;
use crate::security::Visibility;
use crate::state::AppState;

/// A change of the storage that a user uses in a conversation; negative for a removal.
#[derive(Clone, Copy, Debug)]
pub(super) struct StorageChange {
    /// Bytes of texts and metadata.
    pub bytes: i64,
    /// Whether the user created the conversation.
    pub has_created: bool,
}

impl StorageChange {
    /// For a new conversation.
    pub fn conversation(title: Option<&str>, metadata: Option<&Metadata>) -> Self {
        let metadata = metadata.map_or("", Metadata::as_str);
        let bytes = length(title.unwrap_or_default()) + length(metadata);
        Self { bytes, has_created: true }
    }

    /// For new messages.
    pub fn messages(new: &[NewMessage]) -> Self {
        let size = |new: &NewMessage| {
            length(&new.content) + new.metadata.as_ref().map_or(0, |it| length(it.as_str()))
        };
        Self { bytes: new.iter().map(size).sum(), has_created: false }
    }

    /// For an edit of `message` with `changes`.
    pub fn changed(message: &Message<'_>, changes: &MessageChanges) -> Self {
        let mut bytes = 0;
        if let Some(content) = &changes.content {
            bytes += length(content) - message.content_bytes();
        }
        if let Some(metadata) = &changes.metadata {
            bytes += metadata.as_ref().map_or(0, |metadata| length(metadata.as_str()));
            bytes -= message.metadata_bytes();
        }
        Self { bytes, has_created: false }
    }

    /// For the deletion of `message`.
    pub fn erased(message: &Message<'_>) -> Self {
        let bytes = -(message.content_bytes() + message.metadata_bytes());
        Self { bytes, has_created: false }
    }
}

fn length(text: &str) -> i64 {
    i64::try_from(text.len()).unwrap_or(i64::MAX)
}

/// Counts what the user of `visibility` adds to conversation `id`, which `tx` has locked or
/// created. Fails with 403 if the user then exceeds the quota. API keys have no quota. Concurrent
/// writes to different conversations do not see each other, so together they can exceed the quota.
pub(super) async fn count(
    app: &AppState,
    tx: &mut Tx,
    id: i64,
    visibility: Visibility,
    added: StorageChange,
) -> Result<()> {
    let quota = app.config.storage_quota;
    let Some(user_id) = visibility.user_id().filter(|_| quota.is_set()) else { return Ok(()) };
    storage::add(tx, user_id, id, added.bytes, added.has_created).await?;
    if added.bytes <= 0 && !added.has_created {
        return Ok(());
    }
    let stored = storage::of_user(tx, user_id).await?;
    if let Some(most) =
        quota.conversations.filter(|most| added.has_created && stored.conversations > *most)
    {
        return Err(Error::Forbidden(
            format!("Your storage quota of {most} conversations is used up").into(),
        ));
    }
    if let Some(most) = quota.bytes.filter(|most| stored.bytes > *most) {
        return Err(Error::Forbidden(
            format!("Your storage quota of {most} bytes is used up: delete some of your messages")
                .into(),
        ));
    }
    Ok(())
}
