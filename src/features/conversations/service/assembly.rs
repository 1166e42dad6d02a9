//! Combines conversations with their participants and messages.

use crate::features::conversations::model::{Conversation, Message, Metadata, Participant};
use crate::features::conversations::repository::{ConversationRow, Embedded};

/// Maximum bytes of participants and messages in one response.
pub(crate) const EMBEDDED_BYTES: usize = 16 * 1024 * 1024;

/// Combines `rows`, in their order, with the participants and messages of each that fit into
/// `room`, in bytes. Subtracts their size from `room`.
pub(crate) fn complete<'t>(
    rows: Vec<ConversationRow>,
    all: &'t Embedded<'t>,
    room: &mut usize,
) -> Vec<Conversation<'t>> {
    let conversations = rows.into_iter().map(|row| {
        let participants = first_that_fit(all.participants_of(row.id), room);
        let messages = newest_that_fit(all.messages_of(row.id), room);
        let is_fewer = |shown: usize, all| i64::try_from(shown).is_ok_and(|shown| shown < all);
        Conversation {
            id: row.id,
            title: row.title,
            created_at: row.created_at,
            updated_at: row.updated_at,
            last_message_at: (row.last_seq > 0).then_some(row.active_at.into()),
            metadata: Metadata::shown(row.metadata),
            participants_truncated: is_fewer(participants.len(), row.participant_count),
            participants,
            participant_count: row.participant_count,
            message_count: row.last_seq,
            messages_truncated: is_fewer(messages.len(), row.last_seq),
            messages,
        }
    });
    conversations.collect()
}

/// The first of `participants` that fit into `room`. Subtracts their size from `room`.
fn first_that_fit<'t>(
    mut participants: Vec<&'t Participant<'t>>,
    room: &mut usize,
) -> Vec<&'t Participant<'t>> {
    let fits = |participant: &&&Participant<'_>| match room.checked_sub(participant.json_bytes()) {
        Some(left) => {
            *room = left;
            true
        }
        None => false,
    };
    let shown = participants.iter().take_while(fits).count();
    participants.truncate(shown);
    participants
}

/// The newest of `messages` that fit into `room`. Subtracts their size from `room`. If a message
/// does not fit, no older message and no message of a later conversation is included.
fn newest_that_fit<'t>(messages: &'t [Message<'t>], room: &mut usize) -> &'t [Message<'t>] {
    let mut first = messages.len();
    for message in messages.iter().rev() {
        let Some(left) = room.checked_sub(message.json_bytes()) else {
            *room = 0;
            break;
        };
        *room = left;
        first -= 1;
    }
    &messages[first..]
}
