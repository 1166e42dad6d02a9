//! The responses to writes show no data that the key may not read, and all that it may.

use crate::operations::operations;
use crate::support::operations::{Ids, MARK, check_write_responses, write_calls};
use crate::support::{Backend, TestApp};
use serde_json::{Value, json};

/// The ids of the resources that the writes change.
struct Seed {
    user: i64,
    other: i64,
    conversation: i64,
    message: i64,
}

impl Seed {
    async fn new(app: &TestApp, admin: &str) -> Self {
        let mut users = vec![];
        for name in ["ada", "bob"] {
            let body = json!({"email": format!("{name}.{MARK}@example.com"), "password": "correct horse battery",
                "username": format!("{name} {MARK}").replace(' ', "_"), "full_name": format!("{name} {MARK}")});
            let user = app.post("/api/v1/users", body).send().await.expect(201);
            users.push(user["id"].as_i64().unwrap());
        }
        let [user, other] = users[..] else { unreachable!() };
        let mut seed = Self { user, other, conversation: 0, message: 0 };
        seed.add_conversation(app, admin).await;
        seed
    }

    /// Adds a conversation in which every text is marked.
    async fn add_conversation(&mut self, app: &TestApp, admin: &str) {
        let body = json!({"title": MARK, "participant_ids": [self.user], "metadata": {"a": MARK}});
        let created = app.post("/api/v1/conversations", body).key(admin).send().await.expect(201);
        self.conversation = created["id"].as_i64().unwrap();
        let path = format!("/api/v1/conversations/{}/messages", self.conversation);
        let body =
            json!({"role": "user", "content": MARK, "user_id": self.user, "metadata": {"a": MARK}});
        let created = app.post(&path, body).key(admin).send().await.expect(201);
        self.message = created["id"].as_i64().unwrap();
    }

    fn ids(&self) -> Ids {
        Ids::from([
            ("conversation_id", json!(self.conversation)),
            ("message_id", json!(self.message)),
            ("user_id", json!(self.user)),
            ("other_id", json!(self.other)),
        ])
    }
}

#[apply(on_both!)]
async fn responses_to_writes_show_no_data_the_key_may_not_read(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let Seed { user, other, .. } = Seed::new(&app, &admin).await;
    let seed = async || {
        let mut seed = Seed { user, other, conversation: 0, message: 0 };
        seed.add_conversation(&app, &admin).await;
        seed.ids()
    };
    check_write_responses(&app, operations(), seed).await;
}

#[apply(on_both!)]
async fn a_key_without_read_gets_the_fields_it_sent_with_ids_and_versions(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let seed = Seed::new(&app, &admin).await;
    let (key, _) = app.key(&admin, "write").await;
    let body = json!({"title": "new", "participant_ids": [seed.user]});
    let created = app.post("/api/v1/conversations", body).key(&key).send().await.expect(201);
    assert_eq!(created.as_object().unwrap().keys().collect::<Vec<_>>(), ["id"]);
    let path = format!("/api/v1/conversations/{}", created["id"]);
    let stored = app.get(&path).key(&admin).send().await.expect(200);
    assert_eq!(
        (&stored["title"], &stored["participants"][0]["id"]),
        (&json!("new"), &json!(seed.user))
    );

    let messages = format!("{path}/messages");
    let body =
        json!({"role": "user", "content": "new", "user_id": seed.user, "metadata": {"a": 1}});
    let created = app.post(&messages, body.clone()).key(&key).send().await.expect(201);
    for field in ["role", "content", "user_id", "metadata"] {
        assert_eq!(created[field], body[field]);
    }
    assert_eq!(
        (&created["seq"], &created["version"], &created["user"]),
        (&json!(1), &json!(1), &Value::Null)
    );

    let message = format!("{messages}/{}", created["id"]);
    let edited = app.patch(&message, json!({"content": "newer"})).key(&key).send().await;
    assert_eq!((edited.status, edited.header("etag")), (204, Some("\"2\"")));
    let unchanged = app.patch(&message, json!({})).key(&key).send().await;
    assert_eq!((unchanged.status, unchanged.header("etag")), (204, Some("\"2\"")));
    let stored = app.get(&message).key(&admin).send().await.expect(200);
    assert_eq!(stored["content"], "newer");

    let participants = format!("{path}/participants");
    let joining = json!({"user_id": seed.other});
    app.post(&participants, joining).key(&key).send().await.expect(204);
    app.delete(&format!("{participants}/{}", seed.other)).key(&key).send().await.expect(204);
    app.put(&path, json!({"title": "newer"})).key(&key).send().await.expect(204);
    let stored = app.get(&path).key(&admin).send().await.expect(200);
    assert_eq!(
        (&stored["title"], stored["participants"].as_array().unwrap().len()),
        (&json!("newer"), 1)
    );

    let user = format!("/api/v1/users/{}", seed.user);
    app.put(&user, json!({"full_name": "new"})).key(&key).send().await.expect(204);
    let stored = app.get(&user).key(&admin).send().await.expect(200);
    assert_eq!(stored["full_name"], "new");
}

#[apply(on_both!)]
async fn a_replay_shows_a_key_without_read_no_later_edits(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let seed = Seed::new(&app, &admin).await;
    let (key, _) = app.key(&admin, "conversations:write").await;
    let post =
        |path: &str, body: Value| app.post(path, body).key(&key).header("Idempotency-Key", "again");
    let begin = || post("/api/v1/conversations", json!({"title": "new"}));
    let created = begin().send().await.expect(201);
    let path = format!("/api/v1/conversations/{}", created["id"]);
    app.put(&path, json!({"title": MARK, "metadata": {"a": MARK}}))
        .key(&admin)
        .send()
        .await
        .expect(200);
    let joining = json!({"user_id": seed.user});
    app.post(&format!("{path}/participants"), joining).key(&admin).send().await.expect(201);
    let repeated = begin().send().await;
    assert_eq!(repeated.header("idempotency-replayed"), Some("true"));
    assert_eq!(repeated.expect(201), created);

    let messages = format!("{path}/messages");
    let append =
        || post(&messages, json!({"role": "user", "content": "new", "user_id": seed.user}));
    let created = append().send().await.expect(201);
    let message = format!("{messages}/{}", created["id"]);
    let edit = json!({"content": MARK, "metadata": {"a": MARK}});
    app.patch(&message, edit).key(&admin).send().await.expect(200);
    let repeated = append().send().await;
    assert_eq!(repeated.header("idempotency-replayed"), Some("true"));
    let repeated = repeated.expect(201);
    let mut expected = created.clone();
    expected["version"] = json!(2);
    assert_eq!(repeated, expected);

    app.delete(&path).key(&admin).send().await.expect(204);
    begin().send().await.refused(404, "Conversation not found");
}

#[apply(on_both!)]
async fn a_key_with_read_gets_the_whole_answer_to_a_write(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let seed = Seed::new(&app, &admin).await;
    for scopes in ["write,read", "conversations:write,conversations:read", "admin"] {
        let (key, _) = app.key(&admin, scopes).await;
        let writes = operations().filter(|it| it.written() == Some("conversations"));
        for write in writes.filter(|write| write.method != "delete") {
            for (place, call) in write_calls(&app, write, &seed.ids()) {
                let answer = call.key(&key).send().await;
                assert!([200, 201].contains(&answer.status), "{place}: {}", answer.text);
                assert!(answer.text.contains("created_at"), "{place}: {}", answer.text);
            }
        }
    }
}
