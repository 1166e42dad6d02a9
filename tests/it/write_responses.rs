//! Responses to writes show no data that the key may not read. Tests every write route with every
//! combination of scopes that may call it without the matching read scope.

use crate::support::{Answer, Backend, Call, TestApp};
use octopus::core::text::folded;
use octopus::db::query;
use octopus::security::secret::{SecretHash, TokenKind};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A marker in every text of the seeded database that a read route shows.
const MARK: &str = "m4rk";
/// Scopes other than `admin` and `read`, which may read all tested data.
const SCOPES: [&str; 9] = [
    "write",
    "conversations:read",
    "conversations:write",
    "users:read",
    "users:write",
    "items:read",
    "items:write",
    "audit:read",
    "keys:verify",
];

/// A write: its route, and bodies that a key without the read scope may send.
struct Write {
    /// The resource in the names of the scopes: `conversations`, `users` or `items`.
    family: &'static str,
    method: &'static str,
    route: &'static str,
    bodies: fn(&Seed) -> Vec<Option<Value>>,
}

const fn write(
    family: &'static str,
    method: &'static str,
    route: &'static str,
    bodies: fn(&Seed) -> Vec<Option<Value>>,
) -> Write {
    Write { family, method, route, bodies }
}

const CONVERSATION: &str = "/api/v1/conversations/{conversation_id}";

/// Ordered so that each write finds the resource it changes.
fn writes() -> Vec<Write> {
    let conversation_path = |rest: &str| -> &'static str { format!("{CONVERSATION}{rest}").leak() };
    let conversations = "conversations";
    vec![
        write(conversations, "POST", "/api/v1/conversations", |seed| {
            vec![
                Some(json!({})),
                Some(json!({"participant_ids": [seed.user]})),
                Some(json!({"title": "new", "participant_ids": [seed.user, seed.other]})),
            ]
        }),
        write(conversations, "PUT", CONVERSATION, |_| {
            vec![Some(json!({})), Some(json!({"metadata": {}}))]
        }),
        write(conversations, "POST", conversation_path("/messages"), |seed| {
            vec![
                Some(json!({"role": "system", "content": "new"})),
                Some(json!({"role": "user", "content": "new", "user_id": seed.user})),
            ]
        }),
        write(conversations, "POST", conversation_path("/messages/batch"), |seed| {
            let message = json!({"role": "user", "content": "new", "user_id": seed.user});
            vec![Some(json!({"messages": [message, message]}))]
        }),
        write(conversations, "PATCH", conversation_path("/messages/{message_id}"), |_| {
            vec![Some(json!({})), Some(json!({"metadata": {"new": 1}}))]
        }),
        write(conversations, "POST", conversation_path("/participants"), |seed| {
            vec![Some(json!({"user_id": seed.user})), Some(json!({"user_id": seed.other}))]
        }),
        write(conversations, "DELETE", conversation_path("/participants/{user_id}"), |_| {
            vec![None]
        }),
        write(conversations, "DELETE", conversation_path("/messages/{message_id}"), |_| vec![None]),
        write("users", "PUT", "/api/v1/users/{user_id}", |_| vec![Some(json!({}))]),
        write("items", "POST", "/api/v1/items", |_| {
            vec![Some(json!({"item_id": "marked", "name": "new"}))]
        }),
        write("items", "PUT", "/api/v1/items/{item_id}", |_| vec![Some(json!({}))]),
        write("items", "DELETE", "/api/v1/items/{item_id}", |_| vec![None]),
        write(conversations, "DELETE", CONVERSATION, |_| vec![None]),
    ]
}

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
        let item = json!({"item_id": "marked", "name": MARK});
        app.post("/api/v1/items", item).key(admin).send().await.expect(201);
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

    fn path(&self, route: &str) -> String {
        let path = route.replace("{conversation_id}", &self.conversation.to_string());
        let path = path.replace("{message_id}", &self.message.to_string());
        path.replace("{user_id}", &self.user.to_string()).replace("{item_id}", "marked")
    }
}

/// Inserts a key with these scopes into the database; hundreds of requests would take too long.
async fn key(app: &TestApp, scopes: &str) -> String {
    const SQL: &str = "INSERT INTO api_keys \
        (key_hash, key_prefix, name, name_key, scopes, is_active, created_at) \
        VALUES ($1, 'octopus_many', $2, $3, $2, TRUE, $4)";
    let key = TokenKind::ApiKey.generate(&mut rand::rng()).expose().to_owned();
    let mut tx = app.state.db.begin().await.unwrap();
    let insert = query(&mut tx, SQL).bind(SecretHash::of(&key).to_vec());
    let insert = insert.bind(scopes).bind(folded(scopes)).bind(app.state.clock.now());
    insert.execute().await.unwrap();
    tx.commit().await.unwrap();
    key
}

fn call(app: &TestApp, method: &str, path: &str, body: Option<Value>) -> Call {
    let call = app.call(method.parse::<Method>().unwrap(), path);
    body.into_iter().fold(call, Call::json)
}

/// Asserts that a response does not show the marker; a refused one shows nothing at all.
#[track_caller]
fn shows_nothing(answer: &Answer, place: &str) {
    let was_done = (200..300).contains(&answer.status) || answer.status == 409;
    assert!(was_done, "{place}: {} {}", answer.status, answer.text);
    assert!(!answer.text.contains(MARK), "{place}: {}", answer.text);
    for header in ["location", "etag", "link"] {
        let shown = answer.header(header).unwrap_or_default();
        assert!(!shown.contains(MARK), "{place}: {header}: {shown}");
    }
}

#[apply(on_both!)]
async fn responses_to_writes_show_no_data_the_key_may_not_read(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let mut seed = Seed::new(&app, &admin).await;
    let writes = writes();
    for chosen in 0..1_u32 << SCOPES.len() {
        let held = |scope: &str| {
            SCOPES.iter().position(|name| *name == scope).is_some_and(|bit| chosen >> bit & 1 == 1)
        };
        let may_try = |family: &str| {
            (held("write") || held(&format!("{family}:write"))) && !held(&format!("{family}:read"))
        };
        if !["conversations", "users", "items"].into_iter().any(may_try) {
            continue;
        }
        let scopes: Vec<&str> = SCOPES.into_iter().filter(|scope| held(scope)).collect();
        let scopes = scopes.join(",");
        let key = key(&app, &scopes).await;
        for write in writes.iter().filter(|write| may_try(write.family)) {
            let path = seed.path(write.route);
            for body in (write.bodies)(&seed) {
                let place = format!("{} {path} {body:?} with {scopes}", write.method);
                let answer = call(&app, write.method, &path, body).key(&key).send().await;
                shows_nothing(&answer, &place);
            }
            match (write.method, write.route) {
                ("DELETE", "/api/v1/items/{item_id}") => {
                    let item = json!({"item_id": "marked", "name": MARK});
                    app.post("/api/v1/items", item).key(&admin).send().await.expect(201);
                }
                ("DELETE", _) => seed.add_conversation(&app, &admin).await,
                _ => {}
            }
        }
    }
}

#[apply(without_database!)]
fn every_write_route_is_tested_or_needs_no_write_scope() {
    let tried: BTreeSet<(String, String)> = writes()
        .into_iter()
        .map(|write| (write.method.to_lowercase(), write.route.to_owned()))
        .collect();
    for (method, path, scope) in crate::scopes::scopes_of_rows() {
        let is_write = scope.is_some_and(|scope| scope.ends_with(":write"));
        let is_tried = tried.contains(&(method.to_owned(), path.to_owned()));
        assert_eq!(is_write, is_tried, "{method} {path} needs {scope:?}");
    }
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
    let item = "/api/v1/items/marked";
    app.put(item, json!({"name": "new"})).key(&key).send().await.expect(204);
    for path in [&*user, item] {
        let stored = app.get(path).key(&admin).send().await.expect(200);
        assert!(["full_name", "name"].iter().any(|field| stored[field] == "new"), "{path}");
    }
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
        for write in writes().iter().filter(|write| write.family == "conversations") {
            if write.method == "DELETE" {
                continue;
            }
            let path = seed.path(write.route);
            for body in (write.bodies)(&seed) {
                let answer = call(&app, write.method, &path, body).key(&key).send().await;
                assert!([200, 201].contains(&answer.status), "{path}: {}", answer.text);
                assert!(answer.text.contains("created_at"), "{path}: {}", answer.text);
            }
        }
    }
}
