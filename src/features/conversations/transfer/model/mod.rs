//! The lines of an export and of an import. `docs/EXPORT_AND_IMPORT.md` describes the format.

mod exported;
mod imported;

pub use exported::{Exported, ExportedConversation, ExportedMessage, ExportedUser, Person};
pub use imported::{
    ConversationLine, ImportOptions, ImportReport, ImportedConversation, ImportedMessage, Match,
    MessageLine, ParticipantsLine, REPORTED, Sought, SpooledPart, UserMatches,
};
