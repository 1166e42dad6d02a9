//! The cache of API keys: never stale after a change, bounded in time and size.

use crate::support::{Backend, TestApp};
use axum::http::{HeaderMap, HeaderValue};
use chrono::TimeDelta;
use octopus::audit::Origin;
use octopus::core::key_format::{ALPHABET, PREFIX, RANDOM, checksum};
use octopus::features::api_keys::service;
use octopus::http::{Client, RequestId};
use octopus::security::authenticate::{Credentials, Outcome, authenticate};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::{JoinSet, yield_now};
use tokio::time::sleep;

const KEYS: &str = "/api/v1/api-keys";
const USERS: &str = "/api/v1/users";

#[apply(on_both!)]
async fn a_cached_key_needs_no_query_until_its_entry_expires(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (cached, _) = app.key(&admin, "read").await;
    let (other, _) = app.key(&admin, "read").await;
    // On SQLite a change invalidates all cached keys a moment later.
    sleep(Duration::from_millis(200)).await;
    app.wait_until_cached(&cached).await;
    // The table is hidden, so every accepted request uses the cache.
    let cached_at = Instant::now();
    backend.execute("ALTER TABLE api_keys RENAME TO hidden").await;
    for _ in 0..50 {
        app.get(USERS).key(&cached).send().await.expect(200);
    }
    assert!(cached_at.elapsed() < Duration::from_secs(9), "the machine is too slow for this test");
    app.get(USERS).key(&other).send().await.expect(500);
    while app.get(USERS).key(&cached).send().await.status == 200 {
        assert!(
            cached_at.elapsed() < Duration::from_millis(10_500),
            "the key is cached for too long"
        );
        sleep(Duration::from_millis(20)).await;
    }
    backend.execute("ALTER TABLE hidden RENAME TO api_keys").await;
    app.get(USERS).key(&cached).send().await.expect(200);
    app.wait_until_cached(&other).await;
}

#[apply(on_both!)]
async fn expiry_and_addresses_are_checked_on_every_hit(backend: Backend) {
    let app = TestApp::with(&backend, &[("TRUSTED_PROXIES", "127.0.0.1")]).await;
    let admin = app.admin().await;
    let end = (app.state.clock.now() + TimeDelta::hours(1)).to_rfc3339();
    let body = json!({"name": "n", "expires_at": end, "allowed_ips": "198.51.100.0/24"});
    let created = app.post(KEYS, body).key(&admin).send().await.expect(201);
    let key = created["key"].as_str().unwrap();
    app.wait_until_cached(key).await;
    let from = |ip: &str| app.get(USERS).key(key).header("X-Forwarded-For", ip).send();
    for _ in 0..5 {
        from("198.51.100.7").await.expect(200);
        from("203.0.113.7").await.refused(403, "API key not authorized from this IP address");
        from("::ffff:198.51.100.8").await.expect(200);
    }
    assert!(app.is_cached(key).await, "the requests used the cached key");
    app.advance(TimeDelta::minutes(59));
    from("198.51.100.7").await.expect(200);
    app.advance(TimeDelta::minutes(1));
    from("198.51.100.7").await.refused(401, "API Key has expired");
    from("203.0.113.7").await.refused(401, "API Key has expired");
    assert!(app.is_cached(key).await, "these requests did, too");
}

#[apply(on_both!)]
async fn every_change_of_a_key_applies_to_the_next_request(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    for _ in 0..10 {
        for (change, expected) in [
            ("deactivate", 401),
            ("delete", 401),
            ("rotate", 401),
            ("scopes", 403),
            ("addresses", 403),
            ("switch", 401),
            ("end", 401),
        ] {
            let (key, id) = app.key(&admin, "read").await;
            let path = format!("{KEYS}/{id}");
            app.wait_until_cached(&key).await;
            let soon = app.state.clock.now() + TimeDelta::milliseconds(300);
            let call = match change {
                "deactivate" => app.act(&format!("{path}/deactivate")),
                "delete" => app.delete(&path),
                "rotate" => app.act(&format!("{path}/rotate")),
                "scopes" => app.patch(&path, json!({"scopes": "write"})),
                "addresses" => app.patch(&path, json!({"allowed_ips": "10.0.0.1"})),
                "switch" => app.patch(&path, json!({"is_active": false})),
                _ => app.patch(&path, json!({"expires_at": soon.to_rfc3339()})),
            };
            let status = call.key(&admin).send().await.status;
            assert!([200, 204].contains(&status), "{change}: {status}");
            if change == "end" {
                app.advance(TimeDelta::seconds(1));
            }
            let answer = app.get("/api/v1/conversations").key(&key).send().await;
            assert_eq!(answer.status, expected, "{change}");
        }
    }
    // A reactivated key is accepted as quickly.
    let (key, id) = app.key(&admin, "read").await;
    for active in [false, true, false, true] {
        let body = json!({"is_active": active});
        app.patch(&format!("{KEYS}/{id}"), body).key(&admin).send().await.expect(200);
        let status = if active { 200 } else { 401 };
        app.get(USERS).key(&key).send().await.expect(status);
        app.wait_until_cached(&key).await;
    }
}

#[apply(on_both!)]
async fn no_revoked_key_is_accepted_again(backend: Backend) {
    const LANES: usize = 8;
    let asked = std::env::var("OCTOPUS_TEST_REVOCATIONS").ok();
    let n = asked.map_or(1_200, |n| n.parse().expect("a number"));
    let app = Arc::new(TestApp::new(&backend).await);
    let keys = app.many_keys(n).await;
    app.wait_until_cached(&keys[0].0).await;
    let (let_in, cached) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut workers = JoinSet::new();
    for worker in keys.chunks(n / LANES) {
        let (app, worker) = (app.clone(), worker.to_vec());
        let (let_in, cached) = (let_in.clone(), cached.clone());
        workers.spawn(async move {
            for (n, (key, id)) in worker.iter().enumerate() {
                assert!(app.is_valid(key).await);
                cached.fetch_add(usize::from(app.is_cached(key).await), Ordering::Relaxed);
                service::deactivate(&app.state, &Origin::HOST, *id).await.unwrap();
                let accepted = if n % 10 == 0 {
                    app.get(USERS).key(key).send().await.status == 200
                } else {
                    app.is_valid(key).await
                };
                let_in.fetch_add(usize::from(accepted), Ordering::Relaxed);
            }
        });
    }
    workers.join_all().await;
    assert_eq!(let_in.load(Ordering::Relaxed), 0, "of {n}");
    let cached = cached.load(Ordering::Relaxed);
    assert!(cached > n / 2, "only {cached} of {n} were in memory, so that it shows little");
}

#[apply(on_both!)]
async fn a_look_up_in_flight_does_not_restore_a_revoked_key(backend: Backend) {
    const ROUNDS: usize = 1_000;
    let app = Arc::new(TestApp::new(&backend).await);
    let keys = app.many_keys(ROUNDS).await;
    app.wait_until_cached(&keys[0].0).await;
    for (round, (key, id)) in keys.into_iter().enumerate() {
        let revoked = Arc::new(AtomicBool::new(false));
        let mut callers = JoinSet::new();
        for caller in 0..2 {
            let (app, key, revoked) = (app.clone(), key.clone(), revoked.clone());
            callers.spawn(async move {
                let mut asked_after = 0;
                while asked_after < 3 {
                    let is_after = revoked.load(Ordering::SeqCst);
                    let let_in = app.is_valid(&key).await;
                    assert!(!(is_after && let_in), "let in after it was revoked");
                    asked_after += usize::from(is_after);
                    // A cached key is returned without yielding to other tasks.
                    yield_now().await;
                    if caller == 0 && !is_after {
                        // Keeps look-ups in flight all the time.
                        app.state.keys.invalidate_all();
                    }
                }
            });
        }
        // At a different moment in each round.
        sleep(Duration::from_micros(u64::try_from(round % 50).unwrap() * 20)).await;
        service::deactivate(&app.state, &Origin::HOST, id).await.unwrap();
        revoked.store(true, Ordering::SeqCst);
        callers.join_all().await;
        assert!(!app.is_valid(&key).await, "round {round}");
    }
}

/// A well-formed key that was never issued, different for each `n`.
fn unknown_key(n: u64) -> String {
    let mut body = PREFIX.to_owned();
    let mut state = n + 1;
    for _ in 0..RANDOM {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let digit = usize::try_from(state >> 33).unwrap() % ALPHABET.len();
        body.push(char::from(ALPHABET[digit]));
    }
    let sum = checksum(body.as_bytes());
    body + &sum
}

#[apply(on_both!)]
async fn unknown_keys_are_not_cached(backend: Backend) {
    let app = Arc::new(TestApp::new(&backend).await);
    let admin = app.admin().await;
    app.wait_until_cached(&admin).await;
    let mut workers = JoinSet::new();
    for worker in 0..4 {
        let app = app.clone();
        workers.spawn(async move {
            for n in 0..5_000 {
                let n = worker * 5_000 + n;
                assert!(app.state.keys.find(&unknown_key(n)).await.unwrap().is_none());
                let other = format!("an-older-key-of-another-length-{n}");
                assert!(app.state.keys.find(&other).await.unwrap().is_none());
            }
        });
    }
    workers.join_all().await;
    assert!(app.state.keys.len() <= 1, "{}", app.state.keys.len());
    app.get(USERS).key(&admin).send().await.expect(200);
}

#[apply(on_sqlite!)]
async fn a_million_malformed_keys_are_not_cached(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    app.wait_until_cached(&admin).await;
    let client = Client { ip: [192, 0, 2, 1].into(), forged_header: false };
    let (now, id) = (app.state.clock.now(), RequestId::of(None));
    let good = unknown_key(0);
    // The table is hidden: a mistyped key is refused before any look-up.
    backend.execute("ALTER TABLE api_keys RENAME TO hidden").await;
    let (keys, db, sessions) = (&app.state.keys, &app.state.db, &app.state.config.sessions);
    let known = Credentials { keys, db, sessions };
    for n in 0..1_000_000_u32 {
        let mistyped = format!("{}{n:06}", &good[..good.len() - 6]);
        if mistyped == good {
            continue;
        }
        let mut headers = HeaderMap::with_capacity(1);
        headers.insert("octopus-api-key", HeaderValue::from_str(&mistyped).unwrap());
        let outcome = authenticate(known, now, &headers, &client, id.clone()).await;
        assert!(matches!(outcome, Ok(Outcome::Invalid { key: None, .. })), "{outcome:?}");
    }
    backend.execute("ALTER TABLE hidden RENAME TO api_keys").await;
    assert!(app.state.keys.len() <= 1, "{}", app.state.keys.len());
}

#[apply(on_sqlite!)]
async fn the_cache_holds_a_limited_number_of_keys(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let keys = app.many_keys(12_000).await;
    for (key, _) in &keys {
        assert!(app.is_valid(key).await);
    }
    for _ in 0..100 {
        // Entries above the limit are evicted a moment later.
        app.is_valid(&keys[0].0).await;
        if app.state.keys.len() <= 10_000 {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    let len = app.state.keys.len();
    assert!((1..=10_000).contains(&len), "{len}");
}
