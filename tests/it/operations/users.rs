//! The operations of users.

use super::{ADMIN, PAGE, Row, World};
use crate::support::operations::Needs::{Nothing, Scope, User};
use serde_json::{Value, json};

/// The password with the slowest strength estimation found so far: each character can substitute
/// several letters.
const SLOWEST_PASSWORD: &str = "4@8({[<3691!|10$5+7%24@8";

macro_rules! users {
    ($rest:literal) => {
        concat!("/api/v1/users", $rest)
    };
}

pub const OPERATIONS: &[Row] = &[
    // After the first time the name is taken, but the password is still estimated and hashed.
    Row::new("post", users!(""), Nothing, |w| w.anonymous("POST", users!("")).json(longest_user()))
        .may_fail(),
    Row::new("post", users!("/login"), Nothing, |w| {
        let body = json!({"username": "worst", "password": "correct horse battery"});
        w.anonymous("POST", users!("/login")).json(body)
    }),
    Row::new("get", users!(""), Scope("users:read"), |w| {
        w.key("GET", &format!("{}{PAGE}", users!("")))
    }),
    Row::new("get", users!("/username/{username}"), Nothing, |w| {
        w.anonymous("GET", &format!("{}/username/{}", users!(""), w.names[0]))
    }),
    Row::new("get", users!("/{user_id}"), Scope("users:read"), |w| w.key("GET", &user(w, ""))),
    Row::new("put", users!("/{user_id}"), Scope("users:write"), |w| {
        w.key("PUT", &user(w, "")).json(another_user())
    })
    .bodies(|_| vec![json!({})]),
    Row::new("patch", users!("/{user_id}"), Scope("users:write"), |w| {
        w.key("PATCH", &user(w, "")).json(another_user())
    })
    .bodies(|_| vec![json!({})]),
    Row::new("post", users!("/{user_id}/password-reset"), ADMIN, |w| {
        w.key("POST", &user(w, "/password-reset"))
    }),
    Row::new("get", users!("/{user_id}/export"), Scope("read"), |w| {
        w.key("GET", &user(w, "/export"))
    }),
    Row::new("post", users!("/password-reset"), Nothing, |w| {
        let body = json!({"token": w.reset_token, "new_password": SLOWEST_PASSWORD});
        w.anonymous("POST", users!("/password-reset")).json(body)
    }),
    Row::new("get", users!("/me"), User, |w| w.user("GET", users!("/me"))),
    Row::new("put", users!("/me"), User, |w| {
        w.user("PUT", users!("/me")).json(json!({"full_name": "\u{390}".repeat(255)}))
    }),
    Row::new("patch", users!("/me"), User, |w| {
        w.user("PATCH", users!("/me")).json(json!({"full_name": "\u{390}".repeat(255)}))
    }),
    Row::new("get", users!("/me/export"), User, |w| w.user("GET", users!("/me/export"))),
    Row::new("get", users!("/me/sessions"), User, |w| w.user("GET", users!("/me/sessions"))),
    Row::new("delete", users!("/me/sessions/{session_id}"), User, |w| {
        w.user("DELETE", &format!("{}/me/sessions/{}", users!(""), w.session_id))
    }),
    Row::new("post", users!("/logout"), User, |w| {
        w.anonymous("POST", users!("/logout")).session(&w.ending[1])
    }),
    // operations that end users and sessions
    Row::new("delete", users!("/{user_id}"), ADMIN, |w| w.key("DELETE", &user(w, ""))),
    Row::new("delete", users!("/me/sessions"), User, |w| {
        w.user("DELETE", &format!("{}?keep_current=true", users!("/me/sessions")))
    }),
    Row::new("delete", users!("/me"), User, |w| {
        w.user("DELETE", users!("/me")).json(json!({"current_password": "correct horse battery"}))
    }),
];

fn longest_user() -> Value {
    let host = vec!["d".repeat(60); 3].join(".");
    json!({
        "email": format!("{}@{host}.com", "e".repeat(60)),
        "username": "\u{390}".repeat(100),
        "full_name": "\u{390}".repeat(255),
        "password": SLOWEST_PASSWORD,
    })
}

fn another_user() -> Value {
    let mut user = longest_user();
    user["username"] = "\u{3b0}".repeat(100).into();
    user["email"] = format!("{}@example.com", "f".repeat(60)).into();
    user
}

fn user(world: &World, rest: &str) -> String {
    format!("{}/{}{rest}", users!(""), world.user)
}
