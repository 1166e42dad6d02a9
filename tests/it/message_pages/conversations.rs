//! Lists of conversations: by id and by last message, of all and of one user.

use super::{As, CONVERSATIONS, field_values, get, json, messages, read_pages, user_message};
use crate::support::{Backend, TestApp};
use chrono::TimeDelta;

/// A server with an admin key, Alice, her session, and conversations.
struct Fixture {
    app: TestApp,
    key: String,
    alice: i64,
    as_alice: String,
}

impl Fixture {
    /// Creates conversations 1 to `n`. Alice is a participant of those with `hers(id)`.
    async fn new(backend: &Backend, n: i64, hers: impl Fn(i64) -> bool) -> Self {
        let app = TestApp::new(backend).await;
        let key = app.admin().await;
        let alice = app.user("alice").await;
        let as_alice = app.session_of(alice).await;
        let fixture = Self { app, key, alice, as_alice };
        for id in 1..=n {
            fixture.create(hers(id)).await;
        }
        fixture
    }

    async fn create(&self, hers: bool) -> i64 {
        self.app.advance(TimeDelta::seconds(1));
        let participants: &[i64] = if hers { &[self.alice] } else { &[] };
        self.app.conversation(&self.key, participants).await
    }

    /// Sends a message to each of these, one after the other.
    async fn send_messages(&self, ids: &[i64]) {
        for id in ids {
            self.app.advance(TimeDelta::seconds(1));
            let call = self.app.post(&messages(*id), user_message("x")).key(&self.key);
            call.send().await.expect(201);
        }
    }

    async fn delete(&self, id: i64) {
        self.app.delete(&format!("{CONVERSATIONS}/{id}")).key(&self.key).send().await.expect(204);
    }

    /// The ids of a page, and its links to the next and previous pages.
    async fn page(&self, target: &str) -> (Vec<i64>, Option<String>, Option<String>) {
        let answer = get(&self.app, As::Key(&self.key), target).await;
        let (next, prev) = (answer.link("next"), answer.link("prev"));
        (field_values(&answer.expect(200), "id"), next, prev)
    }

    /// Reads the list in both directions with pages of every length, and asserts the ids.
    async fn assert_pages(&self, who: As<'_>, list: &str, order: &str, expected: &[i64]) {
        let last = expected.len() - 1;
        for limit in 1..=expected.len() + 1 {
            let start = format!("{list}?order={order}&limit={limit}&message_limit=0");
            let pages = read_pages(&self.app, who, &start, "next", "id").await;
            assert_eq!(pages.concat(), expected, "{start}");
            assert_eq!(pages.len(), expected.len().div_ceil(limit), "{start}");
            let start = format!("{list}?order={order}&limit=1&skip={last}");
            let prev = get(&self.app, who, &start).await.link("prev").unwrap();
            let back = prev.replace("limit=1", &format!("limit={limit}"));
            let mut pages = read_pages(&self.app, who, &back, "prev", "id").await;
            pages.reverse();
            assert_eq!(pages.concat(), expected[..last], "{back}");
        }
    }
}

#[apply(on_both!)]
async fn conversations_can_be_paged_in_every_order(backend: Backend) {
    let fixture = Fixture::new(&backend, 7, |_| false).await;
    fixture.send_messages(&[4, 2, 6, 2]).await;
    let who = As::Key(&fixture.key);
    fixture.assert_pages(who, CONVERSATIONS, "asc", &[1, 2, 3, 4, 5, 6, 7]).await;
    fixture.assert_pages(who, CONVERSATIONS, "desc", &[7, 6, 5, 4, 3, 2, 1]).await;
    fixture.assert_pages(who, CONVERSATIONS, "recent", &[2, 6, 4, 7, 5, 3, 1]).await;
    // Conversations without messages are sorted by creation, but have no time of a last message.
    let recent = get(&fixture.app, who, &format!("{CONVERSATIONS}?order=recent")).await.expect(200);
    for (n, entry) in recent.as_array().unwrap().iter().enumerate() {
        let newest = entry["messages"].as_array().unwrap().last();
        assert_eq!(newest.is_some(), n < 3);
        assert_eq!(
            entry["last_message_at"],
            newest.map_or(json!(null), |m| m["created_at"].clone())
        );
    }
}

#[apply(on_both!)]
async fn conversations_of_a_user_can_be_paged_in_every_order(backend: Backend) {
    let fixture = Fixture::new(&backend, 9, |id| id % 3 != 0).await;
    fixture.send_messages(&[3, 4, 2, 6, 2]).await;
    let own = format!("{CONVERSATIONS}/user/{}", fixture.alice);
    let user = As::User(&fixture.as_alice);
    for (who, list) in [(As::Key(&fixture.key), &*own), (user, &own), (user, CONVERSATIONS)] {
        fixture.assert_pages(who, list, "asc", &[1, 2, 4, 5, 7, 8]).await;
        fixture.assert_pages(who, list, "desc", &[8, 7, 5, 4, 2, 1]).await;
        fixture.assert_pages(who, list, "recent", &[2, 4, 8, 7, 5, 1]).await;
    }
}

#[apply(on_both!)]
async fn conversations_with_the_same_time_have_an_order(backend: Backend) {
    let fixture = Fixture::new(&backend, 6, |id| id != 3).await;
    backend.execute("UPDATE conversations SET active_at = '2026-01-01T00:00:00+00:00'").await;
    fixture.assert_pages(As::Key(&fixture.key), CONVERSATIONS, "recent", &[6, 5, 4, 3, 2, 1]).await;
    fixture
        .assert_pages(As::User(&fixture.as_alice), CONVERSATIONS, "recent", &[6, 5, 4, 2, 1])
        .await;
    // A whole second, and times around it with more and fewer digits.
    for (id, time) in [(1, "00.500"), (2, "00.500001"), (3, "00.490"), (4, "00"), (5, "00.000001")]
    {
        let sql = format!(
            "UPDATE conversations SET active_at = '2026-01-01T00:00:{time}+00:00' WHERE id = {id}"
        );
        backend.execute(sql).await;
    }
    fixture.assert_pages(As::Key(&fixture.key), CONVERSATIONS, "recent", &[2, 1, 3, 5, 6, 4]).await;
}

#[apply(on_both!)]
async fn a_cursor_of_conversations_belongs_to_one_list(backend: Backend) {
    let fixture = Fixture::new(&backend, 3, |_| true).await;
    let bob = fixture.app.user("bob").await;
    for id in 1..=3 {
        let path = format!("{CONVERSATIONS}/{id}/participants");
        let call = fixture.app.post(&path, json!({"user_id": bob})).key(&fixture.key);
        call.send().await.expect(201);
    }
    let of = |user: i64| format!("{CONVERSATIONS}/user/{user}");
    let lists: Vec<(String, &str)> = [CONVERSATIONS.to_owned(), of(fixture.alice), of(bob)]
        .into_iter()
        .flat_map(|list| [(list.clone(), "asc"), (list, "recent")])
        .collect();
    let mut cursors = vec![];
    for (list, order) in &lists {
        let (_, next, _) = fixture.page(&format!("{list}?order={order}&limit=1")).await;
        let next = next.unwrap();
        let (_, cursor) = next.rsplit_once('=').unwrap();
        cursors.push(cursor.to_owned());
    }
    for (n, (list, order)) in lists.iter().enumerate() {
        for (m, cursor) in cursors.iter().enumerate() {
            for side in ["after", "before"] {
                let target = format!("{list}?order={order}&{side}={cursor}");
                let answer = get(&fixture.app, As::Key(&fixture.key), &target).await;
                if n == m {
                    answer.expect(200);
                } else {
                    answer.refused(400, "Invalid cursor");
                }
            }
        }
        let skip = format!("{list}?order={order}&after={}&skip=1", cursors[n]);
        let answer = get(&fixture.app, As::Key(&fixture.key), &skip).await;
        answer.refused(400, "Send either a cursor or skip, not both");
        // A cursor by id is valid in both orders.
        if *order == "asc" {
            let target = format!("{list}?order=desc&after={}", cursors[n]);
            assert_eq!(fixture.page(&target).await.0, [3, 2]);
        }
    }
    // A cursor issued to a key gives a user no access to other conversations.
    let target = format!("{CONVERSATIONS}?after={}", cursors[0]);
    backend.execute(format!("DELETE FROM participants WHERE user_id = {}", fixture.alice)).await;
    let answer = get(&fixture.app, As::User(&fixture.as_alice), &target).await;
    assert_eq!(answer.expect(200), json!([]));
    let answer =
        get(&fixture.app, As::Key(&fixture.key), &format!("{CONVERSATIONS}?order=up")).await;
    assert_eq!(answer["detail"][0]["msg"], "Input should be 'asc', 'desc' or 'recent'");
    answer.invalid(&["query.order"]);
}

#[apply(on_both!)]
async fn pages_stay_correct_while_conversations_are_added_and_removed(backend: Backend) {
    let fixture = Fixture::new(&backend, 8, |_| false).await;
    let (first, next, _) = fixture.page(&format!("{CONVERSATIONS}?limit=3")).await;
    assert_eq!(first, [1, 2, 3]);
    for gone in [1, 3, 5] {
        fixture.delete(gone).await;
    }
    let (second, next, prev) = fixture.page(&next.unwrap()).await;
    assert_eq!(second, [4, 6, 7]);
    assert_eq!(fixture.page(&prev.unwrap()).await.0, [2]);
    fixture.create(false).await;
    let (third, next, _) = fixture.page(&next.unwrap()).await;
    assert_eq!((third, next), (vec![8, 9], None));

    // In order of the last message, also if the entry of the cursor is deleted.
    fixture.send_messages(&[6, 4, 2]).await;
    let (first, next, _) = fixture.page(&format!("{CONVERSATIONS}?order=recent&limit=2")).await;
    assert_eq!(first, [2, 4]);
    fixture.delete(4).await;
    fixture.create(false).await;
    let (second, next, prev) = fixture.page(&next.unwrap()).await;
    assert_eq!(second, [6, 9]);
    assert_eq!(fixture.page(&prev.unwrap()).await.0, [10, 2]);
    assert_eq!(fixture.page(&next.unwrap()).await.0, [8, 7]);
}

#[apply(on_both!)]
async fn a_new_message_moves_a_conversation_to_the_front(backend: Backend) {
    let fixture = Fixture::new(&backend, 7, |_| true).await;
    let own = format!("{CONVERSATIONS}/user/{}", fixture.alice);
    let mut order = vec![7, 6, 5, 4, 3, 2, 1];
    for list in [CONVERSATIONS, &*own] {
        let (first, next, _) = fixture.page(&format!("{list}?order=recent&limit=2")).await;
        assert_eq!(first, order[..2]);
        // One on a page that was read, and one on a later page.
        let (read, unread) = (order[1], order[4]);
        fixture.send_messages(&[read, unread]).await;
        let (second, next, prev) = fixture.page(&next.unwrap()).await;
        assert_eq!(second, order[2..4]);
        let (third, next, _) = fixture.page(&next.unwrap()).await;
        assert_eq!((&third[..], next), (&order[5..], None), "nothing is there twice");
        // The new messages are at the front of the list.
        let (newer, _, further) = fixture.page(&prev.unwrap()).await;
        assert_eq!(newer, [read, order[0]]);
        assert_eq!(fixture.page(&further.unwrap()).await.0, [unread]);
        order.retain(|id| ![read, unread].contains(id));
        order.splice(0..0, [unread, read]);
    }
}

#[apply(on_both!)]
async fn changing_memberships_does_not_shift_pages(backend: Backend) {
    let fixture = Fixture::new(&backend, 9, |id| id != 2).await;
    for (order, expected) in [
        ("asc", [vec![1, 3, 4], vec![6, 7, 8]]),
        ("desc", [vec![9, 8, 7], vec![6, 4, 3]]),
        ("recent", [vec![9, 8, 7], vec![6, 4, 3]]),
    ] {
        let target = format!("{CONVERSATIONS}?order={order}&limit=3");
        let first = get(&fixture.app, As::User(&fixture.as_alice), &target).await;
        let next = first.link("next").unwrap();
        assert_eq!(field_values(&first.expect(200), "id"), expected[0]);
        // She leaves one on a later page and one on a page already read, and joins one before.
        let change = |sql: &str, id: i64| {
            let sql = sql.replace("$1", &id.to_string()).replace("$2", &fixture.alice.to_string());
            backend.execute(sql)
        };
        let remove = "DELETE FROM participants WHERE conversation_id = $1 AND user_id = $2";
        let add = "INSERT INTO participants (conversation_id, user_id) VALUES ($1, $2)";
        for id in [expected[0][2], 5] {
            change(remove, id).await;
        }
        if order == "asc" {
            change(add, 2).await;
        }
        let second = get(&fixture.app, As::User(&fixture.as_alice), &next).await;
        assert_eq!(field_values(&second.expect(200), "id"), expected[1], "{order}");
        for id in [expected[0][2], 5] {
            change(add, id).await;
        }
        if order == "asc" {
            change(remove, 2).await;
        }
    }
}

#[apply(on_both!)]
async fn links_of_conversations_keep_the_number_of_messages(backend: Backend) {
    let fixture = Fixture::new(&backend, 3, |_| false).await;
    fixture.send_messages(&[1, 1, 2, 2, 3, 3]).await;
    for order in ["asc", "recent"] {
        let mut further = Some(format!("{CONVERSATIONS}?message_limit=1&limit=1&order={order}"));
        let mut pages = 0;
        while let Some(target) = further {
            let answer = get(&fixture.app, As::Key(&fixture.key), &target).await;
            further = answer.link("next");
            let entry = &answer.expect(200)[0];
            let shown = entry["messages"].as_array().unwrap().len();
            assert_eq!((shown, &entry["messages_truncated"]), (1, &json!(true)), "{target}");
            pages += 1;
        }
        assert_eq!(pages, 3);
    }
}
