//! Invalid cursors, and parameters that cannot be combined with a cursor.

use super::{KEYS, LOGS, USERS, cursor, page, with_users};
use crate::support::Backend;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

#[apply(on_both!)]
async fn malformed_and_foreign_cursors_are_refused(backend: Backend) {
    let (app, admin) = with_users(&backend, 3).await;
    app.many_keys(2).await;
    app.act(&format!("{KEYS}/2/deactivate")).key(&admin).send().await.expect(200);
    let user = cursor(&app, &admin, USERS, 2).await;
    let key = cursor(&app, &admin, KEYS, 1).await;
    let log = cursor(&app, &admin, LOGS, 1).await;
    let bytes = URL_SAFE_NO_PAD.decode(&user).unwrap();
    let sealed = |content: &[u8]| {
        let checksum = crc32fast::hash(content).to_be_bytes();
        URL_SAFE_NO_PAD.encode([content, &checksum].concat())
    };
    let content = &bytes[..bytes.len() - 4];
    assert_eq!(sealed(content), user);
    let malformed = [
        String::new(),
        "2".into(),
        "nonsense".into(),
        "%00".into(),
        "%FF".into(),
        "'".into(),
        "A".repeat(10_000),
        format!("{user}="),
        format!("{user}A"),
        format!("+{user}"),
        user[1..].to_owned(),
        user[..user.len() - 1].to_owned(),
        user.to_lowercase(),
        sealed(&[content, &[0]].concat()),
        sealed(&content[..content.len() - 1]),
    ];
    for (list, foreign) in [(USERS, [&key, &log]), (KEYS, [&user, &log]), (LOGS, [&user, &key])] {
        for side in ["after", "before"] {
            for text in malformed.iter().chain(foreign) {
                let target = format!("{list}?{side}={text}");
                let answer = app.get(&target).key(&admin).send().await;
                assert_eq!(answer.header("link"), None, "{target}");
                answer.refused(400, "Invalid cursor");
            }
        }
    }
    // Without access to the list, the response does not depend on the cursor.
    let target = format!("{USERS}?after=nonsense");
    app.get(&target)
        .send()
        .await
        .refused(401, "API key required: send it in the header field Octopus-API-Key");
}

#[apply(on_both!)]
async fn a_cursor_excludes_other_ways_to_choose_a_page(backend: Backend) {
    let (app, admin) = with_users(&backend, 3).await;
    let cursor = cursor(&app, &admin, USERS, 2).await;
    for side in ["after", "before"] {
        for skip in [0, 1] {
            let target = format!("{USERS}?{side}={cursor}&skip={skip}");
            let answer = app.get(&target).key(&admin).send().await;
            answer.refused(400, "Send either a cursor or skip, not both");
        }
    }
    let target = format!("{USERS}?after={cursor}&before={cursor}");
    let answer = app.get(&target).key(&admin).send().await;
    answer.refused(400, "Send either after or before, not both");
}

#[apply(on_both!)]
async fn the_rules_of_the_other_parameters_hold_beside_a_cursor(backend: Backend) {
    let (app, admin) = with_users(&backend, 3).await;
    let cursor = cursor(&app, &admin, USERS, 1).await;
    for (query, places) in [
        ("limit=0", &["query.limit"][..]),
        ("limit=1001&order=newest", &["query.limit", "query.order"]),
        ("order=ASC", &["query.order"]),
        ("order=", &["query.order"]),
        ("order=recent", &["query.order"]),
        ("skip=-1", &["query.skip"]),
    ] {
        for target in [format!("{USERS}?{query}"), format!("{USERS}?{query}&after={cursor}")] {
            app.get(&target).key(&admin).send().await.invalid(places);
        }
    }
    let answer = app.get(&format!("{LOGS}?order=up&limit=0")).key(&admin).send().await;
    answer.invalid(&["query.limit", "query.order"]);
    let answer = app.get(&format!("{USERS}?order=up")).key(&admin).send().await;
    let error = &answer["detail"][0];
    assert_eq!(
        (&error["type"], &error["msg"]),
        (&"enum".into(), &"Input should be 'asc' or 'desc'".into())
    );
    for limit in [1, 1000] {
        let target = format!("{USERS}?after={cursor}&limit={limit}");
        assert_eq!(page(&app, &admin, &target).await.0.len(), if limit == 1 { 1 } else { 2 });
    }
}
