//! What clients attach to messages and conversations.

use super::{Said, TALKS, json, messages};
use crate::support::{Backend, Call};
use serde_json::Value;

/// Most bytes.
const MOST: usize = 16 * 1024;

/// Each call that takes metadata, with `metadata`, and how its field is called in a 422.
fn calls(said: &Said, metadata: &Value) -> [(Call, &'static str, u16); 5] {
    let message = json!({"role": "user", "content": "x", "metadata": metadata});
    let (batch, only) = (json!({"messages": [message]}), json!({"metadata": metadata}));
    let (talk, all) = (format!("{TALKS}/{}", said.id), messages(said.id));
    let app = &said.app;
    let calls = [
        (app.post(&all, message), "body.metadata", 201),
        (app.post(&format!("{all}/batch"), batch), "body.messages.0.metadata", 201),
        (app.patch(&said.path, only.clone()), "body.metadata", 200),
        (app.post(TALKS, only.clone()), "body.metadata", 201),
        (app.put(&talk, only), "body.metadata", 200),
    ];
    calls.map(|(call, place, status)| (call.key(&said.key), place, status))
}

pub async fn metadata_is_an_object(backend: Backend) {
    let said = Said::new(&backend).await;
    for wrong in [json!([]), json!("x"), json!(1), json!(true), json!([{"a": 1}])] {
        for (call, place, _) in calls(&said, &wrong) {
            call.send().await.invalid(&[place]);
        }
    }
    for (call, place, _) in calls(&said, &json!({"a": {"b": ["\0"]}})) {
        call.send().await.invalid(&[&format!("{place}.a.b.0")]);
    }
    assert_eq!(said.app.number("SELECT COUNT(*) FROM messages").await, 1);
    for (call, _, status) in calls(&said, &json!({})) {
        let answer = call.send().await.expect(status);
        let made = if answer.is_array() { &answer[0] } else { &answer };
        assert_eq!(made["metadata"], json!({}));
    }
}

pub async fn metadata_has_at_most_16_kib(backend: Backend) {
    let said = Said::new(&backend).await;
    // The object around it takes eight.
    let with = |text: String| json!({"k": text});
    for fits in [with("x".repeat(MOST - 8)), with("é".repeat(MOST / 2 - 4))] {
        assert_eq!(fits.to_string().len(), MOST);
        for (call, _, status) in calls(&said, &fits) {
            let answer = call.send().await.expect(status);
            let made = if answer.is_array() { &answer[0] } else { &answer };
            assert!(made["metadata"] == fits);
        }
    }
    for too_long in [
        with("x".repeat(MOST - 7)),
        with("é".repeat(MOST / 2 - 3)),
        // Written, it takes twice the room.
        with("\n".repeat(MOST / 2)),
    ] {
        for (call, place, _) in calls(&said, &too_long) {
            let answer = call.send().await;
            assert!(answer.text.len() < 1000, "{}", answer.text);
            answer.invalid(&[place]);
        }
    }
    // Blanks between do not count.
    let padded = format!("{{\"metadata\": {{{}}}}}", " ".repeat(2 * MOST));
    let call = said.app.call("PATCH".parse().unwrap(), &said.path).key(&said.key).body(padded);
    assert_eq!(call.send().await.expect(200)["metadata"], json!({}));
}

pub async fn metadata_comes_back_as_it_was_sent(backend: Backend) {
    let said = Said::new(&backend).await;
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
        let (talk, all) = (format!("{TALKS}/{}", said.id), messages(said.id));
        let message = format!(r#"{{"role":"user","content":"x","metadata":{text}}}"#);
        let only = format!(r#"{{"metadata":{text}}}"#);
        let sought = format!(r#""metadata":{text}"#);
        for (method, path, body) in [
            ("POST", all.clone(), message.clone()),
            ("POST", format!("{all}/batch"), format!(r#"{{"messages":[{message}]}}"#)),
            ("PATCH", said.path.clone(), only.clone()),
            ("POST", TALKS.to_owned(), only.clone()),
            ("PUT", talk.clone(), only),
        ] {
            let call = said.app.call(method.parse().unwrap(), &path).key(&said.key).body(body);
            let answer = call.send().await;
            assert!([200, 201].contains(&answer.status), "{}", answer.text);
            assert!(answer.text.contains(&sought), "{method} {path}: {}", answer.text);
        }
        for (path, times) in [(all, 3), (said.path.clone(), 1), (talk, 4), (TALKS.into(), 5)] {
            let answer = said.app.get(&path).key(&said.key).send().await;
            let found = answer.text.matches(&sought).count();
            assert!(found >= times, "{path}: {} of {times} in {}", found, answer.text);
        }
    }
    // What nobody could write again is not taken.
    let too_deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let body = format!(r#"{{"metadata":{{"deep":{too_deep}}}}}"#);
    let call = said.app.call("PATCH".parse().unwrap(), &said.path).key(&said.key).body(body);
    call.send().await.invalid(&["body"]);
}

pub async fn metadata_of_a_message_is_replaced_and_cleared(backend: Backend) {
    let said = Said::new(&backend).await;
    let set = async |body: Value| {
        let call = said.app.patch(&said.path, body).session(&said.as_alice);
        let answer = call.send().await.expect(200);
        assert_eq!(said.message().await, answer);
        (answer["content"].clone(), answer["metadata"].clone())
    };
    let secret = json!("a secret");
    assert_eq!(set(json!({"metadata": {"a": 1}})).await, (secret.clone(), json!({"a": 1})));
    assert_eq!(set(json!({"metadata": {"b": 2}})).await, (secret, json!({"b": 2})));
    assert_eq!(set(json!({"content": "x"})).await, (json!("x"), json!({"b": 2})));
    assert_eq!(set(json!({"metadata": null})).await, (json!("x"), Value::Null));
    let edited = said.message().await;
    assert!(edited["edited_at"].is_string() && edited["version"] == 5, "{edited}");
    // A new one without any has none.
    for body in [
        json!({"role": "user", "content": "x", "metadata": null}),
        json!({"role": "user", "content": "x"}),
    ] {
        let new = said.app.post(&messages(said.id), body).key(&said.key).send().await.expect(201);
        assert_eq!(new["metadata"], Value::Null);
    }
}

pub async fn metadata_of_a_conversation_is_replaced(backend: Backend) {
    let said = Said::new(&backend).await;
    let path = format!("{TALKS}/{}", said.id);
    for (body, expected) in [
        (json!({"metadata": {"a": 1}}), json!({"a": 1})),
        (json!({"metadata": {"b": {"c": [2]}}}), json!({"b": {"c": [2]}})),
        // As every field of a PUT.
        (json!({"metadata": null}), json!({"b": {"c": [2]}})),
        (json!({"title": "x"}), json!({"b": {"c": [2]}})),
        (json!({"metadata": {}}), json!({})),
    ] {
        let answer = said.app.put(&path, body).key(&said.key).send().await.expect(200);
        assert_eq!(answer["metadata"], expected);
        assert_eq!(said.conversation().await["metadata"], expected);
    }
    // What was got can be sent back.
    let whole = said.conversation().await;
    let answer = said.app.put(&path, whole.clone()).key(&said.key).send().await.expect(200);
    assert_eq!(answer["metadata"], whole["metadata"]);
    // Somebody logged in sets it when they begin one.
    let body = json!({"metadata": {"topic": "x"}});
    let begun = said.app.post(TALKS, body).session(&said.as_alice).send().await.expect(201);
    assert_eq!(begun["metadata"], json!({"topic": "x"}));
}
