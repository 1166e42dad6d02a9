//! Things that happen at the same time, or stop half-way.

use crate::support::{Backend, TestApp, tests};
use octopus::db::query;
use serde_json::json;
use std::time::Duration;
use tokio::time::timeout;

tests!(on_both: [
    a_transaction_given_up_while_it_begins_spoils_no_connection,
    leaving_a_conversation_while_it_is_deleted_is_no_deadlock,
    an_old_copy_of_a_user_does_not_undo_what_an_admin_changes,
    deleting_users_while_they_talk_join_and_leave_is_no_deadlock,
    messages_of_many_writers_have_times_in_their_order,
]);

async fn a_transaction_given_up_while_it_begins_spoils_no_connection(backend: Backend) {
    const INSERT: &str = "INSERT INTO items (item_id, name) VALUES ($1, 'x')";
    let db = backend.open().await;
    for n in 0..400 {
        // Somewhere between asking for a connection and the answer to BEGIN.
        let _ = timeout(Duration::from_micros(n * 5), db.snapshot()).await;
    }
    for n in 0..50 {
        let mut tx = db.begin().await.unwrap();
        query(&mut tx, INSERT).bind(format!("item{n}")).execute().await.unwrap();
        tx.commit().await.unwrap();
    }
    let (items,): (i64,) =
        query(&db, "SELECT CAST(COUNT(*) AS BIGINT) FROM items").one().await.unwrap();
    assert_eq!(items, 52, "what was committed is there");
    db.close().await;
}

async fn leaving_a_conversation_while_it_is_deleted_is_no_deadlock(backend: Backend) {
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

async fn an_old_copy_of_a_user_does_not_undo_what_an_admin_changes(backend: Backend) {
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
        // Either the copy was still true, or it came too late.
        assert!([204, 403].contains(&by_writer.status), "{by_writer:?}");
        let user = app.get(&path).key(&admin).send().await.expect(200);
        assert_eq!(user["is_active"], false, "the admin had the last word");
    }
}

async fn deleting_users_while_they_talk_join_and_leave_is_no_deadlock(backend: Backend) {
    const ME: &str = "/api/v1/users/me";
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let talks = [app.conversation(&key, &[]).await, app.conversation(&key, &[]).await];
    let path = |talk: i64, rest: &str| format!("/api/v1/conversations/{talk}/{rest}");
    for n in 0..10 {
        let names = [format!("ada{n}"), format!("ben{n}")];
        let users = [app.user(&names[0]).await, app.user(&names[1]).await];
        // In one order for the one, and in the other for the other.
        for (user, talks) in users.into_iter().zip([[talks[0], talks[1]], [talks[1], talks[0]]]) {
            for talk in talks {
                let join = app.post(&path(talk, "participants"), json!({"user_id": user}));
                join.key(&key).send().await.expect(201);
            }
        }
        let token = app.login(&names[1]).await;
        let mut tasks = tokio::task::JoinSet::new();
        for (talk, user) in talks.into_iter().flat_map(|talk| users.map(|user| (talk, user))) {
            for _ in 0..4 {
                let body = json!({"role": "user", "content": "hello", "user_id": user});
                tasks.spawn(app.post(&path(talk, "messages"), body).key(&key).send());
            }
            let leave = app.delete(&path(talk, &format!("participants/{user}")));
            tasks.spawn(leave.key(&key).send());
            let rejoin = app.post(&path(talk, "participants"), json!({"user_id": user}));
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
    let nobodys = "SELECT CAST(COUNT(*) AS BIGINT) FROM messages WHERE user_id IS NOT NULL";
    assert_eq!(app.number(nobodys).await, 0);
}

async fn messages_of_many_writers_have_times_in_their_order(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let id = app.conversation(&key, &[]).await;
    let path = format!("/api/v1/conversations/{id}/messages");
    let say = || app.post(&path, json!({"role": "user", "content": "hello"})).key(&key);
    for answer in app.at_once(64, say).await {
        answer.expect(201);
    }
    let messages = app.get(&path).key(&key).send().await.expect(200);
    let times: Vec<_> =
        messages.as_array().unwrap().iter().map(|m| m["created_at"].as_str().unwrap()).collect();
    assert!(times.len() == 64 && times.is_sorted(), "{times:?}");
}
