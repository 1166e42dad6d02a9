//! The memory budget: large bodies and large responses are charged, small ones are not.

mod large;

use crate::support::{Answer, Backend, TestApp};
use octopus::http::Charge;
use serde_json::json;

const CONVERSATIONS: &str = "/api/v1/conversations";
const BUDGET: usize = 256 * 1024 * 1024;

/// Charges the whole budget except `bytes`.
fn use_all_but(app: &TestApp, bytes: usize) -> Charge {
    app.state.memory.account(("others", -1), 1).charge(BUDGET - bytes)
}

#[track_caller]
fn is_refused(answer: &Answer) {
    assert_eq!(answer.status, 503, "{}", answer.text);
    assert_eq!(answer.header("retry-after"), Some("1"));
    let detail = answer["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("Too many large requests and responses are in progress"),
        "{detail}"
    );
}

/// Inserts `count` messages of `bytes` each into conversation 1.
async fn fill(backend: &Backend, count: usize, bytes: usize) {
    backend.fill_conversation(count, &"a".repeat(bytes)).await;
}

#[apply(on_both!)]
async fn over_the_budget_large_reads_are_refused_and_small_ones_are_not(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let id = app.conversation(&key, &[]).await;
    fill(&backend, 100, 20_000).await;
    let (whole, one) =
        (format!("{CONVERSATIONS}/{id}"), format!("{CONVERSATIONS}/{id}?message_limit=1"));
    let list = format!("{whole}/messages?limit=1000");
    let get = async |path: &str| app.get(path).key(&key).send().await;
    let full = use_all_but(&app, 0);
    is_refused(&get(&whole).await);
    is_refused(&get(&format!("{whole}?message_limit=20")).await);
    is_refused(&get(&list).await);
    get(&one).await.expect(200);
    // Writes have a reserve.
    let hello = json!({"role": "user", "content": "hello"});
    app.post(&format!("{whole}/messages"), hello.clone()).key(&key).send().await.expect(201);
    app.put(&whole, json!({"title": "another"})).key(&key).send().await.expect(200);
    let more = app.state.memory.account(("others", -1), 1).charge(BUDGET / 4);
    is_refused(&app.put(&whole, json!({"title": "a third"})).key(&key).send().await);
    assert_eq!(get(&one).await["title"], "another");
    drop((full, more));
    get(&whole).await.expect(200);
    get(&list).await.expect(200);
}

#[apply(on_both!)]
async fn an_account_that_has_used_its_share_does_not_block_others(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let (ada, ben) = (app.user("ada").await, app.user("ben").await);
    let id = app.conversation(&key, &[ada, ben]).await;
    fill(&backend, 100, 20_000).await;
    let (of_ada, of_ben) = (app.session_of(ada).await, app.session_of(ben).await);
    let path = format!("{CONVERSATIONS}/{id}");
    let used = app.state.memory.account(("user", ada), 8).charge(BUDGET / 8);
    is_refused(&app.get(&path).session(&of_ada).send().await);
    let hello = json!({"role": "user", "content": "hello"});
    let post = |session| app.post(&format!("{path}/messages"), hello.clone()).session(session);
    is_refused(&post(&of_ada).send().await);
    app.get(&format!("{path}?message_limit=1")).session(&of_ada).send().await.expect(200);
    app.get(&path).session(&of_ben).send().await.expect(200);
    post(&of_ben).send().await.expect(201);
    drop(used);
    app.get(&path).session(&of_ada).send().await.expect(200);
    post(&of_ada).send().await.expect(201);
}

#[apply(on_both!)]
async fn over_the_budget_a_large_body_is_refused_and_nothing_is_written(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let id = app.conversation(&key, &[]).await;
    let batch = |messages: usize| {
        let message = json!({"role": "user", "content": "a".repeat(50_000)});
        let path = format!("{CONVERSATIONS}/{id}/messages/batch");
        app.post(&path, json!({"messages": vec![message; messages]})).key(&key)
    };
    let full = use_all_but(&app, 2 * 1024 * 1024);
    is_refused(&batch(20).send().await);
    batch(5).send().await.expect(201);
    let path = format!("{CONVERSATIONS}/{id}/messages?limit=1");
    assert_eq!(app.get(&path).key(&key).send().await.body.as_array().unwrap().len(), 1);
    assert_eq!(app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM messages").await, 5);
    drop(full);
    batch(20).send().await.expect(201);
}

#[apply(on_both!)]
async fn the_charge_for_a_response_is_released(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let id = app.conversation(&key, &[]).await;
    fill(&backend, 100, 20_000).await;
    let path = format!("{CONVERSATIONS}/{id}");
    for path in [path.clone(), format!("{path}?message_limit=20"), format!("{path}/messages")] {
        app.get(&path).key(&key).send().await.expect(200);
        // A client that disconnects in the middle.
        drop(app.get(&path).key(&key).open().await);
    }
    let message = json!({"role": "user", "content": "a".repeat(90_000)});
    let batch = json!({"messages": vec![message; 5]});
    app.post(&format!("{path}/messages/batch"), batch).key(&key).send().await.expect(201);
    for _ in 0..200 {
        if app.state.memory.used() == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{} bytes are still charged", app.state.memory.used());
}

#[apply(on_both!)]
async fn an_unread_response_to_a_batch_stays_charged(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let id = app.conversation(&key, &[]).await;
    let message = json!({"role": "user", "content": "a".repeat(90_000)});
    let batch = json!({"messages": vec![message; 160]});
    let path = format!("{CONVERSATIONS}/{id}/messages/batch");
    let unread = app.post(&path, batch).key(&key).open().await;
    let used = app.state.memory.used();
    assert!(used > 14_000_000, "{used} bytes");
    drop(unread);
    for _ in 0..1200 {
        if app.state.memory.used() == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{} bytes are still charged", app.state.memory.used());
}

#[apply(on_both!)]
async fn streams_without_a_credential_do_not_use_the_share_of_sign_ins(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let ada = app.user("ada").await;
    let id = app.conversation(&key, &[ada]).await;
    let session = app.login("ada").await;
    let stream = async || {
        let tickets = format!("{CONVERSATIONS}/{id}/events/ticket");
        let issued = app.act(&tickets).session(&session).send().await.expect(201);
        let ticket = issued["ticket"].as_str().unwrap();
        app.get(&format!("{CONVERSATIONS}/{id}/events?ticket={ticket}")).open().await.status()
    };
    let share = |of: &'static str| app.state.memory.account((of, 0), 4).charge(BUDGET / 4);
    let used = share("readers");
    assert_eq!(stream().await, 503, "streams have used up their share");
    app.login("ada").await;
    drop(used);
    let used = share("others");
    assert_eq!(stream().await, 200);
    let body = json!({"username": "ada", "password": "correct horse battery"});
    is_refused(&app.post("/api/v1/users/login", body).send().await);
    drop(used);
}

#[apply(on_both!)]
async fn lines_of_an_import_are_not_charged_whatever_its_content_type(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let _full = use_all_but(&app, 2 * 1024 * 1024);
    for (external_id, content_type) in [("a", None), ("b", Some("application/x-ndjson"))] {
        let at = "2026-01-01T00:00:00Z";
        let mut lines =
            json!({"type": "conversation", "external_id": external_id, "created_at": at})
                .to_string();
        for _ in 0..40 {
            let content = "a".repeat(90_000);
            let message =
                json!({"type": "message", "role": "user", "content": content, "created_at": at});
            lines.extend(["\n", &message.to_string()]);
        }
        let call = app.act(&format!("{CONVERSATIONS}/import")).key(&key).body(lines + "\n");
        let call =
            content_type.into_iter().fold(call, |call, kind| call.header("Content-Type", kind));
        assert_eq!(call.send().await.expect(200)["messages"], 40, "{content_type:?}");
    }
}
