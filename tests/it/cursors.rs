//! Pages of lists: cursors, orders, and the links between pages. The submodules test concurrent
//! changes and refusals.

mod changes;
mod refusals;

use crate::support::{Answer, Backend, TestApp};
use axum::extract::FromRequestParts;
use axum::http::Request;
use axum::response::IntoResponse;
use chrono::{DateTime, Utc};
use octopus::db::{Db, query};
use octopus::http::{NewestFirst, Query, Window};
use reqwest::Method;
use serde_json::Value;

const USERS: &str = "/api/v1/users";
const KEYS: &str = "/api/v1/api-keys";
const LOGS: &str = "/api/v1/api-keys/audit-logs";

/// A server with an admin key and `n` users with the ids 1 to `n`.
async fn with_users(backend: &Backend, n: i64) -> (TestApp, String) {
    let app = TestApp::new(backend).await;
    let admin = app.admin().await;
    insert_users(&app, 1..=n).await;
    (app, admin)
}

/// Inserts users with SQL, as hashing their passwords would take too long.
async fn insert_users(app: &TestApp, names: impl IntoIterator<Item = i64>) {
    const SQL: &str = "INSERT INTO users (email, email_key, username, username_key, \
        password_hash, created_at, updated_at) VALUES ($1, $1, $2, $2, 'none', $3, $3)";
    let (mut tx, now) = (app.state.db.begin().await.unwrap(), app.state.clock.now());
    for n in names {
        let statement = query(&mut tx, SQL).bind(format!("{n}@example.com"));
        statement.bind(format!("user {n}")).bind(now).execute().await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn delete_user(app: &TestApp, admin: &str, id: i64) {
    app.delete(&format!("{USERS}/{id}")).key(admin).send().await.expect(204);
}

/// A parameter of a link.
fn parameter(target: &str, name: &str) -> Option<String> {
    let (_, query) = target.split_once('?').expect("a query");
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(n, _)| n == name).map(|(_, value)| value.into_owned())
}

fn ids(body: &Value) -> Vec<i64> {
    body.as_array().expect("a list").iter().map(|entry| entry["id"].as_i64().unwrap()).collect()
}

/// The ids of a page, and its links to the next and to the previous one.
async fn page(
    app: &TestApp,
    key: &str,
    target: &str,
) -> (Vec<i64>, Option<String>, Option<String>) {
    let answer = app.get(target).key(key).send().await;
    let (next, prev) = (answer.link("next"), answer.link("prev"));
    (ids(&answer.expect(200)), next, prev)
}

/// The pages from `target` along the `rel` links, and the last target.
async fn read_pages(app: &TestApp, key: &str, target: &str, rel: &str) -> (Vec<Vec<i64>>, String) {
    let (mut pages, mut target) = (vec![], target.to_owned());
    loop {
        let (ids, next, prev) = page(app, key, &target).await;
        pages.push(ids);
        assert!(pages.len() < 1000, "more than 1000 pages");
        match if rel == "next" { next } else { prev } {
            Some(further) => target = further,
            None => return (pages, target),
        }
    }
}

/// The cursor after the entry `id` of a list, as the links have it.
async fn cursor(app: &TestApp, key: &str, list: &str, id: i64) -> String {
    let target = format!("{list}?limit=1&order=asc&skip={}", id - 1);
    let (found, next, _) = page(app, key, &target).await;
    assert_eq!(found, [id]);
    parameter(&next.expect("a next page"), "after").unwrap()
}

#[apply(on_both!)]
async fn every_list_can_be_paged_both_ways_and_in_both_orders_by_links_alone(backend: Backend) {
    let (app, admin) = with_users(&backend, 7).await;
    app.many_keys(6).await;
    // The creation of the first key wrote the first audit entry.
    for id in 2..=7 {
        app.act(&format!("{KEYS}/{id}/deactivate")).key(&admin).send().await.expect(200);
    }
    let ascending: Vec<i64> = (1..=7).collect();
    let descending: Vec<i64> = ascending.iter().rev().copied().collect();
    for (list, by_default) in [
        (format!("{USERS}?"), &ascending),
        (format!("{KEYS}?include_inactive=true"), &ascending),
        (format!("{LOGS}?"), &descending),
    ] {
        for (order, expected) in
            [("", by_default), ("&order=asc", &ascending), ("&order=desc", &descending)]
        {
            for limit in [1, 2, 3, 6, 7, 8] {
                let start = format!("{list}&limit={limit}{order}");
                let (forward, last) = read_pages(&app, &admin, &start, "next").await;
                let expected: Vec<Vec<i64>> = expected.chunks(limit).map(<[_]>::to_vec).collect();
                assert_eq!(forward, expected, "{start}");
                let (mut backward, _) = read_pages(&app, &admin, &last, "prev").await;
                backward.reverse();
                // Every page except the first and the last in this direction is full.
                let together: Vec<i64> = backward.iter().flatten().copied().collect();
                assert_eq!(together, forward.concat(), "{last}");
                assert!(backward[1..].iter().rev().skip(1).all(|page| page.len() == limit));
            }
        }
    }
}

#[apply(on_both!)]
async fn after_means_newer_and_before_means_older_in_either_order(backend: Backend) {
    let (app, admin) = with_users(&backend, 9).await;
    let five = cursor(&app, &admin, USERS, 5).await;
    for (query, expected, is_next, is_prev) in [
        ("after=C&limit=2", vec![6, 7], true, true),
        ("after=C&limit=2&order=asc", vec![6, 7], true, true),
        ("after=C&limit=2&order=desc", vec![7, 6], true, true),
        ("before=C&limit=2", vec![3, 4], true, true),
        ("before=C&limit=2&order=desc", vec![4, 3], true, true),
        ("after=C&limit=4", vec![6, 7, 8, 9], false, true),
        ("after=C&order=desc", vec![9, 8, 7, 6], true, false),
        ("before=C&limit=4", vec![1, 2, 3, 4], true, false),
        ("before=C&order=desc", vec![4, 3, 2, 1], false, true),
    ] {
        let target = format!("{USERS}?{}", query.replace('C', &five));
        let (ids, next, prev) = page(&app, &admin, &target).await;
        assert_eq!((ids, next.is_some(), prev.is_some()), (expected, is_next, is_prev), "{query}");
    }
}

#[apply(on_both!)]
async fn a_page_by_skip_has_links_too(backend: Backend) {
    let (app, admin) = with_users(&backend, 6).await;
    for (query, expected, further, back) in [
        ("limit=2", vec![1, 2], Some(vec![3, 4]), None),
        ("skip=0&limit=2", vec![1, 2], Some(vec![3, 4]), None),
        ("skip=2&limit=2", vec![3, 4], Some(vec![5, 6]), Some(vec![1, 2])),
        ("skip=1&limit=2", vec![2, 3], Some(vec![4, 5]), Some(vec![1])),
        ("skip=4&limit=2", vec![5, 6], None, Some(vec![3, 4])),
        ("skip=1&limit=2&order=desc", vec![5, 4], Some(vec![3, 2]), Some(vec![6])),
        ("skip=6", vec![], None, None),
        ("skip=9223372036854775807&limit=1000", vec![], None, None),
    ] {
        let (ids, next, prev) = page(&app, &admin, &format!("{USERS}?{query}")).await;
        assert_eq!(ids, expected, "{query}");
        for (link, expected) in [(next, further), (prev, back)] {
            assert_eq!(link.is_some(), expected.is_some(), "{query}");
            let Some(target) = link else { continue };
            assert_eq!(parameter(&target, "skip"), None, "{target}");
            assert_eq!(page(&app, &admin, &target).await.0, expected.unwrap(), "{query}");
        }
    }
}

#[apply(on_both!)]
async fn a_list_that_fits_on_its_page_has_no_links(backend: Backend) {
    let (app, admin) = with_users(&backend, 3).await;
    for query in ["", "?limit=3", "?limit=1000&order=desc", "?skip=0&limit=3"] {
        let answer = app.get(&format!("{USERS}{query}")).key(&admin).send().await;
        assert_eq!(answer.header("link"), None, "{query}");
        assert_eq!(answer.expect(200).as_array().unwrap().len(), 3);
    }
    // The default limit is 100.
    insert_users(&app, 4..=101).await;
    let answer = app.get(USERS).key(&admin).send().await;
    let next = answer.link("next").unwrap();
    assert_eq!(ids(&answer.expect(200)), (1..=100).collect::<Vec<_>>());
    assert_eq!(page(&app, &admin, &next).await.0, [101]);
    let head = app.call(Method::HEAD, USERS).key(&admin).send().await;
    assert_eq!(head.link("next"), Some(next));
}

#[apply(on_both!)]
async fn a_link_keeps_filters_order_and_limit(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    for name in ["a & b=c", "x", "a & b=c >\"", "y", "A & B=C é"] {
        let body = serde_json::json!({"name": name, "scopes": "read"});
        app.post(KEYS, body).key(&admin).send().await.expect(201);
    }
    app.act(&format!("{KEYS}/4/deactivate")).key(&admin).send().await.expect(200);
    let query = "q=a%20%26+b%3Dc&include_inactive=true&order=desc&limit=1&skip=0";
    let mut next = String::new();
    for path in [KEYS.to_owned(), format!("{KEYS}/"), format!("{KEYS}//")] {
        let first = app.get(&format!("{path}?{query}")).key(&admin).send().await;
        next = first.link("next").unwrap();
        assert_eq!(ids(&first.expect(200)), [6]);
        let kept = format!("{KEYS}?q=a+%26+b%3Dc&include_inactive=true&order=desc&limit=1&before=");
        assert!(next.starts_with(&kept), "{next}");
    }
    assert_eq!(read_pages(&app, &admin, &next, "next").await.0, [[4], [2]]);
    // A link that begins with two slashes would lead to another host.
    app.get(&format!("/{KEYS}?{query}")).key(&admin).send().await.refused(404, "Not Found");

    // Characters that end a link elsewhere do not end it here.
    for n in 7..9 {
        let body = serde_json::json!({"name": format!(">; rel=\"next\",{n}"), "scopes": "read"});
        app.post(KEYS, body).key(&admin).send().await.expect(201);
    }
    let target = format!("{KEYS}?limit=1&q=%3E%3B%20rel%3D%22next%22,&after");
    app.get(&target).key(&admin).send().await.refused(400, "Invalid cursor");
    let answer = app.get(&target.replace("&after", "")).key(&admin).send().await;
    assert_eq!(answer.header("link").unwrap().matches('>').count(), 1);
    let next = answer.link("next").unwrap();
    assert_eq!(parameter(&next, "q").as_deref(), Some(">; rel=\"next\","));
    assert_eq!(page(&app, &admin, &next).await.0, [8]);

    let target = format!("{LOGS}?action=create&limit=2&since=2020-01-01T00:00:00%2B00:00");
    let (pages, _) = read_pages(&app, &admin, &target, "next").await;
    assert_eq!(pages, [vec![9, 8], vec![6, 5], vec![4, 3], vec![2]]);
}

#[apply(on_both!)]
async fn a_cursor_works_with_other_filters_orders_and_limits(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    app.many_keys(5).await;
    let three = cursor(&app, &admin, KEYS, 3).await;
    app.act(&format!("{KEYS}/5/deactivate")).key(&admin).send().await.expect(200);
    for (query, expected) in [
        ("limit=10", vec![4, 6]),
        ("include_inactive=true", vec![4, 5, 6]),
        ("q=key%204&order=desc", vec![6]),
        ("include_inactive=true&limit=2&order=desc", vec![5, 4]),
    ] {
        let target = format!("{KEYS}?after={three}&{query}");
        assert_eq!(page(&app, &admin, &target).await.0, expected, "{query}");
    }
}

#[apply(on_both!)]
async fn other_sites_that_are_allowed_may_read_the_links(backend: Backend) {
    let origin = "https://app.example.com";
    let variables = [("RATE_LIMIT_ENABLED", "false"), ("CORS_ALLOWED_ORIGINS", origin)];
    let app = TestApp::with(&backend, &variables).await;
    let admin = app.admin().await;
    let answer = app.get(USERS).key(&admin).header("origin", origin).send().await;
    let exposed = answer.header("access-control-expose-headers").unwrap_or_default();
    assert!(exposed.split(',').any(|name| name == "link"), "{exposed}");
}

/// A page of users sorted by registration time, and its next link.
async fn by_time(db: &Db, target: &str) -> (Vec<i64>, Option<String>, Option<String>) {
    const SQL: &str = "SELECT created_at, id FROM users WHERE TRUE";
    let (mut parts, ()) = Request::get(target).body(()).unwrap().into_parts();
    let window = Query::<Window<NewestFirst>>::from_request_parts(&mut parts, &()).await.unwrap();
    let slice = window.0.resolve("users by time").unwrap();
    let rows = slice.cut(query(db, SQL), &["created_at", "id"]).all().await.unwrap();
    let listed = slice.page(rows, |row: &(DateTime<Utc>, i64)| *row);
    let ids = listed.entries.iter().map(|(_, id)| *id).collect();
    let headers = (listed.link, ()).into_response().into_parts().0.headers;
    let answer = Answer { status: 200, headers, body: Value::Null, text: String::new() };
    (ids, answer.link("next"), answer.link("prev"))
}

#[apply(on_both!)]
async fn a_list_can_be_sorted_by_a_time_and_then_by_the_id(backend: Backend) {
    let (app, _) = with_users(&backend, 9).await;
    let mut tx = app.state.db.begin().await.unwrap();
    let start = 1_795_410_000_000_000;
    // SQLite stores times as text with a varying number of digits.
    let micros = [1, 0, 500_000, 1, 500_001, 500_000, 1_000_000, 0, 500_000];
    for (id, micros) in (1i64..).zip(micros) {
        const SQL: &str = "UPDATE users SET created_at = $1 WHERE id = $2";
        let time = DateTime::from_timestamp_micros(start + micros).unwrap();
        query(&mut tx, SQL).bind(time).bind(id).execute().await.unwrap();
    }
    tx.commit().await.unwrap();
    let ascending = [2, 8, 1, 4, 3, 6, 9, 5, 7];
    for limit in 1..=9 {
        for (order, rel) in [("asc", "next"), ("desc", "next"), ("asc", "prev"), ("desc", "prev")] {
            let mut expected = ascending.to_vec();
            if order == "desc" {
                expected.reverse();
            }
            let mut further = Some(format!("/list?limit={limit}&order={order}"));
            if rel == "prev" {
                // Backwards from the last entry, which is not repeated.
                expected.truncate(8);
                further = Some(format!("/list?limit=1&order={order}&skip=8"));
                let (_, _, prev) = by_time(&app.state.db, &further.unwrap()).await;
                further = prev.map(|prev| prev.replace("limit=1", &format!("limit={limit}")));
            }
            let mut read = vec![];
            while let Some(target) = further {
                let (ids, next, prev) = by_time(&app.state.db, &target).await;
                if rel == "next" {
                    read.extend(ids);
                    further = next;
                } else {
                    read.splice(0..0, ids);
                    further = prev;
                }
            }
            assert_eq!(read, expected, "{limit} {order} {rel}");
        }
    }
}
