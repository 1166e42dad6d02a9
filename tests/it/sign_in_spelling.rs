//! Signing in forgives what users do not see: how a keyboard composes letters and spaces in a
//! password, and blanks around a name.

use crate::support::{Answer, Backend, TestApp};
use argon2::{Argon2, PasswordHasher};
use serde_json::{Value, json};
use unicode_normalization::UnicodeNormalization;

const USERS: &str = "/api/v1/users";
const LOGIN: &str = "/api/v1/users/login";
const ME: &str = "/api/v1/users/me";
const PLAIN: &str = "correct horse battery";
const INCORRECT: &str = "Incorrect email or password";
/// As typed on macOS, with a no-break space.
const DECOMPOSED: &str = "Gru\u{308}n\u{a0}e\u{301}t Hano\u{302}\u{323}i";
/// As typed on Windows.
const COMPOSED: &str = "Gr\u{fc}n \u{e9}t Han\u{1ed9}i";

async fn register(app: &TestApp, password: &str) -> Answer {
    let body = json!({"username": "ada", "email": "ada@example.com", "password": password});
    app.post(USERS, body).send().await
}

async fn log_in(app: &TestApp, password: &str) -> Answer {
    app.post(LOGIN, json!({"username": "ada", "password": password})).send().await
}

#[apply(on_both!)]
async fn a_password_is_accepted_as_any_keyboard_composes_it(backend: Backend) {
    for hasher in ["argon2id", "bcrypt"] {
        let variables = [("RATE_LIMIT_ENABLED", "false"), ("PASSWORD_HASHER", hasher)];
        let app = TestApp::with(&backend, &variables).await;
        for (set, typed) in
            [(DECOMPOSED, COMPOSED), (COMPOSED, DECOMPOSED), (DECOMPOSED, DECOMPOSED)]
        {
            backend.execute("DELETE FROM users").await;
            backend.execute("DELETE FROM released_usernames").await;
            register(&app, set).await.expect(201);
            log_in(&app, typed).await.expect(200);
            // Letters without their marks, and another case, are other passwords.
            for wrong in ["Grun et Hanoi", &typed.to_uppercase(), &format!(" {typed}")] {
                log_in(&app, wrong).await.refused(401, INCORRECT);
            }
        }
        app.stop().await.unwrap();
    }
}

#[apply(on_both!)]
async fn each_way_to_set_or_confirm_a_password_composes_it(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let user = format!("{USERS}/{}", app.user("ada").await);
    for way in ["PUT user", "PATCH user", "PUT me", "PATCH me", "reset"] {
        app.put(&user, json!({"password": PLAIN})).key(&admin).send().await.expect(200);
        let session = app.login("ada").await;
        let own = json!({"password": DECOMPOSED, "current_password": PLAIN});
        let any = json!({"password": DECOMPOSED});
        let status = match way {
            "PUT user" => app.put(&user, any).key(&admin).send().await.status,
            "PATCH user" => app.patch(&user, any).key(&admin).send().await.status,
            "PUT me" => app.put(ME, own).session(&session).send().await.status,
            "PATCH me" => app.patch(ME, own).session(&session).send().await.status,
            _ => {
                let issue = app.act(&format!("{user}/password-reset")).key(&admin);
                let token = issue.send().await.expect(201)["token"].clone();
                let body = json!({"token": token, "new_password": DECOMPOSED});
                app.post("/api/v1/users/password-reset", body).send().await.status
            }
        };
        assert!([200, 204].contains(&status), "{way}: {status}");
        let session = log_in(&app, COMPOSED).await.expect(200)["access_token"].clone();
        let body =
            json!({"email": format!("{}@example.com", way.len()), "current_password": COMPOSED});
        let confirmed = app.patch(ME, body).session(session.as_str().unwrap()).send().await;
        assert_eq!(confirmed.status, 200, "{way}: {}", confirmed.text);
    }
}

#[apply(on_both!)]
async fn a_hash_from_before_the_normalization_still_accepts_its_password(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.user("ada").await;
    let argon2 = |text: &str| Argon2::default().hash_password(text.as_bytes()).unwrap().to_string();
    for text in [DECOMPOSED, COMPOSED, "tab\tand \u{200b}nothing", "new\nline", PLAIN] {
        // `$2b$04$` makes bcrypt fast.
        for hash in [argon2(text), bcrypt::hash(text, 4).unwrap()] {
            backend.execute(format!("UPDATE users SET password_hash = '{hash}'")).await;
            log_in(&app, &format!("{text}x")).await.refused(401, INCORRECT);
            log_in(&app, text).await.expect(200);
        }
    }
    // The raw text is compared as well, but no other spelling of it.
    let hash = argon2(DECOMPOSED);
    backend.execute(format!("UPDATE users SET password_hash = '{hash}'")).await;
    log_in(&app, COMPOSED).await.refused(401, INCORRECT);
}

#[apply(on_both!)]
async fn the_length_of_a_password_is_that_of_its_composed_form(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let letters = ['é', 'à', 'ü', 'ñ', 'ô', 'ç', 'ê', 'ï', 'å', 'ö', 'ž'];
    let password = |n: usize| letters.iter().copied().cycle().take(n).nfd().collect::<String>();
    assert_eq!(password(128).chars().count(), 256);
    for refused in [7, 129, 600] {
        register(&app, &password(refused)).await.invalid(&["body.password"]);
    }
    register(&app, &password(128)).await.expect(201);
    let composed: String = password(128).nfc().collect();
    for typed in [&password(128), &composed] {
        log_in(&app, typed).await.expect(200);
    }
}

#[apply(on_both!)]
async fn blanks_around_a_name_do_not_count_and_those_inside_do(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.user("ada").await;
    let login =
        |field: &str, name: &str| app.post(LOGIN, json!({field: name, "password": PLAIN})).send();
    let blanks = [" ", "  ", "\t", "\n", "\r\n", "\u{a0}", "\u{3000}"];
    for (field, name) in [("username", "ada"), ("email", "ada@example.com")] {
        for blank in blanks {
            for spelled in [
                format!("{blank}{name}"),
                format!("{name}{blank}"),
                format!("{blank}{name}{blank}"),
            ] {
                let answer = login(field, &spelled).await;
                assert_eq!(answer.status, 200, "{field} {spelled:?}: {}", answer.text);
            }
        }
        let inside = name.replacen('d', "d ", 1);
        login(field, &inside).await.refused(401, INCORRECT);
    }
    for empty in ["", " ", "\u{3000}\n"] {
        login("username", empty).await.refused(401, INCORRECT);
        login("email", empty).await.refused(401, INCORRECT);
    }
    let long = format!(" {} ", "x".repeat(100));
    login("username", &long).await.refused(401, INCORRECT);
    login("username", &format!("{long}y")).await.invalid(&["body.username"]);
    // They belong to a password.
    let body = json!({"username": "ada", "password": format!("{PLAIN} ")});
    app.post(LOGIN, body).send().await.refused(401, INCORRECT);
}

#[apply(on_both!)]
async fn a_name_with_blanks_shares_the_rate_limit_of_the_name(backend: Backend) {
    let app = TestApp::with(&backend, &[("RATE_LIMIT_LOGIN_PER_MINUTE", "2")]).await;
    app.user("ada").await;
    let wrong = |name: &str| app.post(LOGIN, json!({"username": name, "password": "wrong"})).send();
    for name in ["ada", " ada"] {
        wrong(name).await.refused(401, INCORRECT);
    }
    for name in ["ada", "ada ", "\tADA"] {
        wrong(name).await.expect(429);
    }
}

#[apply(on_both!)]
async fn a_registration_trims_an_email_and_refuses_blanks_in_a_username(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let body = |username: &str, email: &str| -> Value {
        json!({"username": username, "email": email, "password": PLAIN})
    };
    let answer = app.post(USERS, body(" ada", "ada@example.com")).send().await;
    answer.invalid(&["body.username"]);
    let user = app.post(USERS, body("ada", " ada@example.com\n")).send().await.expect(201);
    assert_eq!(user["email"], "ada@example.com");
}

#[apply(on_both!)]
async fn a_reset_token_may_have_blanks_around_it(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let user = format!("{USERS}/{}", app.user("ada").await);
    let issued = app.act(&format!("{user}/password-reset")).key(&admin).send().await.expect(201);
    let token = format!(" {}\r\n", issued["token"].as_str().unwrap());
    let body = json!({"token": token, "new_password": "another good password"});
    app.post("/api/v1/users/password-reset", body).send().await.expect(204);
    log_in(&app, "another good password").await.expect(200);
}
