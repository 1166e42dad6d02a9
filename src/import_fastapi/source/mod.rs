//! The source database, of the FastAPI app: opened read-only and checked before it is read.

mod database;
mod rows;
mod schema;

pub use database::{Source, is_same_file};
pub use rows::{AuditRow, ConversationRow, KeyRow, MessageRow, UserRow};
