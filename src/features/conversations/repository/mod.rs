//! SQL for conversations.

mod accounts;
mod checks;
mod conversations;
pub mod messages;
mod page;
pub mod participants;
mod selection;
mod size_sql;
pub mod storage;
mod visibility;
mod weight;

pub use accounts::accounts;
pub use checks::CHECKS;
pub use conversations::{
    ConversationRow, delete, exists, insert, last_seq, lock, metadata, retire, touch, update,
};
pub use page::{Embedded, ReadLimit, find};
pub use selection::{ConversationSlice, Selection};
pub(crate) use size_sql::size;
pub(crate) use visibility::visible;
pub use weight::{MeasuredConversation, first_that_fits, measure};
