//! The metadata of messages and conversations.

use super::{CONVERSATIONS, Fixture, json, messages};
use crate::support::{Backend, Call};
use serde_json::Value;

/// Maximum bytes.
const MOST: usize = 16 * 1024;

/// Each call that accepts metadata, with `metadata`, its field in a 422, and its success status.
fn calls(fixture: &Fixture, metadata: &Value) -> [(Call, &'static str, u16); 6] {
    let message = json!({"role": "user", "content": "x", "metadata": metadata});
    let (batch, only) = (json!({"messages": [message]}), json!({"metadata": metadata}));
    let (conversation_path, all) =
        (format!("{CONVERSATIONS}/{}", fixture.id), messages(fixture.id));
    let app = &fixture.app;
    let calls = [
        (app.post(&all, message), "body.metadata", 201),
        (app.post(&format!("{all}/batch"), batch), "body.messages.0.metadata", 201),
        (app.patch(&fixture.path, only.clone()), "body.metadata", 200),
        (app.post(CONVERSATIONS, only.clone()), "body.metadata", 201),
        (app.put(&conversation_path, only.clone()), "body.metadata", 200),
        (app.patch(&conversation_path, only), "body.metadata", 200),
    ];
    calls.map(|(call, place, status)| (call.key(&fixture.key), place, status))
}

#[apply(on_both!)]
async fn metadata_is_an_object(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    for wrong in [json!([]), json!("x"), json!(1), json!(true), json!([{"a": 1}])] {
        for (call, place, _) in calls(&fixture, &wrong) {
            call.send().await.invalid(&[place]);
        }
    }
    for (call, place, _) in calls(&fixture, &json!({"a": {"b": ["\0"]}})) {
        call.send().await.invalid(&[&format!("{place}.a.b.0")]);
    }
    assert_eq!(fixture.app.number("SELECT COUNT(*) FROM messages").await, 1);
    for (call, _, status) in calls(&fixture, &json!({})) {
        let answer = call.send().await.expect(status);
        let made = if answer.is_array() { &answer[0] } else { &answer };
        assert_eq!(made["metadata"], json!({}));
    }
}

#[apply(on_both!)]
async fn metadata_has_at_most_16_kib(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    // The surrounding object has eight bytes.
    let with = |text: String| json!({"k": text});
    for fits in [with("x".repeat(MOST - 8)), with("é".repeat(MOST / 2 - 4))] {
        assert_eq!(fits.to_string().len(), MOST);
        for (call, _, status) in calls(&fixture, &fits) {
            let answer = call.send().await.expect(status);
            let made = if answer.is_array() { &answer[0] } else { &answer };
            assert!(made["metadata"] == fits);
        }
    }
    for too_long in [
        with("x".repeat(MOST - 7)),
        with("é".repeat(MOST / 2 - 3)),
        // Serialized, it has twice as many bytes.
        with("\n".repeat(MOST / 2)),
    ] {
        for (call, place, _) in calls(&fixture, &too_long) {
            let answer = call.send().await;
            assert!(answer.text.len() < 1000, "{}", answer.text);
            answer.invalid(&[place]);
        }
    }
    // Whitespace in the JSON does not count.
    let padded = format!("{{\"metadata\": {{{}}}}}", " ".repeat(2 * MOST));
    let call =
        fixture.app.call("PATCH".parse().unwrap(), &fixture.path).key(&fixture.key).body(padded);
    assert_eq!(call.send().await.expect(200)["metadata"], json!({}));
}

#[apply(on_both!)]
async fn metadata_is_returned_as_it_was_sent(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let nested = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let texts = [
        r#"{"":"","a":{"b":[1,[],{},null,true,"x"]},"é":"日本語 \" \\ \n 😀"}"#.to_owned(),
        r#"{"n":[0,-1,9223372036854775807,-9223372036854775808,18446744073709551615]}"#.to_owned(),
        r#"{"n":[0.1,-0.5,31.245270191439438,1700000000.123456,2.2250738585072014e-308]}"#
            .to_owned(),
        r#"{"password":"p","token":"t","version":"1"}"#.to_owned(),
        format!(r#"{{"deep":{nested}}}"#),
    ];
    for text in texts {
        let (conversation_path, all) =
            (format!("{CONVERSATIONS}/{}", fixture.id), messages(fixture.id));
        let message = format!(r#"{{"role":"user","content":"x","metadata":{text}}}"#);
        let only = format!(r#"{{"metadata":{text}}}"#);
        let sought = format!(r#""metadata":{text}"#);
        for (method, path, body) in [
            ("POST", all.clone(), message.clone()),
            ("POST", format!("{all}/batch"), format!(r#"{{"messages":[{message}]}}"#)),
            ("PATCH", fixture.path.clone(), only.clone()),
            ("POST", CONVERSATIONS.to_owned(), only.clone()),
            ("PUT", conversation_path.clone(), only),
        ] {
            let call =
                fixture.app.call(method.parse().unwrap(), &path).key(&fixture.key).body(body);
            let answer = call.send().await;
            assert!([200, 201].contains(&answer.status), "{}", answer.text);
            assert!(answer.text.contains(&sought), "{method} {path}: {}", answer.text);
        }
        for (path, times) in
            [(all, 3), (fixture.path.clone(), 1), (conversation_path, 4), (CONVERSATIONS.into(), 5)]
        {
            let answer = fixture.app.get(&path).key(&fixture.key).send().await;
            let found = answer.text.matches(&sought).count();
            assert!(found >= times, "{path}: {} of {times} in {}", found, answer.text);
        }
    }
    // JSON that cannot be serialized again is refused.
    let too_deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let body = format!(r#"{{"metadata":{{"deep":{too_deep}}}}}"#);
    let call =
        fixture.app.call("PATCH".parse().unwrap(), &fixture.path).key(&fixture.key).body(body);
    call.send().await.invalid(&["body"]);
}

#[apply(on_both!)]
async fn metadata_of_a_message_is_replaced_and_cleared(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let set = async |body: Value| {
        let call = fixture.app.patch(&fixture.path, body).session(&fixture.as_alice);
        let answer = call.send().await.expect(200);
        assert_eq!(fixture.message().await, answer);
        (answer["content"].clone(), answer["metadata"].clone())
    };
    let secret = json!("a secret");
    assert_eq!(set(json!({"metadata": {"a": 1}})).await, (secret.clone(), json!({"a": 1})));
    assert_eq!(set(json!({"metadata": {"b": 2}})).await, (secret, json!({"b": 2})));
    assert_eq!(set(json!({"content": "x"})).await, (json!("x"), json!({"b": 2})));
    assert_eq!(set(json!({"metadata": null})).await, (json!("x"), Value::Null));
    let edited = fixture.message().await;
    assert!(edited["edited_at"].is_string() && edited["version"] == 5, "{edited}");
    // A new message without metadata has none.
    for body in [
        json!({"role": "user", "content": "x", "metadata": null}),
        json!({"role": "user", "content": "x"}),
    ] {
        let new = fixture
            .app
            .post(&messages(fixture.id), body)
            .key(&fixture.key)
            .send()
            .await
            .expect(201);
        assert_eq!(new["metadata"], Value::Null);
    }
}

#[apply(on_both!)]
async fn metadata_of_a_conversation_is_replaced(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let path = format!("{CONVERSATIONS}/{}", fixture.id);
    for (body, expected) in [
        (json!({"metadata": {"a": 1}}), json!({"a": 1})),
        (json!({"metadata": {"b": {"c": [2]}}}), json!({"b": {"c": [2]}})),
        // Like every field of a PUT.
        (json!({"metadata": null}), json!({"b": {"c": [2]}})),
        (json!({"title": "x"}), json!({"b": {"c": [2]}})),
        (json!({"metadata": {}}), json!({})),
    ] {
        let answer = fixture.app.put(&path, body).key(&fixture.key).send().await.expect(200);
        assert_eq!(answer["metadata"], expected);
        assert_eq!(fixture.conversation().await["metadata"], expected);
    }
    // The body of a GET can be sent back.
    let whole = fixture.conversation().await;
    let answer = fixture.app.put(&path, whole.clone()).key(&fixture.key).send().await.expect(200);
    assert_eq!(answer["metadata"], whole["metadata"]);
    // A signed-in user can set it when they create a conversation.
    let body = json!({"metadata": {"topic": "x"}});
    let created =
        fixture.app.post(CONVERSATIONS, body).session(&fixture.as_alice).send().await.expect(201);
    assert_eq!(created["metadata"], json!({"topic": "x"}));
}
