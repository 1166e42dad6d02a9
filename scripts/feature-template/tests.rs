//! @The things@: create, read, change and delete; and the checks of every operation.

#[macro_use]
extern crate macro_rules_attribute;

#[macro_use]
mod support;

use crate::support::operations::Needs::Scope;
use crate::support::operations::{
    Callers, Ids, MARK, Operation, check_credentials, check_rows, check_sessions,
    check_worst_requests, check_write_responses,
};
use crate::support::{Backend, TestApp};
use chrono::TimeDelta;
use serde_json::{Value, json};

const @THINGS@: &str = "/api/v1/@the-things@";
const @THING@: &str = "/api/v1/@the-things@/{@thing@_id}";
const FIRST: &str = "/api/v1/@the-things@/1";

/// The operations with the tag `@the-things@`, each with its most expensive request. The order
/// matters: each request finds the row that it reads or changes.
const OPERATIONS: &[Operation] = &[
    Operation::new("post", @THINGS@, Scope("@the-things@:write"), |it| {
        it.key("POST", @THINGS@).json(longest())
    })
    .bodies(|_| vec![json!({"title": "new"})]),
    Operation::new("get", @THINGS@, Scope("@the-things@:read"), |it| {
        it.key("GET", "/api/v1/@the-things@?limit=1000")
    }),
    Operation::new("get", @THING@, Scope("@the-things@:read"), |it| it.key("GET", FIRST)),
    Operation::new("patch", @THING@, Scope("@the-things@:write"), |it| {
        it.key("PATCH", FIRST).json(longest())
    })
    .bodies(|_| vec![json!({})]),
    Operation::new("delete", @THING@, Scope("@the-things@:write"), |it| it.key("DELETE", FIRST)),
];

/// The longest fields, of the character with the most expensive case folding.
fn longest() -> Value {
    json!({"title": "\u{390}".repeat(255)})
}

#[apply(without_database!)]
fn every_operation_has_one_row() {
    check_rows("@the-things@", OPERATIONS);
}

#[apply(on_both!)]
async fn every_operation_requires_the_credential_of_its_row(backend: Backend) {
    check_credentials(&backend, OPERATIONS).await;
}

#[apply(on_both!)]
async fn every_operation_accepts_sessions_according_to_its_row(backend: Backend) {
    check_sessions(&backend, OPERATIONS).await;
}

#[apply(on_both!)]
async fn the_worst_request_of_every_operation_is_answered_within_its_bound(backend: Backend) {
    let callers = Callers::new(&backend).await;
    check_worst_requests(&callers, OPERATIONS).await;
}

#[apply(on_both!)]
async fn responses_to_writes_show_no_data_the_key_may_not_read(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let seed = async || {
        let created = app.post(@THINGS@, json!({"title": MARK})).key(&admin).send().await;
        Ids::from([("@thing@_id", created.expect(201)["id"].clone())])
    };
    check_write_responses(&app, OPERATIONS, seed).await;
}

#[apply(on_both!)]
async fn a_row_is_created_read_changed_and_deleted(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (key, _) = app.key(&admin, "@the-things@:read,@the-things@:write").await;
    let body = json!({"title": "Groceries"});
    let created = app.post(@THINGS@, body).key(&key).send().await.expect(201);
    assert_eq!((&created["id"], &created["title"]), (&json!(1), &json!("Groceries")));
    assert_eq!(created["created_at"], created["updated_at"]);

    app.advance(TimeDelta::minutes(1));
    let body = json!({"title": "Shopping"});
    let changed = app.patch(FIRST, body).key(&key).send().await.expect(200);
    assert_eq!((&changed["id"], &changed["title"]), (&json!(1), &json!("Shopping")));
    assert_eq!(changed["created_at"], created["created_at"]);
    assert_ne!(changed["updated_at"], created["updated_at"]);
    assert_eq!(app.get(FIRST).key(&key).send().await.expect(200), changed);

    app.delete(FIRST).key(&key).send().await.expect(204);
    app.get(FIRST).key(&key).send().await.refused(404, "@The thing@ not found");
    app.patch(FIRST, json!({})).key(&key).send().await.refused(404, "@The thing@ not found");
    app.delete(FIRST).key(&key).send().await.refused(404, "@The thing@ not found");
}

#[apply(on_both!)]
async fn an_absent_field_stays_unchanged(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    app.post(@THINGS@, json!({"title": "Groceries"})).key(&key).send().await.expect(201);
    let changed = app.patch(FIRST, json!({})).key(&key).send().await.expect(200);
    assert_eq!(changed["title"], "Groceries");
}

#[apply(on_both!)]
async fn a_list_has_pages_in_the_order_of_creation(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let mut created = vec![];
    for title in ["A", "B", "C"] {
        let answer = app.post(@THINGS@, json!({"title": title})).key(&key).send().await;
        created.push(answer.expect(201));
    }
    let first = app.get("/api/v1/@the-things@?limit=2").key(&key).send().await;
    let next = first.link("next").expect("there is a second page");
    assert_eq!(first.expect(200), json!(created[..2]));
    let second = app.get(&next).key(&key).send().await;
    assert_eq!(second.link("next"), None);
    assert_eq!(second.expect(200), json!(created[2..]));
    let filtered = app.get("/api/v1/@the-things@?title=B").key(&key).send().await.expect(200);
    assert_eq!(filtered, json!([created[1]]));
}

#[apply(on_both!)]
async fn every_broken_rule_is_reported(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    app.post(@THINGS@, json!({"title": "Groceries"})).key(&key).send().await.expect(201);
    for title in [json!(""), json!("x".repeat(256)), Value::Null, json!(1)] {
        let body = json!({"title": title});
        app.post(@THINGS@, body.clone()).key(&key).send().await.invalid(&["body.title"]);
        app.patch(FIRST, body).key(&key).send().await.invalid(&["body.title"]);
    }
    let unknown = app.patch(FIRST, json!({"colour": "red"})).key(&key).send().await;
    unknown.invalid(&["body.colour"]);
    app.get("/api/v1/@the-things@/0").key(&key).send().await.invalid(&["path.@thing@_id"]);
    assert_eq!(app.get(FIRST).key(&key).send().await.expect(200)["title"], "Groceries");
}
