//! What happens in conversations, in the database and on the wire.

use crate::core::clock::Timestamp;
use crate::features::conversations::model::Message;
use crate::http::{Fields, FromQuery, QueryPairs};
use axum::http::HeaderMap;
use serde::Serialize;
use serde_json::value::RawValue;
use std::fmt::Write;
use utoipa::{IntoParams, ToSchema};

/// The header field with the id of the last event that a client has seen.
const LAST_EVENT_ID: &str = "last-event-id";
/// How long a browser waits before it connects again.
const RETRY_MILLISECONDS: u32 = 2000;

/// What lets a browser watch a conversation, once.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ticket {
    /// To be sent as `?ticket=`.
    #[schema(example = "octe_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg000000")]
    pub ticket: String,
    /// Until when.
    pub expires_at: Timestamp,
}

/// From where a stream goes on, and who may watch it.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Resume {
    /// The id of the last event that was seen; the header field `Last-Event-ID` goes before.
    #[param(minimum = 0, required = false)]
    pub last_event_id: Option<i64>,
    /// A ticket in the place of a credential.
    #[param(required = false, max_length = 100)]
    #[expect(
        dead_code,
        reason = "it is documented here, and taken by the extractor of the caller"
    )]
    ticket: Option<String>,
}

impl FromQuery for Resume {
    fn from_query(query: &mut QueryPairs) -> Self {
        Self { last_event_id: query.integer("last_event_id", 0..=i64::MAX), ticket: None }
    }
}

/// The id of the last event that was seen, as a client says that connects again. Fails with 422.
pub(super) fn last_event_id(headers: &HeaderMap) -> crate::core::error::Result<Option<i64>> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let text = value.to_str().unwrap_or("?").trim();
    let id = text.parse().ok().filter(|id| *id >= 0);
    let msg = "Input should be the id of an event";
    let invalid = || Fields::refusal("header", LAST_EVENT_ID, "int_parsing", msg, text);
    id.ok_or_else(invalid).map(Some)
}

/// What an event tells of.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Subject {
    /// A message that was appended, edited or deleted.
    Message(Box<Message<'static>>),
    /// Somebody who takes part from now on, or no longer.
    Participant {
        id: i64,
        /// Null where the user is gone.
        username: Option<String>,
    },
    /// The conversation itself.
    Conversation { id: i64, title: Option<String>, metadata: Option<Box<RawValue>> },
}

/// Why a stream ends that could go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The key or the session is not good any more.
    Credential,
    /// The conversation is gone, or out of reach.
    Conversation,
    /// The server stops.
    Stopping,
}

impl End {
    fn word(self) -> &'static str {
        match self {
            Self::Credential => "credential_ended",
            Self::Conversation => "conversation_gone",
            Self::Stopping => "server_stopping",
        }
    }
}

/// The text of server-sent events.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// The beginning of a stream: what comes later than this event is told, and who is cut off
    /// before anything was goes on from here. Who `missed` events is told so: they are gone.
    pub fn beginning(last: i64, missed: bool) -> Self {
        let begin =
            format!("retry: {RETRY_MILLISECONDS}\nid: {last}\nevent: begin\ndata: {{}}\n\n");
        let missed = if missed { "event: missed\ndata: {}\n\n" } else { "" };
        Self(begin + missed)
    }

    /// Nothing but a sign that the stream is there.
    pub fn heartbeat() -> Self {
        Self(":\n\n".to_owned())
    }

    /// The last event. It has no id: who connects again goes on from the one before.
    pub fn end(end: End) -> Self {
        Self(format!("event: end\ndata: {{\"reason\":\"{}\"}}\n\n", end.word()))
    }

    /// Adds an event.
    pub fn push(&mut self, id: i64, kind: &str, subject: &Subject) -> serde_json::Result<()> {
        let json = serde_json::to_string(subject)?;
        // A line's end would end the data. In JSON, none stands where a blank would not do as well.
        let json = json.replace(['\n', '\r'], " ");
        let _ = write!(self.0, "id: {id}\nevent: {kind}\ndata: {json}\n\n");
        Ok(())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As it is sent.
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
        let mut text = Text::default();
        let subject = Subject::Conversation { id: 7, title: None, metadata: Some(metadata) };
        text.push(3, "conversation.updated", &subject).unwrap();
        let expected = "id: 3\nevent: conversation.updated\n\
            data: {\"id\":7,\"title\":null,\"metadata\":{  \"a\": \"x\\ny\" }}\n\n";
        assert_eq!(text.0, expected);
    }
}
