//! Times: every spelling and range at each request with a time, stored times out of range, and a
//! clock that jumps.

mod jumps;
mod stored;

use crate::support::{Answer, Backend, TestApp};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};

const KEYS: &str = "/api/v1/api-keys";
const CONVERSATIONS: &str = "/api/v1/conversations";

/// A field or parameter of a request that has a time.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Door {
    CreateKey,
    ChangeKey,
    /// A field of the conversation line of an import.
    Conversation(&'static str),
    /// A field of a message line.
    Message(&'static str),
    /// A parameter of the audit log or of the usage report of a key.
    AuditLog(&'static str),
    Usage(&'static str),
}

const DOORS: [Door; 11] = [
    Door::CreateKey,
    Door::ChangeKey,
    Door::Conversation("created_at"),
    Door::Conversation("updated_at"),
    Door::Message("created_at"),
    Door::Message("edited_at"),
    Door::Message("deleted_at"),
    Door::AuditLog("since"),
    Door::AuditLog("until"),
    Door::Usage("since"),
    Door::Usage("until"),
];

impl Door {
    /// The place that an error names.
    fn place(self) -> String {
        match self {
            Self::CreateKey | Self::ChangeKey => "body.expires_at".to_owned(),
            Self::Conversation(field) => format!("body.1.{field}"),
            Self::Message(field) => format!("body.2.{field}"),
            Self::AuditLog(name) | Self::Usage(name) => format!("query.{name}"),
        }
    }

    fn is_expiry(self) -> bool {
        matches!(self, Self::CreateKey | Self::ChangeKey)
    }

    fn is_history(self) -> bool {
        matches!(self, Self::Conversation(_) | Self::Message(_))
    }

    /// A date that it accepts: expiries are in the future, history in the past.
    fn date(self) -> &'static str {
        if self.is_expiry() { "2099-12-30" } else { "2024-12-30" }
    }
}

/// A server with the key of an administrator, and a second key to change.
struct Doors {
    app: TestApp,
    key: String,
    /// Number of imports.
    imports: i64,
}

impl Doors {
    async fn open(backend: &Backend) -> Self {
        let app = TestApp::new(backend).await;
        let key = app.admin().await;
        app.key(&key, "read").await;
        Self { app, key, imports: 0 }
    }

    /// Sends `time` through `door`.
    async fn send(&mut self, door: Door, time: &Value) -> Answer {
        let call = match door {
            Door::CreateKey => {
                self.app.post(KEYS, json!({"name": "a key", "scopes": "read", "expires_at": time}))
            }
            Door::ChangeKey => self.app.patch(&format!("{KEYS}/2"), json!({"expires_at": time})),
            Door::AuditLog(name) => self.app.get(&with(&format!("{KEYS}/audit-logs"), name, time)),
            Door::Usage(name) => self.app.get(&with(&format!("{KEYS}/2/usage"), name, time)),
            Door::Conversation(field) => return self.import(field, time, true).await,
            Door::Message(field) => return self.import(field, time, false).await,
        };
        call.key(&self.key).send().await
    }

    /// Imports a conversation with a message, and `time` in `field` of one of them.
    async fn import(&mut self, field: &str, time: &Value, is_of_conversation: bool) -> Answer {
        self.imports += 1;
        let at = "2024-01-31T09:30:00Z";
        let mut lines = [
            json!({"type": "conversation", "external_id": self.imports.to_string(),
                "created_at": at, "updated_at": at}),
            json!({"type": "message", "role": "user", "content": "hello", "created_at": at}),
        ];
        lines[usize::from(!is_of_conversation)][field] = time.clone();
        let call = self.app.act(&format!("{CONVERSATIONS}/import")).key(&self.key);
        let call = call.header("Content-Type", "application/x-ndjson");
        call.body(format!("{}\n{}\n", lines[0], lines[1])).send().await
    }

    /// The time that the last accepted request stored, as a response shows it. `None` if a filter
    /// has no time in its response.
    async fn stored(&self, door: Door, answer: &Answer) -> Option<String> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let line = match door {
            Door::CreateKey | Door::ChangeKey => return text(&answer["expires_at"]),
            Door::AuditLog(_) | Door::Usage(_) => return None,
            Door::Conversation(field) => (0, field),
            Door::Message(field) => (1, field),
        };
        let list = format!("{CONVERSATIONS}?order=desc&limit=1&message_limit=0");
        let newest = self.app.get(&list).key(&self.key).send().await.expect(200);
        let path = format!("{CONVERSATIONS}/{}/export", newest[0]["id"]);
        let export = self.app.get(&path).key(&self.key).send().await;
        assert_eq!(export.status, 200, "{}", export.text);
        let exported = export.text.lines().nth(line.0).expect("the line");
        text(&serde_json::from_str::<Value>(exported).unwrap()[line.1])
    }
}

/// `path` with a parameter.
fn with(path: &str, name: &str, time: &Value) -> String {
    let text = time.as_str().map_or_else(|| time.to_string(), str::to_owned);
    let value: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
    format!("{path}?{name}={value}")
}

fn shown(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// The spellings of pydantic v2 of times on `date`, each with the time of day that it means.
fn spellings(date: &str) -> Vec<(Value, &'static str)> {
    let midnight = format!("{date}T00:00:00Z").parse::<DateTime<Utc>>().unwrap();
    let seconds = midnight.timestamp() + 3661;
    let of_text = [
        ("T23:59:58Z", "23:59:58.000000"),
        ("T23:59:58", "23:59:58.000000"),
        ("T23:59", "23:59:00.000000"),
        (" 23:59", "23:59:00.000000"),
        ("_23:59:58", "23:59:58.000000"),
        ("t23:59:58z", "23:59:58.000000"),
        ("T23:59:58.123456789Z", "23:59:58.123456"),
        ("T23:59:58.5+00:00", "23:59:58.500000"),
        ("T23:59:58+0900", "14:59:58.000000"),
        ("T23:59:58+09", "14:59:58.000000"),
        ("T23:59-00:00", "23:59:00.000000"),
        ("T00:29:58-23:29", "23:58:58.000000"),
        ("", "00:00:00.000000"),
    ];
    let mut all: Vec<(Value, &str)> =
        of_text.iter().map(|(time, means)| (format!("{date}{time}").into(), *means)).collect();
    all.extend([
        (seconds.into(), "01:01:01.000000"),
        (seconds.to_string().into(), "01:01:01.000000"),
        (format!("{seconds}.25").into(), "01:01:01.250000"),
        ((seconds * 1000 + 250).into(), "01:01:01.250000"),
        ((seconds * 1000 + 250).to_string().into(), "01:01:01.250000"),
        (serde_json::from_str(&format!("{seconds}.25")).unwrap(), "01:01:01.250000"),
    ]);
    all
}

/// No times, and times that no request can have.
fn invalid() -> Vec<Value> {
    let texts = [
        "",
        "tomorrow",
        "nan",
        "NaN",
        "inf",
        "-Infinity",
        "infinity",
        "1e9",
        "0x7fffffff",
        "99999999999999999999",
        "253402300800000",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+00:01",
        "-0044-03-15T00:00:00Z",
        "0044-03-15T00:00:00Z BC",
        "10000-01-01T00:00:00Z",
        "+10000-01-01T00:00:00Z",
        "9999-12-31T23:59:59-00:01",
        "2024-12-30T23:59:60Z",
        "2024-12-30T24:00:00Z",
        "2024-12-30T23:60:00Z",
        "2024-12-30T23:59:59+24:00",
        "2024-12-30T23:59:59-99:00",
        "2024-12-30T23:59:59+00:60",
        "2024-12-30T23:59:59Zulu",
        "2024-12-30T23",
        "2024-12-30Z",
        "2023-02-29",
        "2024-13-01T00:00:00Z",
        "2024-1-1",
    ];
    let numbers = [json!(253_402_300_800_000_i64), json!(i64::MAX), json!(u64::MAX), json!(1e300)];
    texts.into_iter().map(Value::from).chain(numbers).collect()
}

#[apply(on_both!)]
async fn every_time_of_a_request_is_accepted_in_the_spellings_of_pydantic(backend: Backend) {
    let mut doors = Doors::open(&backend).await;
    for door in DOORS {
        for (time, means) in spellings(door.date()) {
            let answer = doors.send(door, &time).await;
            assert!([200, 201].contains(&answer.status), "{door:?} {time}: {}", answer.text);
            if let Some(stored) = doors.stored(door, &answer).await {
                assert_eq!(stored, format!("{}T{means}Z", door.date()), "{door:?} {time}");
            }
        }
    }
}

#[apply(on_both!)]
async fn a_text_that_is_no_time_is_refused_with_the_name_of_its_field(backend: Backend) {
    let mut doors = Doors::open(&backend).await;
    for door in DOORS {
        let is_query = matches!(door, Door::AuditLog(_) | Door::Usage(_));
        for time in invalid() {
            let answer = doors.send(door, &time).await;
            let (message, text) = (answer["detail"][0]["msg"].clone(), answer.text.clone());
            answer.invalid(&[&door.place()]);
            assert_eq!(message, "Input should be a valid datetime", "{door:?} {time}: {text}");
        }
        let others = [json!(true), json!([]), json!({}), json!(["2024-12-30"])];
        for other in others.iter().filter(|_| !is_query) {
            doors.send(door, other).await.invalid(&[&door.place()]);
        }
    }
    // Only times may be numbers.
    let body = json!({"name": 4_102_444_799_i64, "scopes": "read"});
    doors.app.post(KEYS, body).key(&doors.key).send().await.invalid(&["body.name"]);
    assert_eq!(doors.app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM conversations").await, 0);
}

#[apply(on_both!)]
async fn every_time_of_a_request_must_be_in_its_range(backend: Backend) {
    let mut doors = Doors::open(&backend).await;
    let now = doors.app.state.clock.now();
    let (soon, later) = (now + TimeDelta::minutes(4), now + TimeDelta::minutes(7));
    let early = [json!("0001-01-01"), json!("1969-12-31T23:59:59.999999Z"), json!(-1), json!("-1")];
    let epoch = [json!("1970-01-01T00:00:00Z"), json!(0)];
    let soon = [json!(shown(soon)), json!(soon.timestamp())];
    let late = [json!(shown(later)), json!("2099-12-31"), json!("9999-12-31T23:59:59.999999Z")];
    let ranges: [(&[Value], [bool; 3]); 4] = [
        // Whether history, an expiry and a filter may have it.
        (&early, [false, false, true]),
        (&epoch, [true, false, true]),
        (&soon, [true, true, true]),
        (&late, [false, true, true]),
    ];
    // A report needs a period of some length.
    for door in DOORS.into_iter().filter(|door| !matches!(door, Door::Usage(_))) {
        let kind = if door.is_history() { 0 } else { 1 + usize::from(!door.is_expiry()) };
        for (times, accepted) in ranges {
            for time in times {
                let answer = doors.send(door, time).await;
                if accepted[kind] {
                    assert!([200, 201].contains(&answer.status), "{time}: {}", answer.text);
                } else {
                    answer.invalid(&[&door.place()]);
                }
            }
        }
    }
    let refused = doors.send(Door::Message("edited_at"), &json!("2099-12-31")).await;
    let message = "Value error, edited_at must be from 1970 to 5 minutes from now";
    assert_eq!(refused["detail"][0]["msg"], message);
    let refused = doors.send(Door::CreateKey, &json!(0)).await;
    let message = "Value error, expires_at must be in the future";
    assert_eq!(refused["detail"][0]["msg"], message);
}

#[apply(on_both!)]
async fn a_plus_sign_that_is_not_escaped_in_a_query_is_accepted(backend: Backend) {
    let Doors { app, key, .. } = Doors::open(&backend).await;
    for since in ["2024-12-30T10:00:00+09:00", "2024-12-30+10:00+0900", "2024-12-30+10:00:00.5"] {
        let path = format!("{KEYS}/audit-logs?since={since}");
        app.get(&path).key(&key).send().await.expect(200);
    }
}

/// A time that another field has accepted stays there: the order of checks must not store it.
#[apply(on_both!)]
async fn a_refused_time_changes_nothing(backend: Backend) {
    let mut doors = Doors::open(&backend).await;
    let expected = "2099-12-30T00:00:00.000000Z";
    doors.send(Door::ChangeKey, &json!("2099-12-30")).await.expect(200);
    for time in invalid() {
        doors.send(Door::ChangeKey, &time).await.invalid(&["body.expires_at"]);
    }
    let key = doors.app.get(&format!("{KEYS}/2")).key(&doors.key).send().await.expect(200);
    assert_eq!(key["expires_at"], expected);
}
