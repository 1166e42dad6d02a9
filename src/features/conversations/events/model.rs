//! Event types: tickets, stream parameters and server-sent events.

use crate::core::clock::Timestamp;
use crate::features::conversations::model::Message;
use crate::http::{Fields, FromQuery, QueryPairs};
use crate::security::secret::Secret;
use axum::http::HeaderMap;
use serde::Serialize;
use serde_json::value::RawValue;
use std::fmt::Write;
use utoipa::{IntoParams, ToSchema};

/// Request header with the id of the last event that the client received (HTML standard, 9.2).
const LAST_EVENT_ID: &str = "last-event-id";
/// Delay after which a browser reconnects, in milliseconds.
const RETRY_MILLISECONDS: u32 = 2000;

/// A single-use ticket for an event stream.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ticket {
    /// The ticket, for the query parameter `ticket`.
    #[schema(
        value_type = String,
        example = "octe_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg000000"
    )]
    pub ticket: Secret,
    /// Expiry of the ticket.
    pub expires_at: Timestamp,
}

/// Query parameters of an event stream.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StreamParams {
    /// Id of the last event received. The header `Last-Event-ID` takes precedence.
    #[param(minimum = 0, required = false)]
    pub last_event_id: Option<i64>,
}

impl FromQuery for StreamParams {
    fn from_query(query: &mut QueryPairs) -> Self {
        // Both are always read, so that both are checked.
        let [ours, polyfill] =
            ["last_event_id", "lastEventId"].map(|name| query.integer(name, 0..=i64::MAX));
        // The polyfill adds its parameter to the URL that the application chose, so it is newer.
        Self { last_event_id: polyfill.or(ours) }
    }
}

/// The value of the `Last-Event-ID` header. Fails with 422 if it is not an event id.
pub(super) fn last_event_id(headers: &HeaderMap) -> crate::core::error::Result<Option<i64>> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let text = value.to_str().unwrap_or("?").trim();
    let id = text.parse().ok().filter(|id| *id >= 0);
    let msg = "Input should be the id of an event";
    let invalid = || Fields::refusal("header", LAST_EVENT_ID, "int_parsing", msg, text);
    id.ok_or_else(invalid).map(Some)
}

/// The data of an event.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum EventData {
    /// A message that was appended, edited or deleted.
    Message(Box<Message<'static>>),
    /// A user who was added as a participant, or removed.
    Participant {
        id: i64,
        /// Null if the user was deleted.
        username: Option<String>,
    },
    /// The conversation itself.
    Conversation { id: i64, title: Option<String>, metadata: Option<Box<RawValue>> },
}

/// Why the server ends a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The API key or session is no longer valid.
    Credential,
    /// The conversation was deleted or is no longer visible to the caller.
    Conversation,
    /// The server shuts down.
    Stopping,
}

impl EndReason {
    fn word(self) -> &'static str {
        match self {
            Self::Credential => "credential_ended",
            Self::Conversation => "conversation_gone",
            Self::Stopping => "server_stopping",
        }
    }
}

/// Server-sent events as text.
#[derive(Debug, Default)]
pub struct EventText(String);

impl EventText {
    /// The `begin` event. The stream reports events after `last`; a client that is disconnected
    /// before the next event resumes from this id. With `missed`, a `missed` event follows: events
    /// that the client has not received were removed.
    pub fn beginning(last: i64, missed: bool) -> Self {
        let begin =
            format!("retry: {RETRY_MILLISECONDS}\nid: {last}\nevent: begin\ndata: {{}}\n\n");
        let missed = if missed { "event: missed\ndata: {}\n\n" } else { "" };
        Self(begin + missed)
    }

    /// A heartbeat: an empty comment.
    pub fn heartbeat() -> Self {
        Self(":\n\n".to_owned())
    }

    /// The last event. It has no id, so that a client resumes from the event before it.
    pub fn end(end: EndReason) -> Self {
        Self(format!("event: end\ndata: {{\"reason\":\"{}\"}}\n\n", end.word()))
    }

    /// Appends an event. Fails if `subject` cannot be serialized.
    pub fn push(&mut self, id: i64, kind: &str, subject: &EventData) -> serde_json::Result<()> {
        let json = serde_json::to_string(subject)?;
        // A line break would end the data. JSON has raw line breaks only as whitespace, never
        // inside strings, so a space can replace them.
        let json = json.replace(['\n', '\r'], " ");
        let _ = write!(self.0, "id: {id}\nevent: {kind}\ndata: {json}\n\n");
        Ok(())
    }

    /// Returns whether there are no events.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes to send.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_one_line_whatever_was_stored() {
        let metadata = RawValue::from_string("{\r\n\"a\": \"x\\ny\"\n}".to_owned()).unwrap();
        let mut text = EventText::default();
        let subject = EventData::Conversation { id: 7, title: None, metadata: Some(metadata) };
        text.push(3, "conversation.updated", &subject).unwrap();
        let expected = "id: 3\nevent: conversation.updated\n\
            data: {\"id\":7,\"title\":null,\"metadata\":{  \"a\": \"x\\ny\" }}\n\n";
        assert_eq!(text.0, expected);
    }
}
