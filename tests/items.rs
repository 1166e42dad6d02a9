//! Items: create, read, change and delete; and the checks of every operation.

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
use serde_json::json;

const ITEMS: &str = "/api/v1/items";
const ITEM: &str = "/api/v1/items/{item_id}";

/// The operations with the tag `items`, each with its most expensive request. The order matters:
/// each request finds the item that it reads or changes.
const OPERATIONS: &[Operation] = &[
    Operation::new("post", ITEMS, Scope("items:write"), |it| {
        it.key("POST", ITEMS).json(json!({"item_id": longest_id(), "name": longest_name()}))
    })
    .bodies(|ids| vec![json!({"item_id": ids["item_id"], "name": "new"})]),
    Operation::new("get", ITEMS, Scope("items:read"), |it| {
        it.key("GET", "/api/v1/items?limit=1000")
    }),
    Operation::new("get", ITEM, Scope("items:read"), |it| it.key("GET", &longest_path())),
    Operation::new("put", ITEM, Scope("items:write"), |it| {
        it.key("PUT", &longest_path()).json(json!({"name": longest_name()}))
    })
    .bodies(|_| vec![json!({})]),
    Operation::new("patch", ITEM, Scope("items:write"), |it| {
        it.key("PATCH", &longest_path()).json(json!({"name": longest_name()}))
    })
    .bodies(|_| vec![json!({})]),
    Operation::new("delete", ITEM, Scope("items:write"), |it| it.key("DELETE", &longest_path())),
];

fn longest_id() -> String {
    "i".repeat(64)
}

fn longest_path() -> String {
    format!("{ITEMS}/{}", longest_id())
}

/// The character has the most expensive case folding.
fn longest_name() -> String {
    "\u{390}".repeat(255)
}

#[apply(without_database!)]
fn every_operation_has_one_row() {
    check_rows("items", OPERATIONS);
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
        let item = json!({"item_id": "marked", "name": MARK});
        app.post(ITEMS, item).key(&admin).send().await.expect(201);
        Ids::from([("item_id", json!("marked"))])
    };
    check_write_responses(&app, OPERATIONS, seed).await;
}

#[apply(on_both!)]
async fn a_key_without_read_may_change_an_item_and_does_not_get_it(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (key, _) = app.key(&admin, "write").await;
    let gun = "/api/v1/items/gun";
    app.put(gun, json!({"name": "new"})).key(&key).send().await.expect(204);
    assert_eq!(app.get(gun).key(&admin).send().await.expect(200)["name"], "new");
}

#[apply(on_both!)]
async fn the_two_seeded_items_exist(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (read, _) = app.key(&admin, "read").await;
    let items = app.get("/api/v1/items/").key(&read).send().await.expect(200);
    assert_eq!(items, json!({"plumbus": {"name": "Plumbus"}, "gun": {"name": "Portal Gun"}}));
    let item = app.get("/api/v1/items/plumbus").key(&read).send().await.expect(200);
    assert_eq!(item, json!({"name": "Plumbus", "item_id": "plumbus"}));
    app.get("/api/v1/items/nothing").key(&read).send().await.refused(404, "Item not found");
}

#[apply(on_both!)]
async fn an_item_is_created_read_changed_and_deleted(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let new = json!({"item_id": "portal-fluid", "name": "Portal Fluid"});
    let created = app.post("/api/v1/items", new.clone()).key(&key).send().await.expect(201);
    assert_eq!(created, new);

    let path = "/api/v1/items/portal-fluid";
    let changed = app.put(path, json!({"name": "Blue Fluid", "item_id": "ignored"})).key(&key);
    let changed = changed.send().await.expect(200);
    assert_eq!(changed, json!({"item_id": "portal-fluid", "name": "Blue Fluid"}));
    assert_eq!(app.get(path).key(&key).send().await.expect(200), changed);

    app.delete(path).key(&key).send().await.expect(204);
    app.get(path).key(&key).send().await.refused(404, "Item not found");
    app.delete(path).key(&key).send().await.refused(404, "Item not found");
    app.put(path, json!({"name": "x"})).key(&key).send().await.refused(404, "Item not found");
}

#[apply(on_both!)]
async fn a_taken_id_is_a_conflict_and_changes_nothing(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let again = app.post("/api/v1/items", json!({"item_id": "gun", "name": "Another"}));
    again.key(&key).send().await.refused(409, "Item 'gun' already exists");
    let gun = app.get("/api/v1/items/gun").key(&key).send().await.expect(200);
    assert_eq!(gun["name"], "Portal Gun");
}

#[apply(on_both!)]
async fn an_invalid_id_is_refused_everywhere(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let too_long = "x".repeat(65);
    for id in ["Plumbus", "a b", "ä", &too_long] {
        let body = json!({"item_id": id, "name": ""});
        let created = app.post("/api/v1/items", body).key(&key).send().await;
        created.invalid(&["body.item_id", "body.name"]);
        let path = format!("/api/v1/items/{id}");
        app.get(&path).key(&key).send().await.invalid(&["path.item_id"]);
        app.delete(&path).key(&key).send().await.invalid(&["path.item_id"]);
    }
}

#[apply(on_both!)]
async fn a_null_name_changes_nothing(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let put = app.put("/api/v1/items/gun", json!({"name": null})).key(&key).send().await;
    assert_eq!(put.expect(200), json!({"item_id": "gun", "name": "Portal Gun"}));
}

#[apply(on_both!)]
async fn a_merge_patch_changes_the_name_and_refuses_null_and_unknown_fields(backend: Backend) {
    const MERGE_PATCH: &str = "application/merge-patch+json";
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let gun = "/api/v1/items/gun";
    let patch = |body| app.patch(gun, body).key(&key).send();
    assert_eq!(patch(json!({})).await.expect(200)["name"], "Portal Gun");
    patch(json!({"name": null})).await.invalid(&["body.name"]);
    patch(json!({"name": ""})).await.invalid(&["body.name"]);
    patch(json!({"nmae": "x"})).await.invalid(&["body.nmae"]);
    let changed = app.call(reqwest::Method::PATCH, gun).header("Content-Type", MERGE_PATCH);
    let changed = changed.key(&key).json(json!({"name": "Blue Gun"})).send().await.expect(200);
    assert_eq!(changed, json!({"item_id": "gun", "name": "Blue Gun"}));
    assert_eq!(app.get(gun).key(&key).send().await.expect(200), changed);
    let put = app.call(reqwest::Method::PUT, gun).header("Content-Type", MERGE_PATCH);
    put.key(&key).json(json!({"name": "x"})).send().await.expect(415);
    let unknown = app.patch("/api/v1/items/nothing", json!({"name": "x"})).key(&key).send().await;
    unknown.refused(404, "Item not found");
}

#[apply(on_both!)]
async fn a_page_of_items_is_in_the_order_of_creation(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let second = app.get("/api/v1/items?skip=1&limit=1").key(&key).send().await.expect(200);
    assert_eq!(second, json!({"gun": {"name": "Portal Gun"}}));
    for (query, place) in [("skip=-1", "skip"), ("limit=0", "limit"), ("limit=1001", "limit")] {
        let answer = app.get(&format!("/api/v1/items?{query}")).key(&key).send().await;
        answer.invalid(&[&format!("query.{place}")]);
    }
}
