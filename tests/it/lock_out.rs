//! Address lists of keys: no caller can lock itself out, and an invalid stored list denies all
//! addresses.

use crate::support::{Answer, Backend, Call, TestApp};
use serde_json::{Value, json};

const KEYS: &str = "/api/v1/api-keys";
const USERS: &str = "/api/v1/users";
const NOT_FROM_HERE: &str = "API key not authorized from this IP address";

fn patch(app: &TestApp, key: &str, id: i64, body: Value) -> Call {
    app.patch(&format!("{KEYS}/{id}"), body).key(key)
}

async fn get(app: &TestApp, key: &str, id: i64) -> Value {
    app.get(&format!("{KEYS}/{id}")).key(key).send().await.expect(200)
}

/// Asserts that `answer` refuses a list without `ip`.
#[track_caller]
fn locks_out(answer: Answer, ip: &str) {
    let detail = format!(
        "Your own address {ip} is not in allowed_ips: you would lock out the API key you're \
         currently using"
    );
    answer.refused(409, &detail);
}

#[apply(on_both!)]
async fn a_key_cannot_lock_itself_out(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let before = get(&app, &admin, 1).await;
    let logs = "SELECT CAST(COUNT(*) AS BIGINT) FROM api_key_audit_logs";
    let logged = app.number(logs).await;
    for list in
        ["10.0.0.1", "127.0.0.2,128.0.0.0/8", "::1", "2001:db8::/32", "::ffff:127.0.0.2", "::/0"]
    {
        let body = json!({"allowed_ips": list, "name": "another"});
        locks_out(patch(&app, &admin, 1, body).send().await, "127.0.0.1");
    }
    let mut after = get(&app, &admin, 1).await;
    for field in ["last_used_at", "last_used_ip"] {
        after[field] = before[field].clone();
    }
    assert_eq!((after, app.number(logs).await), (before, logged));
}

#[apply(on_both!)]
async fn a_list_with_the_caller_s_address_is_accepted(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    for (list, shown) in [
        ("127.0.0.1", "127.0.0.1"),
        ("10.0.0.1, 127.0.0.0/8", "10.0.0.1,127.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("::ffff:127.0.0.0/104", "127.0.0.0/8"),
        ("2001:db8::1,127.0.0.0/31", "2001:db8::1,127.0.0.0/31"),
    ] {
        // A key cannot widen its own list, so each list is set on a new key.
        let (own, id) = app.key(&admin, "admin").await;
        let changed = patch(&app, &own, id, json!({"allowed_ips": list})).send().await;
        assert_eq!(changed.expect(200)["allowed_ips"], shown);
        app.get(USERS).key(&own).send().await.expect(200);
        patch(&app, &own, id, json!({"name": "no list, no matter"})).send().await.expect(200);
    }
}

#[apply(on_both!)]
async fn behind_a_proxy_the_list_must_contain_the_forwarded_address(backend: Backend) {
    let app = TestApp::with(&backend, &[("TRUSTED_PROXIES", "127.0.0.1")]).await;
    let admin = app.admin().await;
    let from = |list: &str, ip: &str| {
        patch(&app, &admin, 1, json!({"allowed_ips": list})).header("X-Forwarded-For", ip)
    };
    locks_out(from("127.0.0.1", "198.51.100.7").send().await, "198.51.100.7");
    // In any notation of the address.
    locks_out(from("127.0.0.1", "::ffff:198.51.100.7").send().await, "198.51.100.7");
    locks_out(from("198.51.100.7", "203.0.113.1, 2001:DB8:0::7").send().await, "2001:db8::7");
    from("198.51.100.0/24,2001:db8::/32", "::ffff:198.51.100.7").send().await.expect(200);
    from("2001:db8::/32,198.51.100.7", "198.51.100.7").send().await.expect(200);
    from("2001:db8::7", "2001:db8::7").send().await.expect(200);
    let there = app.get(USERS).key(&admin).header("X-Forwarded-For", "2001:db8::7");
    there.send().await.expect(200);
    app.get(USERS).key(&admin).send().await.refused(403, NOT_FROM_HERE);
}

#[apply(on_both!)]
async fn other_keys_can_be_locked_out(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (other, id) = app.key(&admin, "admin").await;
    app.get(USERS).key(&other).send().await.expect(200);
    patch(&app, &admin, id, json!({"allowed_ips": "10.0.0.1"})).send().await.expect(200);
    app.get(USERS).key(&other).send().await.refused(403, NOT_FROM_HERE);
    // The locked-out key cannot change its own list.
    let itself = patch(&app, &other, id, json!({"allowed_ips": null}));
    itself.send().await.refused(403, NOT_FROM_HERE);
    let body = json!({"name": "from elsewhere", "allowed_ips": "10.0.0.1"});
    app.post(KEYS, body).key(&admin).send().await.expect(201);
}

#[apply(on_both!)]
async fn null_removes_the_list(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (other, id) = app.key(&admin, "read").await;
    for list in [json!("10.0.0.1"), json!(null)] {
        let status = if list.is_null() { 200 } else { 403 };
        let changed = patch(&app, &admin, id, json!({"allowed_ips": list})).send().await;
        assert_eq!(changed.expect(200)["allowed_ips"], list);
        app.get(USERS).key(&other).send().await.expect(status);
    }
    // A key can only narrow its own list; a key without a list can remove it.
    let (unbounded, _) = app.key(&admin, "admin").await;
    for (key, list, status) in [
        (&admin, json!("127.0.0.1"), 200),
        (&admin, json!(null), 403),
        (&unbounded, json!(null), 200),
    ] {
        patch(&app, key, 1, json!({"allowed_ips": list})).send().await.expect(status);
    }
    let own = app.get("/api/v1/api-keys/me").key(&admin).send().await.expect(200);
    assert_eq!(own["allowed_ips"], json!(null));
}

#[apply(on_both!)]
async fn an_invalid_entry_is_named(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (_, id) = app.key(&admin, "read").await;
    let none = "is not an IP address or network";
    for (list, named) in [
        ("", "the list is empty"),
        (" , ,", "the list is empty"),
        ("127.0.0.1,example.com", "'example.com'"),
        ("127.0.0.1,10.0.0.256,nonsense", "'10.0.0.256'"),
        ("127.0.0.1,10.0.0.0/33", "'10.0.0.0/33'"),
        ("127.0.0.1,10.0.0.0/-1", "'10.0.0.0/-1'"),
        ("127.0.0.1,::1/129", "'::1/129'"),
        ("127.0.0.1,fe80::1%eth0", "'fe80::1%eth0'"),
        ("127.0.0.1,127.1", "'127.1'"),
        ("127.0.0.1;10.0.0.1", "'127.0.0.1;10.0.0.1'"),
        ("127.0.0.1/8", "did you mean 127.0.0.0/8?"),
        ("127.0.0.1,2001:db8::1/32", "did you mean 2001:db8::/32?"),
    ] {
        for target in [1, id] {
            let answer = patch(&app, &admin, target, json!({"allowed_ips": list})).send().await;
            let text = answer.text.clone();
            assert!(text.contains(named), "{list}: {text}");
            assert!(!named.starts_with('\'') || text.contains(none), "{list}: {text}");
            answer.invalid(&["body.allowed_ips"]);
        }
        let body = json!({"name": "n", "allowed_ips": list});
        app.post(KEYS, body).key(&admin).send().await.invalid(&["body.allowed_ips"]);
    }
    for wrong in [json!(1), json!(["127.0.0.1"]), json!(true), json!({})] {
        let answer = patch(&app, &admin, id, json!({"allowed_ips": wrong})).send().await;
        answer.invalid(&["body.allowed_ips"]);
    }
    assert_eq!(get(&app, &admin, 1).await["allowed_ips"], json!(null));
    assert_eq!(get(&app, &admin, id).await["allowed_ips"], json!(null));
}

#[apply(on_both!)]
async fn a_list_has_at_most_a_hundred_entries(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let list = |n: usize| {
        let entries = (1..=n).map(|n| format!("127.0.{}.{}", n / 200, n % 200));
        entries.collect::<Vec<_>>().join(",")
    };
    let set = async |list: &str| patch(&app, &admin, 1, json!({"allowed_ips": list})).send().await;
    for n in [101, 102, 600] {
        let answer = set(&list(n)).await;
        assert!(answer.text.contains("more than 100 entries"), "{}", answer.text);
        answer.invalid(&["body.allowed_ips"]);
    }
    assert_eq!(set(&list(100)).await.expect(200)["allowed_ips"], list(100));
    // Duplicates are counted once.
    let twice = format!("{},{},127.0.0.1", list(100), list(100));
    assert_eq!(set(&twice).await.expect(200)["allowed_ips"], list(100));
}

#[apply(on_both!)]
async fn an_invalid_stored_list_denies_all_addresses(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (key, id) = app.key(&admin, "read").await;
    for list in ["", ",", "nonsense", "127.0.0.1,nonsense", "127.0.0.1/8", "0.0.0.0/0 "] {
        app.get(USERS).key(&key).send().await.expect(200);
        backend
            .execute(format!("UPDATE api_keys SET allowed_ips = '{list}' WHERE id = {id}"))
            .await;
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
        let expected = if list.ends_with("/0 ") { 200 } else { 403 };
        app.get(USERS).key(&key).send().await.expect(expected);
        // An admin can view the list, cannot copy it by rotation, and can replace it.
        assert_eq!(get(&app, &admin, id).await["allowed_ips"], list);
        if expected == 403 {
            let rotate = app.act(&format!("{KEYS}/{id}/rotate")).key(&admin);
            rotate.send().await.expect(409);
        }
        let mend = patch(&app, &admin, id, json!({"allowed_ips": null}));
        mend.send().await.expect(200);
    }
}
