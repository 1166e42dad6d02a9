//! Concurrent and cancelled operations.

use crate::support::{Backend, TestApp};
use octopus::db::query;
use serde_json::json;
use std::time::Duration;
use tokio::time::timeout;

#[apply(on_both!)]
async fn a_transaction_cancelled_at_begin_leaves_its_connection_usable(backend: Backend) {
    const INSERT: &str = "INSERT INTO conversations (title, created_at, updated_at) \
        VALUES ($1, '2026-01-01T00:00:00+00:00', '2026-01-01T00:00:00+00:00')";
    const COUNT: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM conversations";
    let db = backend.open().await;
    for n in 0..400 {
        // Times out between the request for a connection and the response to BEGIN.
        let _ = timeout(Duration::from_micros(n * 5), db.snapshot()).await;
    }
    for n in 0..50 {
        let mut tx = db.begin().await.unwrap();
        query(&mut tx, INSERT).bind(format!("conversation {n}")).execute().await.unwrap();
        tx.commit().await.unwrap();
    }
    let (conversations,): (i64,) = query(&db, COUNT).one().await.unwrap();
    assert_eq!(conversations, 50, "committed rows are stored");
    db.close().await;
}

#[apply(on_both!)]
async fn leaving_a_conversation_during_its_deletion_does_not_deadlock(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let users = [app.user("ada").await, app.user("ben").await];
    for _ in 0..30 {
        let id = app.conversation(&key, &users).await;
        let path = format!("/api/v1/conversations/{id}");
        let leave = |user: i64| app.delete(&format!("{path}/participants/{user}")).key(&key).send();
        let join = app.post(&format!("{path}/participants"), json!({"user_id": users[0]}));
        let answers = tokio::join!(
            leave(users[0]),
            leave(users[1]),
            app.delete(&path).key(&key).send(),
            join.key(&key).send(),
        );
        for answer in [&answers.0, &answers.1, &answers.2, &answers.3] {
            assert!([200, 201, 204, 404].contains(&answer.status), "{answer:?}");
        }
        assert_eq!(answers.2.status, 204);
    }
}

#[apply(on_both!)]
async fn an_outdated_copy_of_a_user_does_not_undo_an_admin_change(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (writer, _) = app.key(&admin, "write").await;
    let path = format!("/api/v1/users/{}", app.user("ada").await);
    for _ in 0..30 {
        app.put(&path, json!({"is_active": true})).key(&admin).send().await.expect(200);
        let (by_admin, by_writer) = tokio::join!(
            app.put(&path, json!({"is_active": false})).key(&admin).send(),
            app.put(&path, json!({"is_active": true, "full_name": "Ada"})).key(&writer).send(),
        );
        by_admin.expect(200);
        // The outcome depends on which request ran first.
        assert!([204, 403].contains(&by_writer.status), "{by_writer:?}");
        let user = app.get(&path).key(&admin).send().await.expect(200);
        assert_eq!(user["is_active"], false, "the admin's change stays");
    }
}

#[apply(on_both!)]
async fn deleting_users_while_they_post_join_and_leave_does_not_deadlock(backend: Backend) {
    const ME: &str = "/api/v1/users/me";
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let conversations = [app.conversation(&key, &[]).await, app.conversation(&key, &[]).await];
    let path =
        |conversation: i64, rest: &str| format!("/api/v1/conversations/{conversation}/{rest}");
    for n in 0..10 {
        let names = [format!("ada{n}"), format!("ben{n}")];
        let users = [app.user(&names[0]).await, app.user(&names[1]).await];
        // The two users join the conversations in opposite orders.
        for (user, conversations) in users
            .into_iter()
            .zip([[conversations[0], conversations[1]], [conversations[1], conversations[0]]])
        {
            for conversation in conversations {
                let join = app.post(&path(conversation, "participants"), json!({"user_id": user}));
                join.key(&key).send().await.expect(201);
            }
        }
        let token = app.login(&names[1]).await;
        let mut tasks = tokio::task::JoinSet::new();
        for (conversation, user) in conversations
            .into_iter()
            .flat_map(|conversation| users.map(|user| (conversation, user)))
        {
            for _ in 0..4 {
                let body = json!({"role": "user", "content": "hello", "user_id": user});
                tasks.spawn(app.post(&path(conversation, "messages"), body).key(&key).send());
            }
            let leave = app.delete(&path(conversation, &format!("participants/{user}")));
            tasks.spawn(leave.key(&key).send());
            let rejoin = app.post(&path(conversation, "participants"), json!({"user_id": user}));
            tasks.spawn(rejoin.key(&key).send());
        }
        let by_admin = app.delete(&format!("/api/v1/users/{}", users[0])).key(&key).send();
        let body = json!({"current_password": "correct horse battery"});
        let by_self = app.delete(ME).json(body).session(&token).send();
        let (by_admin, by_self, others) = tokio::join!(by_admin, by_self, tasks.join_all());
        assert_eq!((by_admin.status, by_self.status), (204, 204), "{by_admin:?} {by_self:?}");
        for answer in others {
            assert!([200, 201, 403, 404, 409].contains(&answer.status), "{answer:?}");
        }
    }
    let authored = "SELECT CAST(COUNT(*) AS BIGINT) FROM messages WHERE user_id IS NOT NULL";
    assert_eq!(app.number(authored).await, 0);
}

#[apply(on_both!)]
async fn messages_of_concurrent_writers_have_increasing_times(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let id = app.conversation(&key, &[]).await;
    let path = format!("/api/v1/conversations/{id}/messages");
    let post_message = || app.post(&path, json!({"role": "user", "content": "hello"})).key(&key);
    for answer in app.send_concurrently(64, post_message).await {
        answer.expect(201);
    }
    let messages = app.get(&path).key(&key).send().await.expect(200);
    let times: Vec<_> =
        messages.as_array().unwrap().iter().map(|m| m["created_at"].as_str().unwrap()).collect();
    assert!(times.len() == 64 && times.is_sorted(), "{times:?}");
}
