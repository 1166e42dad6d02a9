//! Search: matching, visibility of results, pages, and the index.

use crate::support::{Backend, Call, TestApp};
use octopus::features::conversations::retention::Retention;
use octopus::features::conversations::search;
use rand::SeedableRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};
use sqlx::migrate::Migrator;
use sqlx::{Connection, SqliteConnection};
use sqlx_postgres::PgConnection;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const CONVERSATIONS: &str = "/api/v1/conversations";
const SEARCH: &str = "/api/v1/conversations/search";
/// Newest messages scanned before the index is used, and those scanned where no index helps.
const READ: [i64; 2] = [1000, 10_000];
/// Approximate number of messages missing from the index of SQLite.
const INDEX_BACKLOG: &str =
    "SELECT (SELECT MAX(id) FROM messages) - up_to FROM message_search_progress";
const TIME: &str = "'2026-01-01T00:00:00.123456+00:00'";

fn escaped(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

async fn post_message(app: &TestApp, key: &str, conversation: i64, content: &str) -> i64 {
    let body = json!({"role": "assistant", "content": content});
    let call = app.post(&format!("{CONVERSATIONS}/{conversation}/messages"), body).key(key);
    call.send().await.expect(201)["id"].as_i64().unwrap()
}

/// The results, newest first.
async fn hits(call: Call) -> Vec<Value> {
    let Value::Array(hits) = call.send().await.expect(200) else { panic!("no list") };
    let id = |hit: &Value| hit["message"]["id"].as_i64().unwrap();
    assert!(hits.is_sorted_by(|a, b| id(a) > id(b)), "{hits:?}");
    hits
}

async fn ids(call: Call) -> Vec<i64> {
    hits(call).await.iter().map(|hit| hit["message"]["id"].as_i64().unwrap()).collect()
}

async fn found(app: &TestApp, key: &str, q: &str) -> Vec<i64> {
    ids(app.get(&format!("{SEARCH}?limit=100&q={}", escaped(q))).key(key)).await
}

async fn found_in(app: &TestApp, key: &str, conversation: i64, q: &str) -> Vec<i64> {
    let path = format!("{CONVERSATIONS}/{conversation}/search?limit=100&q={}", escaped(q));
    ids(app.get(&path).key(key)).await
}

/// Appends `n` empty messages and updates the index.
async fn append_empty_and_index(app: &TestApp, backend: &Backend, conversation: i64, n: i64) {
    append_empty(backend, conversation, n).await;
    index(app).await;
}

async fn append_empty(backend: &Backend, conversation: i64, n: i64) {
    let last = format!("SELECT last_seq FROM conversations WHERE id = {conversation}");
    backend
        .execute(format!(
            "INSERT INTO messages (conversation_id, seq, role, content, created_at)
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {n})
             SELECT {conversation}, ({last}) + i, 'assistant', '', {TIME} FROM n WHERE i <= {n};
             UPDATE conversations SET last_seq = last_seq + {n} WHERE id = {conversation}"
        ))
        .await;
}

/// Updates the index with all messages immediately, without waiting for the job.
async fn index(app: &TestApp) {
    search::catch_up(&app.state.db, &CancellationToken::new()).await.unwrap();
}

#[apply(on_both!)]
async fn a_hit_has_the_shape_of_the_contract(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let alice = app.user("alice").await;
    let conversation = app.conversation(&key, &[alice]).await;
    let body = json!({"role": "user", "content": "On <our> trip & back", "user_id": alice});
    let path = format!("{CONVERSATIONS}/{conversation}/messages");
    let message = app.post(&path, body).key(&key).send().await.expect(201);
    let expected = json!([{
        "conversation_id": conversation, "title": "a talk",
        "message": {
            "id": message["id"], "seq": 1, "role": "user", "user_id": alice,
            "user": {"id": alice, "username": "alice", "email": "alice@example.com"},
            "created_at": message["created_at"], "edited_at": null,
        },
        "snippet": "On &lt;our&gt; <mark>trip</mark> &amp; back",
    }]);
    for path in
        [format!("{SEARCH}?q=TRIP"), format!("{CONVERSATIONS}/{conversation}/search?q=TRIP")]
    {
        assert_eq!(app.get(&path).key(&key).send().await.expect(200), expected);
    }
    app.get(&format!("{CONVERSATIONS}/99/search?q=trip"))
        .key(&key)
        .send()
        .await
        .refused(404, "Conversation not found");
}

#[apply(on_both!)]
async fn words_are_found_in_any_case_and_place(backend: Backend) {
    const CONTENTS: [&str; 11] = [
        "The quick brown Fox",
        "a FOX is quick, and brown",
        "明日は東京へ行きます。",
        "東京",
        "日本語の文章です。Rustで書く",
        "École Straße ΟΔΥΣΣΕΥΣ Жук",
        "say \"hello there\" 100% of\tit_all",
        "line one\nline two \\ it's",
        "ok",
        "عربي مرحبا e\u{301} 👩\u{200d}👩\u{200d}👧",
        "sensor 3 \u{b5}m, 47 \u{212a}\u{2126}",
    ];
    const QUERIES: [(&str, &[usize]); 43] = [
        ("fox", &[0, 1]),
        ("QUICK BROWN", &[0, 1]),
        ("\"quick brown\"", &[0]),
        ("\"brown fox\" the", &[0]),
        ("fox cat", &[]),
        ("rown", &[0, 1]),
        ("東京", &[2, 3]),
        ("京", &[2, 3]),
        ("京へ", &[2]),
        ("東京へ行", &[2]),
        ("東京へ 行き", &[2]),
        ("東京 明日", &[2]),
        ("京東", &[]),
        ("日本語", &[4]),
        ("日本", &[4]),
        ("す。", &[2, 4]),
        ("。", &[2, 4]),
        ("rust 文章", &[4]),
        ("文 章 語 日", &[4]),
        ("école", &[5]),
        ("É", &[5]),
        ("STRAßE", &[5]),
        ("strasse", &[]),
        ("οδυσσευς", &[5]),
        ("ΣΕΥΣ", &[5]),
        ("жу", &[5]),
        ("ЖУК", &[5]),
        ("\"hello there\"", &[6]),
        ("\"hello", &[6]),
        ("100%", &[6]),
        ("0%", &[6]),
        ("%", &[6]),
        ("it_a", &[6]),
        ("i__a", &[]),
        ("\\", &[7]),
        ("it's", &[7]),
        ("two \\", &[7]),
        ("OK", &[8]),
        ("مرحبا", &[9]),
        ("\u{301}", &[9]),
        ("sensor \u{3bc}m", &[10]),
        ("SENSOR \u{39c}M", &[10]),
        ("47 sensor k\u{3c9}", &[10]),
    ];
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let (conversation, other) =
        (app.conversation(&key, &[]).await, app.conversation(&key, &[]).await);
    let mut posted = vec![];
    for content in CONTENTS {
        posted.push(post_message(&app, &key, conversation, content).await);
    }
    for depth in [0, READ[0], READ[1]] {
        append_empty_and_index(&app, &backend, conversation, depth).await;
        for (q, expected) in QUERIES {
            // The indexes hold no single characters.
            if depth == READ[1] && q.split(' ').all(|word| word.chars().count() == 1) {
                continue;
            }
            let expected: Vec<i64> = expected.iter().rev().map(|index| posted[*index]).collect();
            assert_eq!(found(&app, &key, q).await, expected, "{q} {depth}");
            assert_eq!(found_in(&app, &key, conversation, q).await, expected, "{q} {depth}");
            assert!(found_in(&app, &key, other, q).await.is_empty(), "{q} {depth}");
        }
    }
}

#[apply(on_both!)]
async fn a_query_that_breaks_a_rule_is_refused(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let conversation = app.conversation(&key, &[]).await;
    let longest = "語".repeat(200);
    for path in [SEARCH.to_owned(), format!("{CONVERSATIONS}/{conversation}/search")] {
        for (query, place) in [
            (String::new(), "query.q"),
            ("?q=".into(), "query.q"),
            ("?q=%20%E3%80%80%0A".into(), "query.q"),
            ("?q=a%00b".into(), "query.q"),
            (format!("?q={}", escaped(&format!("{longest}語"))), "query.q"),
            ("?q=a&limit=0".into(), "query.limit"),
            ("?q=a&limit=101".into(), "query.limit"),
            ("?q=a&skip=-1".into(), "query.skip"),
            ("?q=a&skip=10001".into(), "query.skip"),
        ] {
            app.get(&format!("{path}{query}")).key(&key).send().await.invalid(&[place]);
        }
        for q in [format!("  {longest} "), "a ".repeat(100), "\"".repeat(200)] {
            let call = app.get(&format!("{path}?q={}", escaped(&q))).key(&key);
            assert!(hits(call).await.is_empty());
        }
    }
}

/// Whether `content` matches `q`: it contains each word, and each quoted phrase as a whole.
fn has(content: &str, q: &str) -> bool {
    let (content, mut rest, mut any) = (content.to_lowercase(), q.trim(), false);
    while !rest.is_empty() {
        let quoted = rest.strip_prefix('"').and_then(|inner| inner.split_once('"'));
        let (word, after) = quoted.unwrap_or(rest.split_once(' ').unwrap_or((rest, "")));
        if !word.trim().is_empty() {
            any = true;
            if !content.contains(&word.trim().to_lowercase()) {
                return false;
            }
        }
        rest = after.trim();
    }
    any || content.contains(&q.trim().to_lowercase())
}

#[apply(on_both!)]
async fn no_query_is_a_syntax_error(backend: Backend) {
    const PARTS: [&str; 48] = [
        "AND",
        "OR",
        "NOT",
        "NEAR",
        "NEAR(",
        "NEAR(a b, 3)",
        "content:",
        "{content}",
        "^",
        "rowid",
        "a",
        "b",
        "ab",
        "abc",
        "ABC",
        "x*",
        "語",
        "日本",
        "日本語",
        "か",
        "😀",
        "😀😀😀",
        "مرحبا",
        "\u{301}",
        "\u{301}\u{302}\u{303}",
        "\u{200f}",
        "\u{200d}",
        "\u{feff}",
        "'",
        "''",
        "\"",
        "\"\"",
        "\"",
        "\"a b\"",
        "%",
        "_",
        "\\",
        "\\\\'",
        "\\%",
        " ",
        " ",
        " ",
        "&",
        "|",
        "!",
        ":*",
        "<->",
        "é",
    ];
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let conversation = app.conversation(&key, &[]).await;
    let mut rng = rand::rngs::StdRng::seed_from_u64(7);
    let mut text =
        |parts: usize| -> String { (0..parts).map(|_| *PARTS.choose(&mut rng).unwrap()).collect() };
    let mut posted = vec![];
    for n in 0..60 {
        let content = if n == 0 { (' '..='~').collect() } else { text(12) };
        if !content.is_empty() {
            posted.push((post_message(&app, &key, conversation, &content).await, content));
        }
    }
    append_empty_and_index(&app, &backend, conversation, READ[0]).await;
    let mut queries: Vec<String> = ('!'..='~').map(String::from).collect();
    queries.extend(('!'..='~').flat_map(|c| [format!("ab{c}"), format!("{c}{c}{c}")]));
    queries.extend(PARTS.map(String::from));
    queries.extend((0..300).map(|n| text(1 + n % 5)));
    for q in queries.iter().filter(|q| !q.trim().is_empty()) {
        let expected: Vec<i64> =
            posted.iter().rev().filter(|(_, posted)| has(posted, q)).map(|(id, _)| *id).collect();
        assert_eq!(found(&app, &key, q).await, expected, "{q:?}");
    }
}

#[apply(on_both!)]
async fn users_find_messages_of_their_own_conversations_only(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    let ours = app.conversation(&key, &[alice, bob]).await;
    let theirs = app.conversation(&key, &[bob]).await;
    let body = json!({"role": "user", "content": "our secret", "user_id": bob});
    let path = format!("{CONVERSATIONS}/{ours}/messages");
    let posted = app.post(&path, body).key(&key).send().await.expect(201);
    let (ours_id, theirs_id) =
        (posted["id"].as_i64().unwrap(), post_message(&app, &key, theirs, "their secret").await);
    let (alice_session, bob_session) = (app.session_of(alice).await, app.session_of(bob).await);
    for (depth, words) in [
        (0, &["secret", "cr", "e"][..]),
        (READ[0], &["secret", "cr", "e"]),
        (READ[1], &["secret", "cr"]),
    ] {
        append_empty_and_index(&app, &backend, ours, depth).await;
        append_empty_and_index(&app, &backend, theirs, depth).await;
        for q in words {
            let path = format!("{SEARCH}?q={q}");
            let call = app.get(&path).session(&alice_session);
            let hits = hits(call).await;
            assert_eq!(hits.len(), 1, "{q} {depth}");
            assert_eq!(hits[0]["message"]["id"], ours_id);
            // She does not see the emails of other users.
            assert_eq!(hits[0]["message"]["user"], json!({"id": bob, "username": "bob"}));
            assert_eq!(ids(app.get(&path).session(&bob_session)).await, [theirs_id, ours_id]);
            let path = format!("{CONVERSATIONS}/{ours}/search?q={q}");
            assert_eq!(ids(app.get(&path).session(&alice_session)).await, [ours_id]);
            for elsewhere in [theirs, 99] {
                let path = format!("{CONVERSATIONS}/{elsewhere}/search?q={q}");
                let answer = app.get(&path).session(&alice_session).send().await;
                answer.refused(404, "Conversation not found");
            }
        }
    }
    let path = format!("{CONVERSATIONS}/{ours}/participants/{alice}");
    app.delete(&path).session(&alice_session).send().await.expect(204);
    assert!(ids(app.get(&format!("{SEARCH}?q=secret")).session(&alice_session)).await.is_empty());
    let answer =
        app.get(&format!("{CONVERSATIONS}/{ours}/search?q=secret")).session(&alice_session).send();
    answer.await.refused(404, "Conversation not found");
    app.get(&format!("{SEARCH}?q=secret"))
        .send()
        .await
        .refused(401, "API key required: send it in the header field Octopus-API-Key");
}

#[apply(on_both!)]
async fn a_page_of_results_links_to_the_next_page(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let conversation = app.conversation(&key, &[]).await;
    for n in 0..5 {
        post_message(&app, &key, conversation, &format!("needle {n}")).await;
    }
    let (mut path, mut snippets) = (format!("{SEARCH}?q=needle&limit=2"), vec![]);
    loop {
        let answer = app.get(&path).key(&key).send().await;
        snippets.extend(answer.body.as_array().unwrap().iter().map(|hit| hit["snippet"].clone()));
        let next = answer.link("next");
        let first = !path.contains("skip");
        assert_eq!(answer.link("prev").is_none(), first);
        let Some(next) = next else { break };
        path = next;
    }
    let expected: Vec<String> = (0..5).rev().map(|n| format!("<mark>needle</mark> {n}")).collect();
    assert_eq!(json!(snippets), json!(expected));
}

#[apply(on_both!)]
async fn a_deleted_message_does_not_hide_older_results(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let ada = app.user("ada").await;
    let conversation = app.conversation(&key, &[ada]).await;
    let oldest = post_message(&app, &key, conversation, "a needle").await;
    for _ in 0..2 {
        let bodies: Vec<Value> =
            (0..600).map(|_| json!({"role": "system", "content": "hay"})).collect();
        let batch = json!({ "messages": bodies });
        let call =
            app.post(&format!("{CONVERSATIONS}/{conversation}/messages/batch"), batch).key(&key);
        call.send().await.expect(201);
    }
    let newest = post_message(&app, &key, conversation, "a needle").await;
    let call = app.delete(&format!("{CONVERSATIONS}/{conversation}/messages/{newest}")).key(&key);
    call.send().await.expect(204);
    let session = app.session_of(ada).await;
    let by_session = || app.get(&format!("{SEARCH}?q=needle")).session(&session);
    assert_eq!(ids(by_session()).await, [oldest]);
    assert_eq!(found(&app, &key, "needle").await, [oldest]);
    assert_eq!(found_in(&app, &key, conversation, "needle").await, [oldest]);
}

#[apply(on_both!)]
async fn consecutive_pages_neither_repeat_nor_skip_results(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let conversation = app.conversation(&key, &[]).await;
    let mut posted = vec![];
    for n in 0..40 {
        posted.insert(0, post_message(&app, &key, conversation, &format!("needle 針箱 {n}")).await);
        if n == 20 {
            append_empty_and_index(&app, &backend, conversation, READ[0]).await;
        }
    }
    for q in ["needle", "針箱", "need dle", "箱"] {
        let mut paged = vec![];
        for skip in (0..45).step_by(7) {
            let path = format!("{SEARCH}?limit=7&skip={skip}&q={}", escaped(q));
            paged.extend(ids(app.get(&path).key(&key)).await);
        }
        assert_eq!(paged, posted, "{q}");
        let path = format!("{SEARCH}?q={}", escaped(q));
        assert_eq!(ids(app.get(&path).key(&key)).await, posted[..20], "{q}");
    }
}

#[apply(on_both!)]
async fn edited_and_deleted_text_is_no_longer_found(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let alice = app.user("alice").await;
    let (conversation, other) =
        (app.conversation(&key, &[alice]).await, app.conversation(&key, &[]).await);
    let edited = post_message(&app, &key, conversation, "first draft 下書き").await;
    let deleted = post_message(&app, &key, conversation, "second draft 下書き").await;
    let elsewhere = post_message(&app, &key, other, "third draft 下書き").await;
    let body = json!({"role": "user", "content": "fourth draft 下書き", "user_id": alice});
    let path = format!("{CONVERSATIONS}/{conversation}/messages");
    let of_alice = app.post(&path, body).key(&key).send().await.expect(201)["id"].as_i64().unwrap();
    append_empty_and_index(&app, &backend, conversation, READ[0]).await;
    append_empty_and_index(&app, &backend, other, READ[0]).await;
    let drafts = ["draft", "下書き", "下書", "\"h draft\""];
    assert_eq!(found(&app, &key, "draft").await, [of_alice, elsewhere, deleted, edited]);

    backend
        .execute(format!(
            "UPDATE messages SET content = 'final 清書', version = version + 1, edited_at = {TIME}
             WHERE id = {edited};
             UPDATE messages SET content = '', version = version + 1, deleted_at = {TIME}
             WHERE id = {deleted}"
        ))
        .await;
    app.delete(&format!("/api/v1/users/{alice}")).key(&key).send().await.expect(204);
    assert_eq!(found(&app, &key, "draft").await, [of_alice, elsewhere]);
    assert_eq!(found(&app, &key, "下書").await, [of_alice, elsewhere]);
    for q in ["final", "清書", "清"] {
        assert_eq!(found(&app, &key, q).await, [edited], "{q}");
    }
    let path = format!("{SEARCH}?q=fourth");
    assert_eq!(hits(app.get(&path).key(&key)).await[0]["message"]["user"], Value::Null);

    for id in [conversation, other] {
        app.delete(&format!("{CONVERSATIONS}/{id}")).key(&key).send().await.expect(204);
    }
    for q in drafts {
        assert!(found(&app, &key, q).await.is_empty(), "{q}");
    }
    if backend.is_sqlite() {
        // The rows of long conversations are removed later; the server may already be removing
        // them.
        let (mut retention, never) = (Retention::new(&app.state), CancellationToken::new());
        for _ in 0..1000 {
            retention.remove_old(&never).await.unwrap();
            if app.number("SELECT COUNT(*) FROM conversations").await == 0 {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(app.number("SELECT COUNT(*) FROM message_terms").await, 0);
        // Compares the index with the messages.
        let check =
            "INSERT INTO message_search (message_search, rank) VALUES ('integrity-check', 1)";
        backend.execute(check).await;
    }
}

#[apply(on_both!)]
async fn the_longest_messages_are_found(backend: Backend) {
    const LONGEST: u64 = 100_000;
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let conversation = app.conversation(&key, &[]).await;
    let character = |n: u64| char::from_u32(u32::try_from(n).unwrap()).unwrap();
    let cjk = |n: u64| character(0x4E00 + n * 7919 % 20_000);
    // Four bytes each, and almost no repeated pairs.
    let planes = |n: u64| character(0x1_0000 + n * n * n % 90_001);
    let emoji = |n: u64| character(0x1_F300 + n * n % 1_000);
    let ascii = |n: u64| character(33 + n * n * 31 % 94);
    let mut posted = vec![];
    for text in [&cjk as &dyn Fn(u64) -> char, &planes, &emoji, &ascii] {
        let content: String = (0..LONGEST).map(text).collect();
        posted.push((post_message(&app, &key, conversation, &content).await, content));
    }
    append_empty_and_index(&app, &backend, conversation, READ[0]).await;
    for (id, content) in &posted {
        for (at, length) in [(0, 3), (50_000, 2), (77_777, 10), (99_900, 100), (99_998, 2)] {
            let word: String = content.chars().skip(at).take(length).collect();
            let word = word.replace('"', " ");
            let ids = found(&app, &key, &word).await;
            assert!(ids.contains(id), "{word} at {at}");
        }
    }
}

#[apply(on_sqlite!)]
async fn deleted_words_are_erased_from_the_file(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let conversation = app.conversation(&key, &[]).await;
    let secrets: Vec<String> = (0..40).map(|n| format!("qzxjv{n}wkqzy 秘密箱 {n}")).collect();
    let mut posted = vec![];
    for secret in &secrets {
        for n in 0..5 {
            post_message(&app, &key, conversation, &format!("something else {n}")).await;
        }
        posted.push(post_message(&app, &key, conversation, secret).await);
    }
    index(&app).await;
    let file = backend.folder().join("octopus.db");
    // Words are stored in messages, and as trigrams in the index, where shared prefixes are stored
    // once.
    let traces = ["qzxjv", "wkqzy", "qzx", "xjv", "秘密", "密箱"];
    let holds = |trace: &str| {
        let bytes = fs::read(&file).unwrap();
        bytes.windows(trace.len()).any(|part| part == trace.as_bytes())
    };
    let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
    backend.execute(checkpoint).await;
    for trace in traces {
        assert!(holds(trace) || trace.len() == 3, "{trace}");
    }
    for id in posted {
        let sql = "UPDATE messages SET content = '', version = version + 1, deleted_at =";
        backend.execute(format!("PRAGMA secure_delete = ON; {sql} {TIME} WHERE id = {id}")).await;
    }
    backend.execute(checkpoint).await;
    for trace in traces {
        assert!(!holds(trace), "{trace}");
    }
    assert!(holds("something else"));
    app.delete(&format!("{CONVERSATIONS}/{conversation}")).key(&key).send().await.expect(204);
    backend.execute(checkpoint).await;
    assert!(!holds("something else"));
    let terms = "SELECT COUNT(*) FROM message_terms";
    assert_eq!(app.number(terms).await, 0);
}

#[apply(on_sqlite!)]
async fn an_edit_to_repetitive_text_leaves_nothing_of_the_old_text(backend: Backend) {
    const CHECK: &str =
        "INSERT INTO message_search (message_search, rank) VALUES ('integrity-check', 1)";
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    // From 128 positions on, the position count and its delete flag take two bytes together.
    for times in [1, 63, 64, 127, 128, 150, 191, 192, 300, 5000] {
        let conversation = app.conversation(&key, &[]).await;
        let posted = post_message(&app, &key, conversation, "the secret of old").await;
        index(&app).await;
        let path = format!("{CONVERSATIONS}/{conversation}/messages/{posted}");
        let edit = app.patch(&path, json!({"content": "the secret ".repeat(times)})).key(&key);
        edit.send().await.expect(200);
        assert_eq!(found(&app, &key, "the secret").await, [posted], "{times} times");
        app.delete(&format!("{CONVERSATIONS}/{conversation}")).key(&key).send().await.expect(204);
        let left = app.number("SELECT COUNT(*) FROM message_terms").await;
        assert_eq!(left, 0, "{times} times");
        backend.execute(CHECK).await;
    }
}

#[apply(on_sqlite!)]
async fn messages_not_yet_indexed_are_found(backend: Backend) {
    const HOLD: &str = "CREATE TRIGGER held BEFORE UPDATE ON message_search_progress \
                        BEGIN SELECT RAISE(ABORT, 'held'); END";
    const CHECK: &str =
        "INSERT INTO message_search (message_search, rank) VALUES ('integrity-check', 1)";
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let alice = app.user("alice").await;
    let session = app.session_of(alice).await;
    let conversation = app.conversation(&key, &[alice]).await;
    let other = app.conversation(&key, &[]).await;
    let mut posted = vec![];
    for half in ["indexed", "waiting"] {
        for n in 0..10 {
            posted.insert(
                0,
                post_message(&app, &key, conversation, &format!("needle 針箱 {half} {n}")).await,
            );
            post_message(&app, &key, other, "a needle elsewhere 針箱").await;
        }
        // More than are scanned before the index is used.
        append_empty(&backend, conversation, READ[0]).await;
        append_empty(&backend, other, READ[0]).await;
        if half == "indexed" {
            index(&app).await;
            assert_eq!(app.number(INDEX_BACKLOG).await, 0);
            backend.execute(HOLD).await;
        }
    }
    assert_eq!(app.number(INDEX_BACKLOG).await, 20 + 2 * READ[0]);
    let message = |id: i64| format!("{CONVERSATIONS}/{conversation}/messages/{id}");
    // For each operation, one message that is not yet indexed and one that is.
    for edited in [3, 13] {
        let edit = json!({"content": "pin 針箱"});
        app.patch(&message(posted[edited]), edit).key(&key).send().await.expect(200);
    }
    for deleted in [14, 4] {
        app.delete(&message(posted.remove(deleted))).key(&key).send().await.expect(204);
    }
    let pins: Vec<i64> = [3, 12].map(|place| posted[place]).to_vec();
    let needles: Vec<i64> = posted.iter().copied().filter(|id| !pins.contains(id)).collect();
    for held in [true, false] {
        if !held {
            backend.execute("DROP TRIGGER held").await;
            index(&app).await;
        }
        assert_eq!(app.number(INDEX_BACKLOG).await > 0, held);
        for (q, expected) in [("needle", &needles), ("針箱", &posted), ("pin", &pins)] {
            assert_eq!(found_in(&app, &key, conversation, q).await, *expected, "{q} {held}");
            let path = format!("{SEARCH}?limit=100&q={}", escaped(q));
            assert_eq!(ids(app.get(&path).session(&session)).await, *expected, "{q} {held}");
            for limit in [1, 7, 9, 10, 20] {
                let mut paged = vec![];
                for skip in (0..20).step_by(limit) {
                    let path = format!(
                        "{CONVERSATIONS}/{conversation}/search?limit={limit}&skip={skip}&q="
                    );
                    paged.extend(ids(app.get(&(path + &escaped(q))).key(&key)).await);
                }
                assert_eq!(paged, *expected, "{q} by {limit} {held}");
            }
        }
        for q in ["waiting 9", "indexed 9", "needle elsewhere"] {
            let n = if q.ends_with('9') { 1 } else { 20 };
            assert_eq!(found(&app, &key, q).await.len(), n, "{q} {held}");
        }
        // Compares the index with its expected content.
        backend.execute(CHECK).await;
    }
    for id in [conversation, other] {
        app.delete(&format!("{CONVERSATIONS}/{id}")).key(&key).send().await.expect(204);
    }
    assert!(found(&app, &key, "needle").await.is_empty());
}

#[apply(on_sqlite!)]
async fn new_messages_are_indexed_soon(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let conversation = app.conversation(&key, &[]).await;
    for n in 0..3 {
        post_message(&app, &key, conversation, &format!("{n}: {}", "what is said ".repeat(5000)))
            .await;
    }
    let term = "SELECT COUNT(*) FROM message_terms WHERE term = 'wha' AND doc = 3";
    for _ in 0..1000 {
        if app.number(term).await == 1 {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("the message is not in the index after ten seconds");
}

#[apply(on_sqlite!)]
async fn a_large_write_shrinks_the_index_backlog(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let conversation = app.conversation(&key, &[]).await;
    let many: Vec<Value> =
        (0..100).map(|n| json!({"role": "user", "content": format!("{n}")})).collect();
    let long = json!([{"role": "user", "content": "what is said ".repeat(2000)}]);
    for messages in [json!(many), long] {
        // The job may run in between, but not every time.
        for waiting in [0, 1, 50] {
            append_empty(&backend, conversation, waiting).await;
            let path = format!("{CONVERSATIONS}/{conversation}/messages/batch");
            let body = json!({"messages": messages});
            app.post(&path, body).key(&key).send().await.expect(201);
            let missing = app.number(INDEX_BACKLOG).await;
            assert!(missing <= (waiting - 1).max(0), "{missing} after {waiting}");
        }
    }
    index(&app).await;
    assert_eq!(found(&app, &key, "what is said").await.len(), 3);
}

#[apply(on_sqlite!)]
async fn imported_messages_are_indexed_immediately(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let at = "2026-01-01T00:00:00Z";
    let mut lines = vec![json!({"type": "conversation", "external_id": "a", "created_at": at})];
    for n in 0..6000 {
        let content = format!("{n} is what was said");
        lines.push(
            json!({"type": "message", "role": "system", "content": content, "created_at": at}),
        );
    }
    let text: String = lines.iter().flat_map(|line| [line.to_string(), "\n".to_owned()]).collect();
    let call = app.act("/api/v1/conversations/import").key(&key);
    let call = call.header("Content-Type", "application/x-ndjson").body(text);
    assert_eq!(call.send().await.expect(200)["messages"], 6000);
    assert_eq!(app.number(INDEX_BACKLOG).await, 0);
    assert_eq!(found(&app, &key, "4999 is").await.len(), 1);
}

#[apply(on_both!)]
async fn messages_stored_by_an_older_version_are_found(backend: Backend) {
    backend.start_empty();
    let kind = if backend.is_sqlite() { "sqlite" } else { "postgres" };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(kind);
    let all = Migrator::new(folder).await.unwrap();
    let older = all.iter().filter(|migration| migration.version < 3).cloned().collect();
    let older = Migrator::with_migrations(older);
    let url = backend.url().await;
    if backend.is_sqlite() {
        backend.execute("PRAGMA journal_mode = WAL").await; // which makes the file
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        older.run(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    } else {
        let mut connection = PgConnection::connect(&url).await.unwrap();
        older.run(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
    backend
        .execute(format!(
            "INSERT INTO conversations (title, last_seq, created_at, updated_at) VALUES ('a talk', 2, {TIME}, {TIME});
             INSERT INTO messages (conversation_id, seq, role, content, created_at)
             VALUES (1, 1, 'user', 'an older message', {TIME}), (1, 2, 'user', '昔の言葉', {TIME})"
        ))
        .await;
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    append_empty_and_index(&app, &backend, 1, READ[0]).await;
    for (q, expected) in [("OLDER", [1]), ("言葉", [2]), ("昔の言", [2])] {
        assert_eq!(found(&app, &key, q).await, expected, "{q}");
    }
}

/// Inserts messages into a conversation with SQL, and updates the index.
async fn store(app: &TestApp, backend: &Backend, conversation: i64, contents: &[String]) {
    let last = format!("SELECT last_seq FROM conversations WHERE id = {conversation}");
    for (n, content) in (1..).zip(contents) {
        backend
            .execute(format!(
                "INSERT INTO messages (conversation_id, seq, role, content, created_at)
                 VALUES ({conversation}, ({last}) + {n}, 'assistant', '{content}', {TIME})"
            ))
            .await;
    }
    let count = contents.len();
    backend
        .execute(format!(
            "UPDATE conversations SET last_seq = last_seq + {count} WHERE id = {conversation}"
        ))
        .await;
    index(app).await;
}

#[apply(on_both!)]
async fn a_repetitive_word_is_found_in_older_messages(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let conversation = app.conversation(&key, &[]).await;
    let posted =
        ["ha".repeat(20), "ha".repeat(9), format!("{}b", "a".repeat(30)), "x y z v w é".into()];
    store(&app, &backend, conversation, &posted).await;
    let ids: Vec<i64> = found(&app, &key, "a").await;
    let other = app.conversation(&key, &[]).await;
    append_empty_and_index(&app, &backend, other, READ[0] + 1).await;
    append_empty_and_index(&app, &backend, conversation, READ[0] + 1).await;
    let (many, few, letters, short) =
        ("ha".repeat(10), "ha".repeat(9), "a".repeat(25), "x y z v w");
    for (q, expected) in [
        (many.clone(), vec![0]),
        (few, vec![0, 1]),
        (format!("{letters}b"), vec![2]),
        (format!("{letters} aab"), vec![2]),
        (format!("b{letters}"), vec![]),
        (format!("{many} aab"), vec![]),
    ] {
        let newest_first = |n: &usize| ids[ids.len() - 1 - n];
        let expected: Vec<i64> = expected.iter().rev().map(newest_first).collect();
        assert_eq!(found(&app, &key, &q).await, expected, "{q}");
        assert_eq!(found_in(&app, &key, conversation, &q).await, expected, "{q}");
        assert!(found_in(&app, &key, other, &q).await.is_empty(), "{q}");
    }
    assert_eq!(found(&app, &key, &format!("{short} \"x y\"")).await.len(), 1);
    assert!(found(&app, &key, &format!("{short} q \"x y\"")).await.is_empty());
}

#[apply(on_both!)]
async fn a_search_of_equal_letters_takes_bounded_time(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let conversation = app.conversation(&key, &[]).await;
    // Enough to fill the scan before the index is used.
    let content = format!("{}ab", "a".repeat(99_998));
    store(&app, &backend, conversation, &vec![content; 40]).await;
    let words: Vec<String> = ('a'..='z').map(|last| format!("aaa{last}")).collect();
    let plain = search_time(&app, &key, "aaa").await;
    for q in ["a".repeat(199), format!("{}b", "a".repeat(198)), words.join(" ")] {
        let took = search_time(&app, &key, &q).await;
        // Postgres compares a word naively until the time limit.
        let most = if backend.is_sqlite() { plain * 15 } else { plain + Duration::from_secs(3) };
        assert!(took < most + Duration::from_secs(2), "{q} took {took:?}, aaa {plain:?}");
    }
}

async fn search_time(app: &TestApp, key: &str, q: &str) -> Duration {
    let started = Instant::now();
    let call = app.get(&format!("{SEARCH}?limit=100&q={}", escaped(q))).key(key);
    let answer = call.send().await;
    match answer.status {
        200 => {}
        504 => answer.refused(
            504,
            "The search took too long: search for longer or rarer words, or in one conversation",
        ),
        _ => panic!("{q}: {}", answer.text),
    }
    started.elapsed()
}
