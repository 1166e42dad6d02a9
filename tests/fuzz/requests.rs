//! Fuzz targets for requests to a server with a database.

use super::{conclude, like, runner, scrap};
use crate::support::{Answer, Backend, Call, TestApp};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestCaseError;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

/// Asserts `property` for the values of `strategy`.
fn check<S: Strategy>(
    target: &str,
    backend: &Backend,
    strategy: S,
    property: impl AsyncFn(S::Value) -> Result<(), TestCaseError>,
) {
    let target = format!("{target}_{}", if backend.is_sqlite() { "sqlite" } else { "postgres" });
    let handle = Handle::current();
    let one = |value| handle.block_on(property(value));
    let mut runner = runner(&target, 100, 20_000);
    let outcome = block_in_place(|| runner.run(&strategy, one));
    conclude(&target, &runner, outcome);
}

/// Fails if the response is a server error.
fn no_fault(answer: &Answer) -> Result<(), TestCaseError> {
    prop_assert!(answer.status < 500, "{} {}", answer.status, answer.text);
    Ok(())
}

fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Sends messages with a unique word each, and returns their contents. There are more than the
/// server searches without the index.
async fn send_messages(app: &TestApp, key: &str) -> Vec<String> {
    let ada = app.user("ada").await;
    let conversation = app.conversation(key, &[ada]).await;
    let odd = [
        "Straße İstanbul",
        "日本語 東京",
        "x AND y OR \"z\"",
        "50% _off_ 'q'",
        "ΟΔΟΣ σς",
        "a*b -c",
    ];
    let texts: Vec<String> =
        (0..1200).map(|n| format!("word{n}word {} NEAR({n}) 🐙", odd[n % odd.len()])).collect();
    for some in texts.chunks(600) {
        let messages: Vec<Value> =
            some.iter().map(|text| json!({"role": "user", "content": text})).collect();
        let path = format!("/api/v1/conversations/{conversation}/messages/batch");
        app.post(&path, json!({"messages": messages})).key(key).send().await.expect(201);
    }
    texts
}

#[apply(on_both!)]
async fn any_search_text_is_accepted_and_sent_messages_are_found(backend: Backend) {
    const CORPUS: &[&str] = &[
        "word",
        "word7word",
        "\"one two\" three",
        "x AND y",
        "NEAR(a b, 2)",
        "a*",
        "-c",
        "content:x",
        "^x",
        "\"",
        "\"\"",
        "(",
        "{x y}: z",
        "50%",
        "_",
        "\\",
        "''",
        "Straße",
        "日本",
        "東",
        "🐙",
        "a b",
        "a",
        "σ",
        "!x & y | z <-> w",
        ":*",
        "İ",
    ];
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let texts = send_messages(&app, &key).await;
    let search = async |q: &str| {
        let path = format!("/api/v1/conversations/search?limit=100&q={}", encoded(q));
        app.get(&path).key(&key).send().await
    };
    let case = (like(CORPUS), any::<Index>(), any::<Index>(), 1..12usize);
    check("search", &backend, case, async |(q, n, at, length)| {
        let answer = search(&q).await;
        prop_assert!(answer.status == 200 || answer.status == 422, "{q:?}: {}", answer.text);
        // A part of a message, and its unique word.
        let n = n.index(texts.len());
        let all: Vec<char> = texts[n].chars().collect();
        let at = at.index(all.len());
        let part: String = all[at..all.len().min(at + length)].iter().collect();
        let part = part.trim();
        let word = format!("word{n}word");
        // A quote ends a phrase, and unquoted words are separated by blanks.
        let q = match (part.contains('"'), part.contains(char::is_whitespace)) {
            (true, true) => return Ok(()),
            (true, false) => format!("{word} {part}"),
            (false, _) => format!("{word} \"{part}\""),
        };
        let answer = search(&q).await;
        prop_assert_eq!(answer.status, 200, "{:?}: {}", q, answer.text);
        let found = answer.body.as_array().unwrap();
        prop_assert_eq!(found.len(), 1, "{:?} in {:?}: {}", q, texts[n], answer.text);
        prop_assert_eq!(&found[0]["message"]["seq"], &json!(n + 1));
        Ok(())
    });
}

#[apply(on_both!)]
async fn imported_lines_are_stored_or_refused(backend: Backend) {
    const CORPUS: &[&str] = &[
        r#"{"type":"conversation","external_id":"a","title":"A talk","created_at":"2026-01-01T00:00:00Z"}"#,
        r#"{"type":"conversation","external_id":"b","metadata":{"k":[1,2.5,null]},"message_count":1}"#,
        r#"{"type":"participants","participants":[{"username":"ada"},{"email":"eve@example.com"}]}"#,
        r#"{"type":"message","role":"user","content":"hello","user":{"username":"ada"},"created_at":"2026-01-01T00:00:00Z"}"#,
        r#"{"type":"message","role":"assistant","content":"","created_at":"2026-01-01T00:00:00.000001+02:00","deleted_at":"2026-01-02T00:00:00Z"}"#,
        r#"{"type":"user","id":1}"#,
        r#"{"type":"nothing"}"#,
        "",
    ];
    const COUNTED: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM conversations c WHERE c.retired_at IS NULL \
        AND c.last_seq <> (SELECT COUNT(*) FROM messages m WHERE m.conversation_id = c.id)";
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    app.user("ada").await;
    let lines = prop::collection::vec(like(CORPUS), 1..6);
    check("import", &backend, (any::<u64>(), lines, scrap()), async |(id, lines, end)| {
        // Otherwise every import after the first would be skipped as known.
        let first = CORPUS[0].replace(r#""a""#, &format!("\"{id}\""));
        let text = format!("{first}\n{}\n{end}", lines.join("\n"));
        let call = app.act("/api/v1/conversations/import").key(&key);
        let answer = call.header("Content-Type", "application/x-ndjson").body(text).send().await;
        no_fault(&answer)?;
        prop_assert!(answer.status == 200 || answer.status == 422, "{}", answer.text);
        if answer.status == 422 {
            let place = &answer["detail"][0]["loc"];
            prop_assert!(place[0] == "body" && place[1].is_u64(), "{}", answer.text);
        }
        prop_assert_eq!(app.number(COUNTED).await, 0, "every conversation is whole");
        Ok(())
    });
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        scrap().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(scrap(), inner, 0..6).prop_map(|map| json!(map)),
        ]
    })
}

#[apply(on_both!)]
async fn messages_are_read_as_they_were_sent(backend: Backend) {
    const CORPUS: &[&str] =
        &["hello", "Grüße aus Köln", "日本語", "🐙\u{200d}", "a\r\nb\tc", "<b>&amp;"];
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let ada = app.user("ada").await;
    let conversation = app.conversation(&key, &[ada]).await;
    let messages = format!("/api/v1/conversations/{conversation}/messages");
    let metadata = prop_oneof![
        prop::collection::btree_map(scrap(), any_json(), 0..5).prop_map(|map| json!(map)),
        any_json(),
    ];
    let broken = prop::option::weighted(0.2, (any::<Index>(), any::<u8>()));
    check(
        "bodies",
        &backend,
        (like(CORPUS), metadata, broken),
        async |(text, metadata, broken)| {
            let sent = json!({"role": "user", "content": text, "metadata": metadata});
            let mut body = sent.to_string().into_bytes();
            if let Some((at, byte)) = broken {
                let at = at.index(body.len());
                body[at] = byte;
            }
            let call = app.act(&messages).key(&key).header("Content-Type", "application/json");
            let answer = call.body(body.clone()).send().await;
            no_fault(&answer)?;
            if answer.status != 201 {
                // As in the original, an unknown role is a 400. Only an edited body can have one.
                let why = answer["detail"].as_str().unwrap_or_default();
                let is_role = broken.is_some() && why.starts_with("Role must");
                prop_assert_eq!(answer.status, if is_role { 400 } else { 422 }, "{}", answer.text);
                let has_nul = sent.to_string().contains("\\u0000");
                let is_fine = !text.is_empty() && (metadata.is_object() || metadata.is_null());
                prop_assert!(
                    !is_fine || has_nul || broken.is_some() || text.trim().is_empty(),
                    "{}",
                    answer.text
                );
                return Ok(());
            }
            let read = app.get(&format!("{messages}/{}", answer["id"])).key(&key).send().await;
            prop_assert_eq!(read.status, 200);
            prop_assert_eq!(&read["content"], &answer["content"]);
            prop_assert_eq!(&read["metadata"], &answer["metadata"]);
            if broken.is_none() {
                prop_assert_eq!(&read["content"], &sent["content"]);
                prop_assert_eq!(&read["metadata"], &sent["metadata"]);
            }
            Ok(())
        },
    );
}

#[apply(on_both!)]
async fn cursors_that_the_server_did_not_issue_are_refused(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    for name in ["ada", "bob", "eve"] {
        app.user(name).await;
    }
    let conversation = app.conversation(&key, &[1, 2, 3]).await;
    for n in 0..3 {
        let message = json!({"role": "user", "content": format!("hello {n}")});
        let path = format!("/api/v1/conversations/{conversation}/messages");
        app.post(&path, message).key(&key).send().await.expect(201);
        app.conversation(&key, &[1]).await;
    }
    let lists = [
        "/api/v1/users?",
        "/api/v1/conversations?",
        "/api/v1/conversations/1/messages?",
        "/api/v1/conversations/2/messages?",
        "/api/v1/api-keys/audit-logs?",
    ];
    let get = |path: &str| -> Call { app.get(path).key(&key) };
    let mut given = vec![];
    for (n, list) in lists.iter().enumerate() {
        let page = get(&format!("{list}limit=1")).send().await;
        page.link("next").into_iter().for_each(|link| {
            let cursor = link.split("after=").nth(1).unwrap().split('&').next().unwrap();
            given.push((n, cursor.to_owned()));
        });
    }
    assert!(given.len() >= 3, "{given:?}");
    let edits = (any::<Index>(), any::<Index>(), any::<Index>(), scrap(), any::<bool>());
    check("cursors", &backend, edits, async |(which, list, at, scrap, is_changed)| {
        let ((own, cursor), list) = (&given[which.index(given.len())], list.index(lists.len()));
        let mut cursor = cursor.clone();
        if is_changed {
            let at = at.index(cursor.len() + 1);
            cursor.insert_str(at, &scrap);
        }
        let answer =
            get(&format!("{}limit=1&after={}", lists[list], encoded(&cursor))).send().await;
        let expected = if list == *own && !is_changed { 200 } else { 400 };
        prop_assert!(
            answer.status == expected || is_changed && answer.status == 422,
            "{}",
            answer.text
        );
        Ok(())
    });
}
