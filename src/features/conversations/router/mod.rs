//! Routes for conversations: permissions, requests and responses.

mod conversations;
mod messages;
mod participants;
mod permissions;
mod response;
mod routes;

pub use routes::routes;
