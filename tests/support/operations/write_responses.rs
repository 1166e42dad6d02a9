//! Responses to writes show no data that the key may not read. Tries every write with every
//! combination of scopes that may call it without the matching read scope.

use super::operation::scopes;
use super::{Ids, OperationOf};
use crate::support::{Answer, Call, TestApp};
use octopus::core::text::folded;
use octopus::db::query;
use octopus::security::secret::{SecretHash, TokenKind};
use reqwest::Method;
use serde_json::Value;
use std::collections::BTreeSet;

/// A marker for every text of the seeded resources that a read operation shows.
pub const MARK: &str = "m4rk";
/// Scopes that are held independently of each other. A key holds all others or none of them, so
/// that the number of keys does not grow with the number of features.
const INDEPENDENT: usize = 8;

/// Calls each write that is in `operations`. `seed` creates the resources in the paths, with
/// [`MARK`] in their texts, and returns their ids; it is called again after each DELETE.
///
/// # Panics
/// If a response shows the marker, or if a write fails with a status other than 409.
pub async fn check_write_responses<W: 'static>(
    app: &TestApp,
    operations: impl IntoIterator<Item = &'static OperationOf<W>>,
    seed: impl AsyncFn() -> Ids,
) {
    let writes: Vec<_> = operations.into_iter().filter(|it| it.written().is_some()).collect();
    let written: BTreeSet<_> = writes.iter().filter_map(|write| write.written()).collect();
    let groups = groups(&written);
    let mut ids = seed().await;
    let mut tried = BTreeSet::new();
    for chosen in 0..1_u32 << groups.len() {
        let held = |scope: &str| {
            let group = groups.iter().position(|group| group.contains(&scope));
            group.is_some_and(|group| chosen >> group & 1 == 1)
        };
        let may_try = |family: &str| {
            (held("write") || held(&format!("{family}:write"))) && !held(&format!("{family}:read"))
        };
        if !written.iter().any(|family| may_try(family)) {
            continue;
        }
        let scopes: Vec<_> = scopes().into_iter().filter(|scope| held(scope)).collect();
        let scopes = scopes.join(",");
        let key = key(app, &scopes).await;
        for write in writes.iter().filter(|write| write.written().is_some_and(may_try)) {
            for (place, call) in write_calls(app, write, &ids) {
                let answer = call.key(&key).send().await;
                shows_nothing(&answer, &format!("{place} with {scopes}"));
            }
            tried.insert(write.name());
            if write.method == "delete" {
                ids = seed().await;
            }
        }
    }
    assert_eq!(tried.len(), writes.len(), "only {tried:?} were tried");
}

/// The requests of a write, with their descriptions: one with each of its bodies.
pub fn write_calls<W>(app: &TestApp, write: &OperationOf<W>, ids: &Ids) -> Vec<(String, Call)> {
    let text = |id: &Value| id.as_str().map_or_else(|| id.to_string(), str::to_owned);
    let fill =
        |path: String, (name, id): (&&str, &Value)| path.replace(&format!("{{{name}}}"), &text(id));
    let path = ids.iter().fold(write.path.to_owned(), fill);
    assert!(!path.contains('{'), "{path}: no resource was created");
    let method: Method = write.method.to_uppercase().parse().unwrap();
    let bodies = write.bodies.map_or_else(|| vec![Value::Null], |bodies| bodies(ids));
    let request = |body: Value| {
        let place = format!("{method} {path} {body}");
        let call = app.call(method.clone(), &path);
        (place, if body.is_null() { call } else { call.json(body) })
    };
    bodies.into_iter().map(request).collect()
}

/// The groups of scopes that a key holds together, first those of the `written` resources. Without
/// `admin` and `read`, which may read all tested data.
fn groups(written: &BTreeSet<&str>) -> Vec<Vec<&'static str>> {
    let mut scopes = scopes();
    scopes.retain(|scope| !["admin", "read"].contains(scope));
    let is_of_another = |scope: &&str| {
        let family = scope.split_once(':').map(|(family, _)| family);
        family.is_some_and(|family| !written.contains(family))
    };
    scopes.sort_by_key(is_of_another);
    let others = scopes.split_off(INDEPENDENT.min(scopes.len()));
    let own = scopes.into_iter().map(|scope| vec![scope]);
    own.chain([others]).filter(|group| !group.is_empty()).collect()
}

/// Inserts a key with these scopes into the database; hundreds of requests would take too long.
async fn key(app: &TestApp, scopes: &str) -> String {
    const SQL: &str = "INSERT INTO api_keys \
        (key_hash, key_prefix, name, name_key, scopes, is_active, created_at) \
        VALUES ($1, 'octopus_many', $2, $3, $2, TRUE, $4)";
    let key = TokenKind::ApiKey.generate(&mut rand::rng()).expose().to_owned();
    let mut tx = app.state.db.begin().await.unwrap();
    let insert = query(&mut tx, SQL).bind(SecretHash::of(&key).to_vec());
    let insert = insert.bind(scopes).bind(folded(scopes)).bind(app.state.clock.now());
    insert.execute().await.unwrap();
    tx.commit().await.unwrap();
    key
}

/// Asserts that a response does not show the marker; a refused one shows nothing at all.
#[track_caller]
fn shows_nothing(answer: &Answer, place: &str) {
    let was_done = (200..300).contains(&answer.status) || answer.status == 409;
    assert!(was_done, "{place}: {} {}", answer.status, answer.text);
    assert!(!answer.text.contains(MARK), "{place}: {}", answer.text);
    for header in ["location", "etag", "link"] {
        let shown = answer.header(header).unwrap_or_default();
        assert!(!shown.contains(MARK), "{place}: {header}: {shown}");
    }
}
