//! Items: complete CRUD, a template for the tests of new features.

#[macro_use]
extern crate macro_rules_attribute;

#[macro_use]
mod support;

use crate::support::{Backend, TestApp};
use serde_json::json;

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
