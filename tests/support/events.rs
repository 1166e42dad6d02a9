//! A client of event streams.

use super::Call;
use serde_json::Value;
use std::time::Duration;
use tokio::time::timeout;

/// How long a test waits for an event.
const PATIENCE: Duration = Duration::from_secs(20);

/// An open event stream.
pub struct Events {
    response: reqwest::Response,
    rest: Vec<u8>,
    /// The `Last-Event-ID` for resuming the stream.
    pub last_id: Option<i64>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub id: Option<i64>,
    pub kind: String,
    pub data: Value,
}

impl Call {
    /// Opens an event stream and reads its `begin` event.
    pub async fn subscribe(self) -> Events {
        let response = self.open().await;
        assert_eq!(response.status(), 200);
        let mut events = Events { response, rest: vec![], last_id: None };
        let beginning = events.block().await.expect("a beginning");
        let last_id = events.last_id.expect("an id");
        assert_eq!(beginning, format!("retry: 2000\nid: {last_id}\nevent: begin\ndata: {{}}"));
        events
    }
}

impl Events {
    pub fn response(&self) -> &reqwest::Response {
        &self.response
    }

    /// The next block, up to a blank line; `None` at the end of the stream.
    pub async fn block(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.rest.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.rest.drain(..end + 2).collect();
                let block = String::from_utf8(block).expect("UTF-8").trim_end().to_owned();
                let id = block.lines().find_map(|line| line.strip_prefix("id: "));
                self.last_id = id.map(|id| id.parse().expect("a number")).or(self.last_id);
                return Some(block);
            }
            let chunk =
                timeout(PATIENCE, self.response.chunk()).await.expect("data within the time limit");
            self.rest.extend_from_slice(&chunk.ok().flatten()?);
        }
    }

    /// The next event; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let block = self.block().await?;
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
            if let Some(data) = field("data: ") {
                let id = field("id: ").map(|id| id.parse().expect("a number"));
                let kind = field("event: ").expect("a kind").to_owned();
                return Some(Event { id, kind, data: serde_json::from_str(data).expect("JSON") });
            }
        }
    }

    /// The next `n` events.
    pub async fn take(&mut self, n: usize) -> Vec<Event> {
        let mut events = vec![];
        while events.len() < n {
            events.push(self.next().await.expect("another event"));
        }
        events
    }

    /// Asserts that the next event is the end, for this `reason`.
    pub async fn ends(mut self, reason: &str) {
        let end = self.next().await.expect("a last event");
        assert_eq!((end.id, &*end.kind), (None, "end"), "{end:?}");
        assert_eq!(end.data["reason"], reason);
        assert_eq!(self.next().await, None, "nothing comes after the end");
    }
}
