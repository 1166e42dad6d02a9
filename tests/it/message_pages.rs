//! Pages of conversations and messages: cursors, orders, links, and readers that follow concurrent
//! writers.

mod conversations;

use crate::support::{Answer, Backend, TestApp};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

const CONVERSATIONS: &str = "/api/v1/conversations";

fn messages(id: i64) -> String {
    format!("{CONVERSATIONS}/{id}/messages")
}

fn user_message(content: impl Into<Value>) -> Value {
    json!({"role": "user", "content": content.into()})
}

/// The values of one field in each entry of a list.
fn field_values(list: &Value, field: &str) -> Vec<i64> {
    list.as_array().unwrap().iter().map(|entry| entry[field].as_i64().unwrap()).collect()
}

/// The credential of a request.
#[derive(Clone, Copy)]
enum As<'a> {
    Key(&'a str),
    User(&'a str),
}

async fn get(app: &TestApp, credential: As<'_>, target: &str) -> Answer {
    let call = app.get(target);
    match credential {
        As::Key(key) => call.key(key).send().await,
        As::User(token) => call.session(token).send().await,
    }
}

/// The values of `field` in the entries of each page, from `target` along the `rel` links.
async fn read_pages(
    app: &TestApp,
    credential: As<'_>,
    target: &str,
    rel: &str,
    field: &str,
) -> Vec<Vec<i64>> {
    let (mut pages, mut next_target) = (vec![], Some(target.to_owned()));
    while let Some(target) = next_target {
        let answer = get(app, credential, &target).await;
        next_target = answer.link(rel);
        pages.push(field_values(&answer.expect(200), field));
        assert!(pages.len() < 1000, "more than 1000 pages");
    }
    pages
}

/// A server with an admin key and a conversation of `n` messages.
async fn with_messages(backend: &Backend, n: usize) -> (TestApp, String, i64) {
    let app = TestApp::new(backend).await;
    let key = app.admin().await;
    let id = app.conversation(&key, &[]).await;
    append(&app, &key, id, n).await;
    (app, key, id)
}

/// Appends `n` messages as one batch.
async fn append(app: &TestApp, key: &str, id: i64, n: usize) {
    if n > 0 {
        let body = json!({"messages": vec![user_message("x"); n]});
        app.post(&format!("{}/batch", messages(id)), body).key(key).send().await.expect(201);
    }
}

#[apply(on_both!)]
async fn messages_are_paged_both_ways_and_in_both_orders(backend: Backend) {
    let (app, key, id) = with_messages(&backend, 7).await;
    let credential = As::Key(&key);
    for limit in [1, 2, 3, 6, 7, 8] {
        for (order, newest_first) in [("", false), ("&order=asc", false), ("&order=desc", true)] {
            let mut expected: Vec<i64> = (1..=7).collect();
            if newest_first {
                expected.reverse();
            }
            let start = format!("{}?limit={limit}{order}", messages(id));
            let pages = read_pages(&app, credential, &start, "next", "seq").await;
            assert_eq!(pages.concat(), expected, "{start}");
            assert_eq!(pages.len(), 7_usize.div_ceil(limit));
            // Backwards from the last entry, which is not repeated.
            let last = format!("{}?limit=1&skip=6{order}", messages(id));
            let prev = get(&app, credential, &last).await.link("prev").unwrap();
            let back = prev.replace("limit=1", &format!("limit={limit}"));
            let mut pages = read_pages(&app, credential, &back, "prev", "seq").await;
            pages.reverse();
            assert_eq!(pages.concat(), expected[..6], "{back}");
        }
    }
    // `before` and `after` do not depend on the order.
    let cursor = cursor_after(&app, &key, id, 4).await;
    for (query, expected) in [
        (format!("after={cursor}"), vec![5, 6, 7]),
        (format!("after={cursor}&limit=2"), vec![5, 6]),
        (format!("after={cursor}&limit=2&order=desc"), vec![6, 5]),
        (format!("before={cursor}"), vec![1, 2, 3]),
        (format!("before={cursor}&limit=2"), vec![2, 3]),
        (format!("before={cursor}&limit=2&order=desc"), vec![3, 2]),
    ] {
        let answer = get(&app, credential, &format!("{}?{query}", messages(id))).await;
        assert_eq!(field_values(&answer.expect(200), "seq"), expected, "{query}");
    }
}

/// The cursor of message `seq`.
async fn cursor_after(app: &TestApp, key: &str, id: i64, seq: i64) -> String {
    let target = format!("{}?limit=1&skip={}", messages(id), seq - 1);
    let next = get(app, As::Key(key), &target).await.link("next").unwrap();
    next.split_once("after=").expect("a cursor").1.to_owned()
}

#[apply(on_both!)]
async fn a_large_skip_returns_the_right_page_of_messages(backend: Backend) {
    let (app, key, id) = with_messages(&backend, 1000).await;
    append(&app, &key, id, 500).await;
    let credential = As::Key(&key);
    for (query, seqs, next, prev) in [
        ("skip=1497&limit=2", vec![1498, 1499], true, true),
        ("skip=1498&limit=2", vec![1499, 1500], false, true),
        ("skip=1499", vec![1500], false, true),
        ("skip=1500", vec![], false, false),
        ("skip=9223372036854775807&limit=1000", vec![], false, false),
        ("skip=1497&limit=2&order=desc", vec![3, 2], true, true),
        ("skip=1499&limit=2&order=desc", vec![1], false, true),
        ("skip=9223372036854775807&order=desc", vec![], false, false),
        ("skip=0&limit=1&order=desc", vec![1500], true, false),
    ] {
        let answer = get(&app, credential, &format!("{}?{query}", messages(id))).await;
        let links = (answer.link("next").is_some(), answer.link("prev").is_some());
        assert_eq!(
            (field_values(&answer.expect(200), "seq"), links),
            (seqs, (next, prev)),
            "{query}"
        );
    }
}

#[apply(on_both!)]
async fn a_cursor_of_messages_belongs_to_one_conversation(backend: Backend) {
    let (app, key, id) = with_messages(&backend, 3).await;
    let other = app.conversation(&key, &[]).await;
    append(&app, &key, other, 3).await;
    let cursor = cursor_after(&app, &key, id, 2).await;
    for side in ["after", "before"] {
        for foreign in
            [messages(other), CONVERSATIONS.to_owned(), format!("{CONVERSATIONS}/user/1")]
        {
            let answer = get(&app, As::Key(&key), &format!("{foreign}?{side}={cursor}")).await;
            answer.refused(400, "Invalid cursor");
        }
        for mangled in ["", "x", &cursor[1..]] {
            let target = format!("{}?{side}={mangled}", messages(id));
            get(&app, As::Key(&key), &target).await.refused(400, "Invalid cursor");
        }
        let target = format!("{}?{side}={cursor}&skip=0", messages(id));
        let answer = get(&app, As::Key(&key), &target).await;
        answer.refused(400, "Send either a cursor or skip, not both");
    }
    let target = format!("{}?order=recent", messages(id));
    get(&app, As::Key(&key), &target).await.invalid(&["query.order"]);
    // For a deleted conversation, the 404 comes before the check of the cursor.
    app.delete(&format!("{CONVERSATIONS}/{id}")).key(&key).send().await.expect(204);
    let target = format!("{}?after={cursor}", messages(id));
    get(&app, As::Key(&key), &target).await.refused(404, "Conversation not found");
}

#[apply(on_both!)]
async fn an_empty_conversation_has_one_empty_page(backend: Backend) {
    let (app, key, id) = with_messages(&backend, 0).await;
    for query in ["", "?order=desc", "?limit=1&skip=0", "?skip=7"] {
        let answer = get(&app, As::Key(&key), &format!("{}{query}", messages(id))).await;
        assert_eq!((answer.header("link"), &*answer.text), (None, "[]"));
    }
}

#[apply(on_both!)]
async fn a_thousand_messages_are_listed_newest_first_too(backend: Backend) {
    let (app, key, id) = with_messages(&backend, 1000).await;
    append(&app, &key, id, 30).await;
    for (query, expected) in [
        ("limit=1000&order=desc", (31..=1030).rev().collect::<Vec<i64>>()),
        ("limit=1000", (1..=1000).collect()),
        ("limit=51&order=desc&skip=1", (979..=1029).rev().collect()),
    ] {
        let answer = get(&app, As::Key(&key), &format!("{}?{query}", messages(id))).await;
        assert_eq!(field_values(&answer.expect(200), "seq"), expected, "{query}");
    }
    let start = format!("{}?limit=999&order=desc", messages(id));
    let pages = read_pages(&app, As::Key(&key), &start, "next", "seq").await;
    assert_eq!(pages.concat(), (1..=1030).rev().collect::<Vec<i64>>());
}

#[apply(on_both!)]
async fn edits_and_deletions_do_not_shift_pages(backend: Backend) {
    let (app, key, id) = with_messages(&backend, 6).await;
    let first = get(&app, As::Key(&key), &format!("{}?limit=2", messages(id))).await;
    let next = first.link("next").unwrap();
    for entry in first.body.as_array().unwrap() {
        let path = format!("{}/{}", messages(id), entry["id"]);
        app.patch(&path, json!({"content": "edited"})).key(&key).send().await.expect(200);
        app.delete(&path).key(&key).send().await.expect(204);
    }
    let second = get(&app, As::Key(&key), &next).await;
    let back = second.link("prev").unwrap();
    assert_eq!(field_values(&second.expect(200), "seq"), [3, 4]);
    assert_eq!(field_values(&get(&app, As::Key(&key), &back).await.expect(200), "seq"), [1, 2]);
}

/// The number of messages that 8 writers append, half of them in batches.
const MESSAGES_WRITTEN: i64 = 4 * 30 + 4 * 6 * 7;

/// Starts the writers: half of them append single messages, half batches.
fn write(app: &Arc<TestApp>, key: &str, id: i64) -> tokio::task::JoinSet<Vec<i64>> {
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let (app, key) = (app.clone(), key.to_owned());
        writers.spawn(async move {
            let mut accepted = vec![];
            for n in 0..if writer < 4 { 30 } else { 6 } {
                if writer < 4 {
                    let call =
                        app.post(&messages(id), user_message(format!("{writer}:{n}"))).key(&key);
                    accepted.push(call.send().await.expect(201)["id"].as_i64().unwrap());
                } else {
                    let body = json!({"messages": vec![user_message(format!("{writer}:{n}")); 7]});
                    let call = app.post(&format!("{}/batch", messages(id)), body).key(&key);
                    accepted.extend(field_values(&call.send().await.expect(201), "id"));
                }
            }
            accepted
        });
    }
    writers
}

#[apply(on_both!)]
async fn a_reader_that_follows_8_writers_misses_and_repeats_no_message(backend: Backend) {
    let (app, key, _) = with_messages(&backend, 0).await;
    let app = Arc::new(app);
    for limit in [3, 50] {
        let id = app.conversation(&key, &[]).await;
        let writers = write(&app, &key, id);
        let reading = async {
            let (mut seqs, mut ids, mut of_page) = (vec![], vec![], 0);
            let mut target = format!("{}?limit={limit}", messages(id));
            let start = Instant::now();
            while i64::try_from(seqs.len()).unwrap() < MESSAGES_WRITTEN {
                assert!(start.elapsed() < Duration::from_mins(1), "read {} only", seqs.len());
                let answer = get(&app, As::Key(&key), &target).await;
                let next = answer.link("next");
                let page = answer.expect(200);
                // The last page is requested again; its known entries are unchanged.
                let known = seqs.len() - of_page;
                let (page_seqs, page_ids) = (field_values(&page, "seq"), field_values(&page, "id"));
                assert_eq!(seqs[known..], page_seqs[..of_page]);
                seqs.extend_from_slice(&page_seqs[of_page..]);
                ids.extend_from_slice(&page_ids[of_page..]);
                of_page = page_seqs.len();
                if let Some(next) = next {
                    (target, of_page) = (next, 0);
                }
            }
            (seqs, ids)
        };
        let ((seqs, ids), written) = tokio::join!(reading, writers.join_all());
        assert_eq!(
            seqs,
            (1..=MESSAGES_WRITTEN).collect::<Vec<_>>(),
            "in order, no message missed or repeated"
        );
        let (mut accepted, mut read) = (written.concat(), ids.clone());
        accepted.sort_unstable();
        read.sort_unstable();
        assert_eq!(read, accepted);
        let stored: Vec<(i64, i64)> =
            app.rows("SELECT id, conversation_id FROM messages ORDER BY seq").await;
        let stored = stored.into_iter().filter(|(_, conversation)| *conversation == id);
        assert_eq!(ids, stored.map(|(id, _)| id).collect::<Vec<_>>());
    }
}

#[apply(on_both!)]
async fn a_reader_that_pages_back_while_others_write_misses_and_repeats_no_message(
    backend: Backend,
) {
    let (app, key, id) = with_messages(&backend, 200).await;
    let app = Arc::new(app);
    let writers = write(&app, &key, id);
    let start = format!("{}?limit=7&order=desc", messages(id));
    let mut reads = vec![];
    for _ in 0..3 {
        reads.push(read_pages(&app, As::Key(&key), &start, "next", "seq").await.concat());
    }
    writers.join_all().await;
    reads.push(read_pages(&app, As::Key(&key), &start, "next", "seq").await.concat());
    for read in &reads {
        let expected: Vec<i64> = (1..=read[0]).rev().collect();
        assert_eq!(read, &expected);
    }
    assert_eq!(reads[3].len(), usize::try_from(200 + MESSAGES_WRITTEN).unwrap());
}
