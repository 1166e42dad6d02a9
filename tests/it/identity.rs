//! Usernames and emails: equal spellings, refused ones, and compatibility with stored names.

use crate::support::{Backend, TestApp};
use chrono::TimeDelta;
use octopus::db::query;
use octopus::features::users;
use serde_json::{Value, json};

const USERS: &str = "/api/v1/users";
const TAKEN: &str = "Email or username already registered";
const LOOKS_ALIKE: &str = "The username looks like that of another user: choose another";
const HELD: &str = "This username was released less than 30 days ago: choose another";
const PASSWORD: &str = "correct horse battery";

/// The outcome of registering a name next to a similar one.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// 400: the same name.
    Same,
    /// 422: an invalid name.
    Refused,
    /// 400: a look-alike of the name.
    LookAlike,
    /// 201: a different name.
    Other,
}
use Outcome::{LookAlike, Other, Refused, Same};

fn body(username: &str, email: &str) -> Value {
    json!({"email": email, "username": username, "password": PASSWORD})
}

#[apply(on_both!)]
async fn spellings_of_a_username_are_the_same_name_or_refused(backend: Backend) {
    let app = TestApp::new(&backend).await;
    for name in ["ada", "José", "ace", "Straße", "шапка", "日本"] {
        app.user(name).await;
    }
    for (index, (name, outcome)) in [
        ("ada\u{200b}", Refused),  // zero width space
        ("a\u{ad}da", Refused),    // soft hyphen
        ("\u{202e}ada", Refused),  // right-to-left override
        ("\u{feff}ada", Refused),  // byte order mark
        ("ada\u{2060}", Refused),  // word joiner
        ("ada\u{34f}", Refused),   // combining grapheme joiner
        ("ada\u{fe0f}", Refused),  // variation selector
        ("ada\u{e0041}", Refused), // tag
        ("ada\u{200d}", Refused),  // zero width joiner
        ("\u{3164}", Refused),     // hangul filler
        ("ada\u{a0}", Refused),    // no-break space
        ("ada lovelace", Refused),
        ("ada\u{3000}x", Refused),            // ideographic space
        ("\u{430}da", Refused),               // Cyrillic а: mixed scripts
        ("\u{430}\u{501}\u{430}", LookAlike), // Cyrillic аԁа
        ("\u{430}\u{441}\u{435}", LookAlike), // Cyrillic асе, like ace
        ("\u{ff21}\u{ff24}\u{ff21}", Same),   // fullwidth ADA
        ("\u{ff41}da", Same),                 // one fullwidth letter
        ("ADA", Same),
        ("Jose\u{301}", Same), // José, decomposed
        ("JOS\u{c9}", Same),
        ("Jos\u{435}", Refused), // Cyrillic е
        ("STRASSE", Same),
        ("STRA\u{1e9e}E", LookAlike), // capital sharp s
        ("ШАПКА", Same),
        ("шаnка", Refused),     // Latin n
        ("\u{fb01}n", Refused), // the ligature fi
        ("x\u{b2}", Refused),   // superscript two
        ("\u{2167}", Refused),  // the Roman numeral eight
        ("\u{1f600}", Refused),
        ("a\u{ff20}b", Refused), // fullwidth @
        ("\u{202a}\u{202c}", Refused),
        ("adа", Refused),
        ("jose", Other),
        ("a.d-a_1'+", Other),
        ("日本abc", Other),
        ("ユーザー", Other),
        ("שלום", Other),
        ("ᏣᎳᎩ", Other),
        ("Zoë", Other),
        ("l1l", Other),
        ("lll", Other), // look-alikes in ASCII are other names
    ]
    .into_iter()
    .enumerate()
    {
        let answer = app.post(USERS, body(name, &format!("{index}@example.org"))).send().await;
        match outcome {
            Same => answer.refused(400, TAKEN),
            LookAlike => answer.refused(400, LOOKS_ALIKE),
            Refused => answer.invalid(&["body.username"]),
            Other => drop(answer.expect(201)),
        }
    }
}

#[apply(on_both!)]
async fn spellings_of_an_email_are_the_same_email_or_refused(backend: Backend) {
    let app = TestApp::new(&backend).await;
    for (index, email) in
        ["ada@b\u{fc}cher.example", "jos\u{e9}@example.com", "ada@example.com"].iter().enumerate()
    {
        app.post(USERS, body(&format!("first{index}"), email)).send().await.expect(201);
    }
    for (index, (email, outcome)) in [
        ("ada@xn--bcher-kva.example", Same),
        ("ADA@B\u{dc}CHER.EXAMPLE", Same),
        ("ada@bu\u{308}cher.example", Same), // decomposed
        ("ada@XN--BCHER-KVA.example", Same),
        (" ada@example.com\n", Same),
        ("ada@\u{ff45}xample.com", Same),
        ("jose\u{301}@example.com", Same),
        ("\u{ff41}da@example.com", Same),
        ("ada\u{200b}@example.com", Refused),
        ("a\u{ad}da@example.com", Refused),
        ("\u{202e}ada@example.com", Refused),
        ("ada@example.com\u{200b}", Same), // UTS 46 ignores it in domains
        ("ada@xn--a.example", Refused),    // no Punycode
        ("ada\u{ff20}example.com", Refused),
        ("\u{430}da@example.com", Other), // Cyrillic а: nothing is compared by looks
        ("ada@bucher.example", Other),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = app.post(USERS, body(&format!("user{index}"), email)).send().await;
        match outcome {
            Same | LookAlike => answer.refused(400, TAKEN),
            Refused => answer.invalid(&["body.email"]),
            Other => drop(answer.expect(201)),
        }
    }
}

#[apply(on_both!)]
async fn names_are_stored_in_one_form(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let sent = body("\u{ff2a}ose\u{301}", " Jose\u{301}@B\u{fc}cher.Example ");
    let user = app.post(USERS, sent).send().await.expect(201);
    assert_eq!(user["username"], "Jos\u{e9}");
    assert_eq!(user["email"], "Jos\u{e9}@xn--bcher-kva.example");
    // Other spellings of what a user has are no change: a change of the email takes an admin key.
    let admin = app.admin().await;
    let (write, _) = app.key(&admin, "read,write").await;
    let path = format!("{USERS}/{}", user["id"]);
    let same = json!({"username": "Jose\u{301}", "email": "Jose\u{301}@b\u{fc}cher.example"});
    let after = app.put(&path, same).key(&write).send().await.expect(200);
    assert_eq!((&after["username"], &after["email"]), (&user["username"], &user["email"]));
}

async fn log_in(app: &TestApp, name: Value) -> u16 {
    let mut body = name;
    body["password"] = json!(PASSWORD);
    app.post("/api/v1/users/login", body).send().await.status
}

#[apply(on_both!)]
async fn every_spelling_signs_in_and_is_found(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.post(USERS, body("Jos\u{e9}", "jos\u{e9}@b\u{fc}cher.example")).send().await.expect(201);
    for name in ["jos\u{e9}", "Jose\u{301}", "\u{ff2a}OSE\u{301}"] {
        assert_eq!(log_in(&app, json!({"username": name})).await, 200, "{name}");
        let path = format!("{USERS}/username/{name}");
        assert_eq!(app.get(&path).send().await.expect(200)["username"], "Jos\u{e9}");
    }
    for email in ["jose\u{301}@xn--bcher-kva.example", " JOS\u{c9}@B\u{dc}cher.example"] {
        assert_eq!(log_in(&app, json!({"email": email})).await, 200, "{email}");
    }
    assert_eq!(log_in(&app, json!({"username": "jose"})).await, 401);
}

#[apply(on_both!)]
async fn every_spelling_names_a_participant(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let sent = body("Jos\u{e9}", "jose@example.com");
    let user = app.post(USERS, sent).send().await.expect(201)["id"].clone();
    let admin = app.admin().await;
    let (key, _) = app.key(&admin, "read,write").await;
    let spellings = ["JOS\u{c9}", "Jose\u{301}", "\u{ff2a}OSE\u{301}"];
    let body = json!({"participant_usernames": spellings});
    let conversation = app.post("/api/v1/conversations", body).key(&key).send().await.expect(201);
    assert_eq!(conversation["participants"].as_array().unwrap().len(), 1);
    assert_eq!(conversation["participants"][0]["id"], user);
    for name in spellings {
        let empty = app.conversation(&key, &[]).await;
        let path = format!("/api/v1/conversations/{empty}/participants");
        let joined = app.post(&path, json!({"username": name})).key(&key).send().await;
        assert_eq!(joined.expect(201)["participants"][0]["id"], user, "{name}");
    }
}

#[apply(on_both!)]
async fn spellings_of_a_name_share_one_limit_of_sign_ins(backend: Backend) {
    let app = TestApp::with(&backend, &[("RATE_LIMIT_LOGIN_PER_MINUTE", "3")]).await;
    app.user("ada").await;
    let mut statuses = vec![];
    for name in ["ada", "\u{ff41}da", "a\u{ff44}a", "ad\u{ff41}", "ada\u{200b}"] {
        let body = json!({"username": name, "password": "not the password"});
        statuses.push(app.post("/api/v1/users/login", body).send().await.status);
    }
    assert_eq!(statuses, [401, 401, 401, 429, 429]);
}

#[apply(on_both!)]
async fn look_alikes_of_another_script_are_refused_in_either_order(backend: Backend) {
    let app = TestApp::new(&backend).await;
    // Cyrillic ВОВ looks like BOB, but only in capital letters.
    app.user("bob").await;
    let cyrillic = "\u{412}\u{41e}\u{412}";
    let answer = app.post(USERS, body(cyrillic, "x@example.com")).send().await;
    answer.refused(400, LOOKS_ALIKE);
    // The Cyrillic name асе is registered first.
    app.post(USERS, body("\u{430}\u{441}\u{435}", "y@example.com")).send().await.expect(201);
    app.post(USERS, body("ace", "z@example.com")).send().await.refused(400, LOOKS_ALIKE);
    // Renaming follows the same rule.
    let admin = app.admin().await;
    let id = app.user("carol").await;
    let answer = app.put(&format!("{USERS}/{id}"), json!({"username": "ACE"})).key(&admin).send();
    answer.await.refused(400, LOOKS_ALIKE);
}

/// Inserts a user as versions before these rules did; returns the id.
async fn store(app: &TestApp, username: &str, email: &str) -> i64 {
    const SQL: &str = "INSERT INTO users (email, email_key, username, username_key, password_hash, \
        created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $6) RETURNING id";
    let folded = octopus::core::text::folded;
    let hash = app.state.passwords.hash(PASSWORD.to_owned()).await.unwrap();
    let mut tx = app.state.db.begin().await.unwrap();
    let statement = query(&mut tx, SQL).bind(email).bind(folded(email)).bind(username);
    let statement = statement.bind(folded(username)).bind(hash).bind(app.state.clock.now());
    let (id,): (i64,) = statement.one().await.unwrap();
    tx.commit().await.unwrap();
    id
}

/// Stops the server and starts another on the same database.
async fn restart(app: TestApp, backend: &Backend) -> TestApp {
    app.stop().await.unwrap();
    TestApp::new(backend).await
}

#[apply(on_both!)]
async fn names_stored_before_the_rules_keep_working(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let names = [
        ("Ada Lovelace", "ada@b\u{fc}cher.example"),
        ("\u{1f600}", "odd@localhost"),
        ("b\u{200b}ob", "b\u{200b}ob@example.com"),
        ("\u{ff5a}oe", "zoe@example.com"),
        ("Jose\u{301}", "jose\u{301}@example.com"),
        ("m\u{430}x", "max@example.com"),
    ];
    let mut ids = vec![];
    for (username, email) in names {
        ids.push(store(&app, username, email).await);
    }
    let app = restart(app, &backend).await;
    for ((username, email), id) in names.into_iter().zip(ids) {
        assert_eq!(log_in(&app, json!({"username": username})).await, 200, "{username}");
        assert_eq!(log_in(&app, json!({"email": email})).await, 200, "{email}");
        let path = format!("{USERS}/{id}");
        let mut user = app.get(&path).key(&admin).send().await.expect(200);
        assert_eq!((&user["username"], &user["email"]), (&json!(username), &json!(email)));
        // A key that cannot change emails can send back the whole user with another field changed.
        let (write, _) = app.key(&admin, "read,write").await;
        user["full_name"] = json!("changed");
        let after = app.put(&path, user).key(&write).send().await.expect(200);
        assert_eq!((&after["username"], &after["email"]), (&json!(username), &json!(email)));
        assert_eq!(after["full_name"], "changed");
    }
    // New names follow the rules, and spellings of the old names are taken.
    for (username, email) in
        [("zoe", "1@example.com"), ("bob", "2@example.com"), ("a3", "ada@xn--bcher-kva.example")]
    {
        app.post(USERS, body(username, email)).send().await.refused(400, TAKEN);
    }
    assert_eq!(log_in(&app, json!({"username": "jos\u{e9}"})).await, 200);
}

#[apply(on_both!)]
async fn names_that_collide_under_the_new_key_keep_their_owners(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let names = ["ada", "\u{ff41}da", "ada\u{200b}"];
    let mut ids = vec![];
    for (index, name) in names.into_iter().enumerate() {
        ids.push(store(&app, name, &format!("{index}@example.com")).await);
    }
    let app = restart(app, &backend).await;
    // Each user is found by the exact stored name; other spellings find the oldest user.
    for (name, id) in [
        ("ada", ids[0]),
        ("ADA", ids[0]),
        (names[1], ids[1]),
        (names[2], ids[2]),
        ("a\u{ff44}a", ids[0]),
    ] {
        let found = app.get(&format!("{USERS}/username/{name}")).send().await.expect(200);
        assert_eq!(found["id"], id, "{name}");
        assert_eq!(log_in(&app, json!({"username": name})).await, 200);
    }
    // The name stays taken as long as one of them has it, also for these users.
    for id in &ids[..2] {
        let path = format!("{USERS}/{id}");
        let renamed = app.put(&path, json!({"username": format!("free{id}")})).key(&admin).send();
        renamed.await.expect(200);
        app.post(USERS, body("ada", "new@example.com")).send().await.refused(400, TAKEN);
    }
    let path = format!("{USERS}/{}", ids[2]);
    app.put(&path, json!({"username": "ada"})).key(&admin).send().await.refused(400, HELD);
}

#[apply(on_both!)]
async fn the_key_of_a_name_changed_by_an_earlier_version_is_recomputed(backend: Backend) {
    const RENAME: &str = "UPDATE users SET username = 'grace', username_key = 'grace', \
        email = 'g@example.com', email_key = 'g@example.com'";
    let app = TestApp::new(&backend).await;
    app.user("ada").await;
    let mut tx = app.state.db.begin().await.unwrap();
    query(&mut tx, RENAME).execute().await.unwrap();
    tx.commit().await.unwrap();
    let app = restart(app, &backend).await;
    for (name, status) in [("ada", 401), ("grace", 200), ("\u{ff47}race", 200)] {
        assert_eq!(log_in(&app, json!({"username": name})).await, status, "{name}");
    }
    assert_eq!(log_in(&app, json!({"email": "g@example.com"})).await, 200);
    assert_eq!(log_in(&app, json!({"email": "ada@example.com"})).await, 401);
}

#[apply(on_both!)]
async fn a_released_username_is_held_for_its_former_user(backend: Backend) {
    const RELEASED: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM released_usernames";
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (ada, ben) = (app.user("ada").await, app.user("ben").await);
    let rename = async |id: i64, name: &str| {
        let path = format!("{USERS}/{id}");
        app.put(&path, json!({"username": name})).key(&admin).send().await
    };
    // A change of case does not release the name.
    rename(ada, "ADA").await.expect(200);
    assert_eq!(app.number(RELEASED).await, 0);
    rename(ada, "countess").await.expect(200);
    for name in ["ada", "Ada", "\u{ff41}da"] {
        app.post(USERS, body(name, "new@example.com")).send().await.refused(400, HELD);
        rename(ben, name).await.refused(400, HELD);
    }
    // A refused change has no effect.
    app.get(&format!("{USERS}/username/ben")).send().await.expect(200);
    rename(ada, "ada").await.expect(200);
    assert_eq!(app.number(RELEASED).await, 1, "countess alone");
    app.delete(&format!("{USERS}/{ada}")).key(&admin).send().await.expect(204);
    app.post(USERS, body("ada", "new@example.com")).send().await.refused(400, HELD);
    app.advance(TimeDelta::days(30) - TimeDelta::minutes(1));
    app.post(USERS, body("ada", "new@example.com")).send().await.refused(400, HELD);
    users::forget_old(&app.state).await.unwrap();
    assert_eq!(app.number(RELEASED).await, 2);
    app.advance(TimeDelta::minutes(2));
    app.post(USERS, body("ada", "new@example.com")).send().await.expect(201);
    users::forget_old(&app.state).await.unwrap();
    assert_eq!(app.number(RELEASED).await, 0);
}

/// A rename races registrations: the name is either taken or held.
#[apply(on_both!)]
async fn a_released_username_cannot_be_taken_in_a_race(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let id = app.user("ada").await;
    let path = format!("{USERS}/{id}");
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..16 {
        tasks.spawn(app.post(USERS, body("ada", &format!("{n}@example.org"))).send());
    }
    app.put(&path, json!({"username": "countess"})).key(&admin).send().await.expect(200);
    for answer in tasks.join_all().await {
        let detail = answer["detail"].as_str().unwrap_or_default().to_owned();
        assert!([TAKEN, HELD].contains(&&*detail), "{}", answer.text);
    }
}

#[apply(on_both!)]
async fn a_password_reset_ends_when_the_email_changes(backend: Backend) {
    const OTHER: &str = "ada@example.org";
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let id = app.user("ada").await;
    let path = format!("{USERS}/{id}");
    let issue = async || {
        let answer = app.act(&format!("{path}/password-reset")).key(&admin).send().await;
        answer.expect(201)["token"].as_str().unwrap().to_owned()
    };
    let spend = async |token: &str| {
        let body = json!({"token": token, "new_password": "another good phrase"});
        app.post(&format!("{USERS}/password-reset"), body).send().await
    };
    // Changed by an administrator.
    let token = issue().await;
    app.put(&path, json!({"email": OTHER})).key(&admin).send().await.expect(200);
    spend(&token).await.refused(400, "Invalid or expired token");
    // Changed by the user.
    let session = app.login("ada").await;
    let token = issue().await;
    let change = json!({"email": "ada@example.net", "current_password": PASSWORD});
    app.put(&format!("{USERS}/me"), change).session(&session).send().await.expect(200);
    spend(&token).await.refused(400, "Invalid or expired token");
    // Another spelling of the same email does not count as a change.
    let token = issue().await;
    app.put(&path, json!({"email": " ada@EXAMPLE.net", "full_name": "Ada"}))
        .key(&admin)
        .send()
        .await;
    spend(&token).await.expect(204);
}

#[apply(on_both!)]
async fn at_most_ten_released_usernames_are_held_for_one_user(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.user("ada").await;
    let session = app.login("ada").await;
    let rename = async |name: &str| {
        app.put(&format!("{USERS}/me"), json!({"username": name})).session(&session).send().await
    };
    for n in 0..10 {
        rename(&format!("name{n}")).await.expect(200);
    }
    let refused = "This user released 10 usernames within 30 days: take one of them back, or wait";
    rename("another").await.refused(400, refused);
    app.post(USERS, body("ada", "other@example.com")).send().await.refused(400, HELD);
    app.post(USERS, body("another", "another@example.com")).send().await.expect(201);
    app.advance(TimeDelta::days(31));
    let session = app.login("name9").await;
    let me = app.put(&format!("{USERS}/me"), json!({"username": "later"}));
    me.session(&session).send().await.expect(200);
}
