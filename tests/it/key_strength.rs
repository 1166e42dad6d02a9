//! No API key can create a key stronger than itself. Tests every kind of caller × every route that
//! changes keys × every field against an independent implementation of strength.

use crate::support::{Answer, Backend, TestApp};
use chrono::{DateTime, TimeDelta, Utc};
use octopus::security::{AddressList, Scopes};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::net::IpAddr;

const KEYS: &str = "/api/v1/api-keys";
/// The bounds of a caller. The list contains the local address, from which tests send requests.
const CALLER_LIST: &str = "127.0.0.0/8,10.0.0.0/9,10.128.0.0/9,2001:db8::/32";
const CALLER_END: &str = "2099-01-01T00:00:00Z";
const CALLER_LIMIT: i64 = 1000;

/// Values of each field, some within the bounds of a caller and some beyond.
fn lists() -> Vec<Value> {
    let texts = [
        "127.0.0.1",
        "127.0.0.1,10.0.0.0/8",
        "127.0.0.1,::ffff:10.1.2.0/120",
        "127.0.0.1,2001:db8:1::/48",
        "127.0.0.1,10.0.0.0/7",
        "127.0.0.1,192.0.2.1",
        "127.0.0.1,2001:db8::/31",
        "127.0.0.1,::ffff:192.0.2.1",
        "0.0.0.0/0,::/0",
    ];
    texts.into_iter().map(Value::from).chain([Value::Null]).collect()
}

fn ends() -> Vec<Value> {
    let texts =
        ["2098-12-31T00:00:00Z", CALLER_END, "2099-01-01T00:00:00.000001Z", "2100-01-01T00:00:00Z"];
    texts.into_iter().map(Value::from).chain([Value::Null]).collect()
}

fn limits() -> Vec<Value> {
    vec![json!(1), json!(CALLER_LIMIT), json!(CALLER_LIMIT + 1), Value::Null]
}

fn scopes() -> Vec<Value> {
    ["read", "write", "admin"].into_iter().map(Value::from).collect()
}

/// The strength of a key, computed from its JSON.
struct Strength {
    is_active: bool,
    rights: BTreeSet<String>,
    /// The addresses of a sample that it may be used from, with `None` if it has no list.
    addresses: BTreeSet<Option<IpAddr>>,
    end: DateTime<Utc>,
    per_minute: i64,
}

impl Strength {
    fn of(key: &Value) -> Self {
        let sample = [
            "127.0.0.1",
            "127.200.0.1",
            "10.1.2.3",
            "10.1.3.3",
            "10.200.0.1",
            "11.0.0.1",
            "192.0.2.1",
            "2001:db8:1::1",
            "2001:db8:2::1",
            "2001:db9::1",
            "2a00::1",
        ];
        let sample = sample.map(|ip| ip.parse::<IpAddr>().unwrap());
        let list = key["allowed_ips"].as_str().map(|text| text.parse::<AddressList>().unwrap());
        let addresses = match list {
            None => sample.into_iter().map(Some).chain([None]).collect(),
            Some(list) => sample.into_iter().filter(|ip| list.contains(*ip)).map(Some).collect(),
        };
        let held: Scopes = key["scopes"].as_str().unwrap().parse().unwrap();
        let rights = octopus::security::Scope::ALL.into_iter().filter(|scope| held.allow(*scope));
        let time =
            |name: &str| key[name].as_str().map(|text| text.parse::<DateTime<Utc>>().unwrap());
        let ends = [time("expires_at"), time("grace_expires_at")];
        Self {
            is_active: key["is_active"].as_bool().unwrap(),
            rights: rights.map(|scope| scope.as_str().to_owned()).collect(),
            addresses,
            end: ends.into_iter().flatten().min().unwrap_or(DateTime::<Utc>::MAX_UTC),
            per_minute: key["rate_limit_per_minute"].as_i64().unwrap_or(i64::MAX),
        }
    }

    /// The fields in which this exceeds `other`.
    fn excess(&self, other: &Self) -> Vec<&'static str> {
        let fields = [
            ("scopes", !self.rights.is_subset(&other.rights)),
            ("allowed_ips", !self.addresses.is_subset(&other.addresses)),
            ("expires_at", self.end > other.end),
            ("rate_limit_per_minute", self.per_minute > other.per_minute),
        ];
        fields.into_iter().filter(|(_, exceeds)| *exceeds).map(|(name, _)| name).collect()
    }

    /// The fields for which a change from `before` to this is refused to `caller`.
    fn refused(&self, before: Option<&Self>, caller: &Self) -> Vec<&'static str> {
        let is_stronger = before.is_none_or(|before| {
            !self.excess(before).is_empty() || self.is_active && !before.is_active
        });
        if is_stronger { self.excess(caller) } else { vec![] }
    }
}

/// Creates a key with the unbounded `admin` key; returns its secret and its JSON.
async fn make(app: &TestApp, admin: &str, properties: Value) -> (String, Value) {
    let created = app.post(KEYS, properties).key(admin).send().await.expect(201);
    (created["key"].as_str().unwrap().to_owned(), created)
}

async fn row(app: &TestApp, admin: &str, id: i64) -> Value {
    app.get(&format!("{KEYS}/{id}")).key(admin).send().await.expect(200)
}

/// Admin keys bounded in one field each, in all fields, by a grace period, and in none.
async fn callers(app: &TestApp, admin: &str) -> Vec<(&'static str, String, Value)> {
    let mut callers = vec![];
    for (name, properties) in [
        ("addresses", json!({"allowed_ips": CALLER_LIST})),
        ("end", json!({"expires_at": CALLER_END})),
        ("limit", json!({"rate_limit_per_minute": CALLER_LIMIT})),
        (
            "all",
            json!({"allowed_ips": CALLER_LIST, "expires_at": CALLER_END,
                "rate_limit_per_minute": CALLER_LIMIT}),
        ),
        ("nothing", json!({})),
        ("grace", json!({})),
    ] {
        let mut body = json!({"name": name, "scopes": "admin"});
        body.as_object_mut().unwrap().extend(properties.as_object().unwrap().clone());
        let (key, created) = make(app, admin, body).await;
        let id = created["id"].as_i64().unwrap();
        if name == "grace" {
            let body = json!({"grace_period_seconds": 604_800});
            app.post(&format!("{KEYS}/{id}/rotate"), body).key(admin).send().await.expect(200);
        }
        callers.push((name, key, row(app, admin, id).await));
    }
    callers
}

/// Random values of the fields; each field is left out now and then.
fn random_fields(random: &mut StdRng, with_scopes: bool) -> Map<String, Value> {
    let mut fields = Map::new();
    let values = [
        ("allowed_ips", lists()),
        ("expires_at", ends()),
        ("rate_limit_per_minute", limits()),
        ("scopes", scopes()),
    ];
    for (name, values) in values {
        if random.random_bool(0.5) && (with_scopes || name != "scopes") {
            fields.insert(name.to_owned(), values.choose(random).unwrap().clone());
        }
    }
    fields
}

fn with(row: &Value, fields: &Map<String, Value>) -> Value {
    let mut row = row.clone();
    row.as_object_mut().unwrap().extend(fields.clone());
    row
}

/// Asserts that `answer` is a refusal that names exactly the fields of `excess`, or else a success.
#[track_caller]
fn check(answer: &Answer, excess: &[&str], what: &str) {
    if excess.is_empty() {
        assert!([200, 201].contains(&answer.status), "{what}: {} {}", answer.status, answer.text);
        return;
    }
    assert_eq!(answer.status, 403, "{what} exceeds in {excess:?}: {}", answer.text);
    let detail = answer["detail"].as_str().unwrap();
    for name in ["scopes", "allowed_ips", "expires_at", "rate_limit_per_minute"] {
        let is_named = detail.contains(&format!("`{name}`"));
        assert_eq!(is_named, excess.contains(&name), "{what} exceeds in {excess:?}: {detail}");
    }
}

#[apply(on_both!)]
async fn no_route_creates_a_key_stronger_than_its_caller(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let mut random = StdRng::seed_from_u64(7);
    let (mut refusals, mut successes) = (0, 0);
    for (name, key, caller) in callers(&app, &admin).await {
        let strength = Strength::of(&caller);
        for round in 0..crate::support::scale(24, 300) {
            // Creates a key.
            let fields = random_fields(&mut random, true);
            let body = with(&json!({"name": "n"}), &fields);
            let shown = with(&json!({"is_active": true, "scopes": "read"}), &fields);
            let excess = Strength::of(&shown).refused(None, &strength);
            let what = format!("{name}, {round}: POST {body}");
            let answer = app.post(KEYS, body).key(&key).send().await;
            check(&answer, &excess, &what);
            (refusals, successes) = count(&excess, refusals, successes);

            // Changes another key: strong or weak, active or not.
            let properties = random_fields(&mut random, true);
            let (_, target) = make(&app, &admin, with(&json!({"name": "n"}), &properties)).await;
            let id = target["id"].as_i64().unwrap();
            if random.random_bool(0.3) {
                let path = format!("{KEYS}/{id}/deactivate");
                app.act(&path).key(&admin).send().await.expect(200);
            }
            let target = row(&app, &admin, id).await;
            let mut changes = random_fields(&mut random, true);
            changes.insert("name".to_owned(), json!("renamed"));
            if random.random_bool(0.5) {
                changes.insert("is_active".to_owned(), random.random_bool(0.7).into());
            }
            let before = Strength::of(&target);
            let after = Strength::of(&with(&target, &changes));
            let excess = after.refused(Some(&before), &strength);
            let what = format!("{name}, {round}: PATCH {target} with {}", json!(changes));
            let answer = app.patch(&format!("{KEYS}/{id}"), json!(changes)).key(&key).send().await;
            check(&answer, &excess, &what);
            (refusals, successes) = count(&excess, refusals, successes);
            let stored = row(&app, &admin, id).await;
            let expected = if excess.is_empty() { "renamed" } else { "n" };
            assert_eq!(stored["name"], expected, "{what}");
            assert_eq!(Strength::of(&stored).refused(Some(&before), &strength), [""; 0], "{what}");

            // Rotates another key, which gives its new secret to the caller.
            let strong = Strength::of(&stored);
            if strong.is_active {
                let excess = strong.refused(None, &strength);
                let what = format!("{name}, {round}: rotate {stored}");
                let answer = app.act(&format!("{KEYS}/{id}/rotate")).key(&key).send().await;
                check(&answer, &excess, &what);
                (refusals, successes) = count(&excess, refusals, successes);
            }
        }
        // Changes itself.
        for _ in 0..crate::support::scale(12, 100) {
            let body = with(&caller, &Map::new());
            let own = ["name", "scopes", "allowed_ips", "expires_at", "rate_limit_per_minute"];
            let copied = own.map(|field| (field.to_owned(), body[field].clone()));
            let (own_key, own) =
                make(&app, &admin, Value::Object(copied.into_iter().collect())).await;
            let changes = random_fields(&mut random, false);
            let excess = Strength::of(&with(&own, &changes)).refused(None, &Strength::of(&own));
            let what = format!("{name}: PATCH of itself, {own}, with {}", json!(changes));
            let path = format!("{KEYS}/{}", own["id"]);
            let answer = app.patch(&path, json!(changes)).key(&own_key).send().await;
            check(&answer, &excess, &what);
            let rotated = app.act(&format!("{path}/rotate")).key(&own_key).send().await.expect(200);
            let (old, new) = (row(&app, &admin, own["id"].as_i64().unwrap()).await, rotated);
            assert_eq!(Strength::of(&new).excess(&Strength::of(&own)), [""; 0], "{old} {new}");
        }
    }
    // Both outcomes are frequent, so the test covers enough.
    assert!(refusals > 60 && successes > 60, "{refusals} refusals, {successes} successes");
}

fn count(excess: &[&str], refusals: usize, successes: usize) -> (usize, usize) {
    if excess.is_empty() { (refusals, successes + 1) } else { (refusals + 1, successes) }
}

#[apply(on_both!)]
async fn the_refusal_names_each_field_and_its_limit(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let bounded = json!({"name": "b", "scopes": "admin", "allowed_ips": "127.0.0.1",
        "expires_at": CALLER_END, "rate_limit_per_minute": 100});
    let (key, own) = make(&app, &admin, bounded).await;
    let answer = app.post(KEYS, json!({"name": "n", "scopes": "admin"})).key(&key).send().await;
    answer.refused(
        403,
        "An API key cannot create or change a key to be stronger than itself: for the key you're \
         using, `allowed_ips` must be within 127.0.0.1; `expires_at` must not be after \
         2099-01-01T00:00:00Z; `rate_limit_per_minute` must be at most 100",
    );
    let path = format!("{KEYS}/{}", own["id"]);
    for (field, limit) in [
        ("allowed_ips", "`allowed_ips` must be within 127.0.0.1"),
        ("expires_at", "`expires_at` must not be after 2099-01-01T00:00:00Z"),
        ("rate_limit_per_minute", "`rate_limit_per_minute` must be at most 100"),
    ] {
        let answer = app.patch(&path, json!({field: null})).key(&key).send().await;
        let sentence = format!(
            "An API key cannot create or change a key to be stronger than itself: for the key \
             you're using, {limit}"
        );
        answer.refused(403, &sentence);
    }
    assert_eq!(app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys").await, 2);
    let logged = "SELECT CAST(COUNT(*) AS BIGINT) FROM api_key_audit_logs";
    assert_eq!(app.number(logged).await, 2, "refused changes are not in the audit log");
}

#[apply(on_both!)]
async fn a_bounded_admin_key_can_make_changes_that_strengthen_no_key(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let bounded = json!({"name": "b", "scopes": "admin", "rate_limit_per_minute": 100});
    let (key, _) = make(&app, &admin, bounded).await;
    let (_, strong) = app.key(&admin, "admin").await;
    let path = format!("{KEYS}/{strong}");
    for changes in [
        json!({"name": "renamed", "description": "d"}),
        json!({"allowed_ips": "192.0.2.1"}),
        json!({"scopes": "read"}),
        json!({"expires_at": CALLER_END}),
        json!({"rate_limit_per_minute": 1000}),
        json!({"is_active": false}),
        json!({"name": "renamed again"}),
    ] {
        app.patch(&path, changes).key(&key).send().await.expect(200);
    }
    // A stronger revoked key cannot be reactivated, a weaker one can.
    app.patch(&path, json!({"is_active": true})).key(&key).send().await.expect(403);
    app.patch(&path, json!({"rate_limit_per_minute": 1, "is_active": true}))
        .key(&key)
        .send()
        .await
        .expect(200);
    // A weaker key with looser bounds gets no further scope, either.
    let (_, wide) = app.key(&admin, "read").await;
    let promotion = json!({"scopes": "admin"});
    app.patch(&format!("{KEYS}/{wide}"), promotion).key(&key).send().await.expect(403);
    app.act(&format!("{KEYS}/{wide}/rotate")).key(&key).send().await.expect(403);
    app.act(&format!("{KEYS}/{wide}/deactivate")).key(&key).send().await.expect(200);
    app.delete(&format!("{KEYS}/{wide}")).key(&key).send().await.expect(204);
}

#[apply(on_both!)]
async fn a_key_in_its_grace_period_creates_no_key_that_outlives_it(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let body = json!({"grace_period_seconds": 3600});
    app.post(&format!("{KEYS}/1/rotate"), body).key(&admin).send().await.expect(200);
    let end = row(&app, &admin, 1).await["grace_expires_at"].clone();
    let answer = app.post(KEYS, json!({"name": "n"})).key(&admin).send().await;
    assert_eq!(answer.status, 403, "{}", answer.text);
    let end: DateTime<Utc> = end.as_str().unwrap().parse().unwrap();
    let at_most = |by: TimeDelta| json!({"name": "n", "expires_at": (end + by).to_rfc3339()});
    app.post(KEYS, at_most(TimeDelta::microseconds(1))).key(&admin).send().await.expect(403);
    app.post(KEYS, at_most(TimeDelta::zero())).key(&admin).send().await.expect(201);
}

#[apply(on_both!)]
async fn the_host_is_not_bound_by_any_key(backend: Backend) {
    use octopus::audit::Origin;
    use octopus::features::api_keys::service;
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let bounded = json!({"name": "b", "rate_limit_per_minute": 1});
    make(&app, &admin, bounded).await;
    // As `octopus keys` does.
    let rotation = octopus::http::check::<octopus::features::api_keys::model::RotateApiKey>(
        b"{}",
        &octopus::http::Rules { now: app.state.clock.now(), config: &app.state.config },
    );
    service::rotate(&app.state, &Origin::HOST, 1, rotation.unwrap(), None).await.unwrap();
}

/// The routes that change keys. A route missing here is not covered by this test.
#[apply(without_database!)]
fn every_route_that_changes_keys_is_tested() {
    let document = serde_json::to_value(octopus::api::document()).unwrap();
    let mut routes = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let of_keys = [json!(["api-keys"]), json!(["bootstrap"])].contains(&operation["tags"]);
            if of_keys && method != "get" {
                routes.insert(format!("{method} {}", path.replace(KEYS, "")));
            }
        }
    }
    let tried = ["post ", "patch /{api_key_id}", "post /{api_key_id}/rotate"];
    let only_ends_or_reads = [
        "delete /{api_key_id}",
        "post /{api_key_id}/deactivate",
        "post /cleanup-expired",
        "post /verify",
    ];
    let without_a_key = ["post /bootstrap"];
    let known = tried.iter().chain(&only_ends_or_reads).chain(&without_a_key);
    assert_eq!(routes, known.map(|route| (*route).to_owned()).collect());
}
