//! `octopus import`: imports a database of the FastAPI original, completely or not at all.

#[macro_use]
extern crate macro_rules_attribute;

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod ends;
mod ids;
mod keys;
mod oddities;
mod refusals;
mod secrets;
mod source;

use crate::support::process::octopus_on;
use crate::support::{Backend, TestApp, measured, scale};
use octopus::db::query;
use serde_json::{Value, json};
use source::{Key, MASTER, PASSWORD, READER, Source, user};
use sqlx::Connection;
use std::fs;
use std::process::Output;
use std::time::Instant;

/// The output and the report of a finished import.
struct Imported {
    output: String,
    report: Value,
}

/// Runs `octopus import` with its own folder for temporary files.
async fn run(backend: &Backend, source: &Source, arguments: &[&str]) -> Output {
    let temporary = backend.folder().join("tmp");
    fs::create_dir_all(&temporary).unwrap();
    let mut command = octopus_on(backend).await;
    command.env("TMPDIR", temporary).arg("import").arg(&source.path).args(arguments);
    command.output().unwrap()
}

/// Runs `octopus import`; it must succeed.
async fn import(backend: &Backend, source: &Source, arguments: &[&str]) -> Imported {
    let report = backend.folder().join("report.json");
    let options = ["--report", report.to_str().unwrap()];
    let output = run(backend, source, &[arguments, &options].concat()).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "no progress bar without a terminal: {output:?}");
    let left = fs::read_dir(backend.folder().join("tmp")).unwrap();
    assert_eq!(left.count(), 0, "temporary files are removed");
    let text = fs::read_to_string(report).unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    Imported { output, report: serde_json::from_str(&text).expect(&text) }
}

impl Imported {
    /// Row counts of `table`: found, imported, already present, left out.
    pub fn rows(&self, table: &str) -> [i64; 4] {
        let rows = &self.report["summary"]["rows"][table];
        ["found", "imported", "here", "left_out"].map(|name| rows[name].as_i64().expect(table))
    }

    /// The notes of the report: table, id, kind, what was done.
    pub fn notes(&self) -> Vec<(String, i64, String, String)> {
        let text = |note: &Value, name: &str| note[name].as_str().unwrap().to_owned();
        let notes = self.report["notes"].as_array().unwrap().iter().map(|note| {
            let id = note["id"].as_i64().unwrap();
            (text(note, "table"), id, text(note, "kind"), text(note, "done"))
        });
        notes.collect()
    }

    /// The explanation of the only note of that kind.
    #[track_caller]
    pub fn explanation(&self, kind: &str) -> &str {
        let notes = self.report["notes"].as_array().unwrap();
        let mut of_kind = notes.iter().filter(|note| note["kind"] == kind);
        let found = of_kind.next().unwrap_or_else(|| panic!("no {kind} in {notes:#?}"));
        assert!(of_kind.next().is_none(), "more than one {kind}: {notes:#?}");
        found["why"].as_str().unwrap()
    }
}

/// All rows of the database, by table.
async fn contents(backend: &Backend) -> Vec<(String, String)> {
    let db = backend.open().await;
    let tables = if backend.is_sqlite() {
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%' \
         ORDER BY name"
    } else {
        "SELECT CAST(table_name AS TEXT) FROM information_schema.tables \
         WHERE table_schema = current_schema() AND table_type = 'BASE TABLE' ORDER BY table_name"
    };
    let names: Vec<(String,)> = query(&db, tables).all().await.unwrap();
    let mut all = vec![];
    for (name,) in names {
        let sql = if backend.is_sqlite() {
            let columns = format!("SELECT name FROM pragma_table_info('{name}')");
            let columns: Vec<(String,)> = query(&db, columns.leak()).all().await.unwrap();
            let quoted: Vec<String> =
                columns.iter().map(|(column,)| format!("quote(\"{column}\")")).collect();
            format!(
                "SELECT COALESCE(group_concat(line, char(10)), '') FROM \
                 (SELECT {} AS line FROM \"{name}\" ORDER BY line)",
                quoted.join(" || ',' || ")
            )
        } else {
            format!(
                "SELECT COALESCE(string_agg(CAST(t AS TEXT), chr(10) ORDER BY CAST(t AS TEXT)), '') \
                 FROM {name} t"
            )
        };
        let (rows,): (String,) = query(&db, sql.leak()).one().await.unwrap();
        all.push((name, rows));
    }
    db.close().await;
    all
}

/// The definitions of tables, indexes and triggers.
async fn schema(backend: &Backend) -> Vec<String> {
    let db = backend.open().await;
    let sql = if backend.is_sqlite() {
        "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY sql"
    } else {
        "SELECT indexdef FROM pg_indexes WHERE schemaname = current_schema() UNION ALL \
         SELECT tgname || CAST(tgenabled AS TEXT) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1"
    };
    let rows: Vec<(String,)> = query(&db, sql).all().await.unwrap();
    db.close().await;
    rows.into_iter().map(|(sql,)| sql).collect()
}

#[apply(on_both!)]
async fn keys_work_users_sign_in_and_conversations_read_back_from_every_schema(backend: Backend) {
    for schema in ["first", "second", "none"] {
        let target = backend.another();
        let source = match schema {
            "first" => Source::first(target.folder()).await,
            "second" => Source::second(target.folder()).await,
            _ => Source::without_keys(target.folder()).await,
        };
        source.insert_users().await;
        source.insert_conversations().await;
        if schema == "first" {
            let sql = format!(
                "INSERT INTO api_keys VALUES (1, '{MASTER}', 'Master API Key', NULL, \
                 'admin,read,write', 1, '2025-01-01 00:00:00.000000', NULL, NULL, NULL)"
            );
            source.execute(&sql).await;
        } else if schema == "second" {
            source.key(Key::default()).await;
        }
        let before = fs::read(&source.path).unwrap();
        let imported = import(&target, &source, &[]).await;
        assert_eq!(fs::read(&source.path).unwrap(), before, "the original is only read");
        assert_eq!(imported.notes(), [], "{}", imported.output);
        let keys = i64::from(schema != "none");
        for (table, n) in [
            ("users", 3),
            ("api_keys", keys),
            ("conversations", 2),
            ("conversation_participants", 3),
            ("messages", 4),
        ] {
            assert_eq!(imported.rows(table), [n, n, 0, 0], "{table} of {schema}");
        }
        let last = imported.output.lines().last().unwrap();
        let expected = format!("{} rows imported, 0 already present, 0 skipped", 12 + keys);
        assert!(last.starts_with(&expected), "{last}");
        assert_eq!(imported.output.contains("No key can manage keys"), schema == "none");

        let app = TestApp::new(&target).await;
        let key = if schema == "none" { app.admin().await } else { MASTER.to_owned() };
        let shown = app.get("/api/v1/api-keys/me").key(&key).send().await.expect(200);
        assert_eq!((&shown["name"], &shown["id"]), (&json!("Master API Key"), &json!(1)));
        assert_eq!(shown["scopes"], "admin,read,write");
        if schema == "second" {
            assert_eq!(shown["created_at"], "2025-01-01T00:00:00.000000Z");
        }
        reads_back(&app, &key).await;
        logs_in(&app).await;
        let found = app.get("/api/v1/conversations/search?q=antarctic").key(&key).send().await;
        assert_eq!(found.body[0]["message"]["id"], 21, "{}", found.text);
        let verified = app.get("/api/v1/admin/audit/verify").key(&key).send().await;
        assert_eq!(verified.body["intact"], true, "{}", verified.text);
        app.stop().await.unwrap();
        let verified = octopus_on(&target).await.arg("verify").output().unwrap();
        assert!(verified.status.success(), "{verified:?}");
        target.remove().await;
    }
}

async fn reads_back(app: &TestApp, key: &str) {
    let conversation = app.get("/api/v1/conversations/5").key(key).send().await.expect(200);
    assert_eq!(conversation["title"], "A trip");
    assert_eq!(conversation["created_at"], "2025-02-01T00:00:00.000000Z");
    assert_eq!(conversation["updated_at"], "2025-02-01T12:00:00.500000Z");
    assert_eq!(conversation["last_message_at"], "2025-02-01T12:00:00.500000Z");
    assert_eq!(conversation["message_count"], 4);
    let participants: Vec<&Value> =
        conversation["participants"].as_array().unwrap().iter().map(|user| &user["id"]).collect();
    assert_eq!(participants, [&json!(1), &json!(2)]);
    let messages = conversation["messages"].as_array().unwrap().iter();
    let shown: Vec<Value> = messages
        .map(|m| json!([m["id"], m["seq"], m["role"], m["user_id"], m["content"], m["created_at"]]))
        .collect();
    let expected = [
        json!([20, 1, "user", 1, "Where to?", "2025-02-01T10:00:00.000001Z"]),
        json!([21, 2, "assistant", null, "To the Antarctic.", "2025-02-01T10:00:00.000002Z"]),
        json!([22, 3, "user", 2, "Said third", "2025-02-01T12:00:00.000000Z"]),
        json!([23, 4, "user", 2, "Said last, and written second", "2025-02-01T12:00:00.500000Z"]),
    ];
    assert_eq!(shown, expected);
    let empty = app.get("/api/v1/conversations/6").key(key).send().await.expect(200);
    assert_eq!((&empty["title"], &empty["message_count"]), (&Value::Null, &json!(0)));
    assert_eq!(empty["last_message_at"], Value::Null);
    // The next message continues the sequence of the original.
    let body = json!({"role": "user", "content": "Let us go.", "user_id": 1});
    let posted = app.post("/api/v1/conversations/5/messages", body).key(key).send().await;
    let posted = posted.expect(201);
    assert_eq!((&posted["seq"], &posted["id"]), (&json!(5), &json!(24)));
}

async fn logs_in(app: &TestApp) {
    let user = app.get("/api/v1/users/username/Ada").send().await.expect(200);
    assert_eq!(
        (&user["id"], &user["created_at"]),
        (&json!(1), &json!("2025-01-01T08:00:00.000000Z"))
    );
    // The second sign-in uses the hash renewed by the first.
    for body in [
        json!({"username": "ada", "password": PASSWORD}),
        json!({"email": "ADA@example.com", "password": PASSWORD}),
    ] {
        let session = app.post("/api/v1/users/login", body).send().await.expect(200);
        let token = session["access_token"].as_str().unwrap().to_owned();
        let own = app.get("/api/v1/conversations").session(&token).send().await.expect(200);
        assert_eq!(own.as_array().unwrap().len(), 1, "ada's one");
    }
    let body = json!({"username": "ada", "password": "another"});
    app.post("/api/v1/users/login", body).send().await.expect(401);
}

#[apply(on_both!)]
async fn a_second_import_changes_nothing(backend: Backend) {
    let source = Source::full(backend.folder()).await;
    let first = import(&backend, &source, &[]).await;
    assert_eq!(first.rows("api_key_audit_logs"), [2, 2, 0, 0]);
    let before = contents(&backend).await;
    assert!(before.iter().any(|(table, rows)| table == "messages" && rows.contains("Antarctic")));
    for _ in 0..2 {
        let second_run = import(&backend, &source, &[]).await;
        for (table, n) in [
            ("users", 3),
            ("api_keys", 2),
            ("conversations", 2),
            ("conversation_participants", 3),
            ("messages", 4),
            ("api_key_audit_logs", 2),
        ] {
            assert_eq!(second_run.rows(table), [n, 0, n, 0], "{table}");
        }
        for (before, after) in before.iter().zip(contents(&backend).await) {
            assert_eq!(*before, after);
        }
    }
}

#[apply(on_both!)]
async fn rows_added_to_the_original_are_imported_by_the_next_run(backend: Backend) {
    let source = Source::full(backend.folder()).await;
    import(&backend, &source, &[]).await;
    let more = "
        INSERT INTO conversations VALUES (7, 'later', '2025-03-01 00:00:00.000000',
            '2025-03-01 00:00:00.000000');
        INSERT INTO messages VALUES (30, 7, 4, 'user', 'new', '2025-03-01 00:00:00.000000'),
            (31, 5, 1, 'user', 'said in an old one', '2025-03-01 00:00:00.000000');
        INSERT INTO conversation_participants VALUES (4, 7, '2025-03-01 00:00:00.000000');
        INSERT INTO api_key_audit_logs VALUES (3, 1, 'update', 1, NULL, NULL,
            '2025-03-01 00:00:00.000000');";
    source.execute(&format!("{}{more}", user(4, "dan", "dan@example.com"))).await;
    let imported = import(&backend, &source, &[]).await;
    assert_eq!(imported.rows("users"), [4, 1, 3, 0]);
    assert_eq!(imported.rows("conversations"), [3, 1, 2, 0]);
    assert_eq!(imported.rows("messages"), [6, 1, 5, 0]);
    assert_eq!(imported.rows("conversation_participants"), [4, 1, 3, 0]);
    assert_eq!(imported.rows("api_key_audit_logs"), [3, 1, 2, 0]);
    let grown = ("conversations".into(), 5, "grown".into(), "kept".into());
    assert_eq!(imported.notes(), [grown]);
    let app = TestApp::new(&backend).await;
    let conversation = app.get("/api/v1/conversations/7").key(MASTER).send().await.expect(200);
    assert_eq!(conversation["messages"][0]["user"]["username"], "dan");
    assert_eq!(app.number("SELECT last_seq FROM conversations WHERE id = 5").await, 4);
    let found = app.get("/api/v1/conversations/search?q=new").key(MASTER).send().await;
    assert_eq!(found.body.as_array().map(Vec::len), Some(1), "{}", found.text);
}

#[apply(on_both!)]
async fn triggers_and_indexes_are_restored_and_no_events_are_created(backend: Backend) {
    backend.open().await.close().await;
    let before = schema(&backend).await;
    let source = Source::full(backend.folder()).await;
    if backend.is_sqlite() {
        // A database file that already exists can be opened with its audit key only.
        TestApp::new(&backend).await.stop().await.unwrap();
    }
    import(&backend, &source, &[]).await;
    assert_eq!(schema(&backend).await, before);
    let app = TestApp::new(&backend).await;
    let events = "SELECT CAST(COUNT(*) AS BIGINT) FROM conversation_events";
    assert_eq!(app.number(events).await, 0, "imported messages create no events");
    let body = json!({"role": "user", "content": "now this is news", "user_id": 1});
    app.post("/api/v1/conversations/5/messages", body).key(MASTER).send().await.expect(201);
    assert_eq!(app.number(events).await, 1);
    let found = app.get("/api/v1/conversations/search?q=this+is+news").key(MASTER).send().await;
    assert_eq!(found.body.as_array().map(Vec::len), Some(1), "{}", found.text);
    app.delete("/api/v1/conversations/5").key(MASTER).send().await.expect(204);
    let found = app.get("/api/v1/conversations/search?q=antarctic").key(MASTER).send().await;
    assert_eq!(found.body.as_array().map(Vec::len), Some(0), "{}", found.text);
    if backend.is_sqlite() {
        let sql = "INSERT INTO message_search (message_search, rank) VALUES ('integrity-check', 1)";
        backend.execute(sql).await;
    }
}

#[apply(on_both!)]
async fn ids_are_kept_where_they_are_free_and_never_reused(backend: Backend) {
    // The target has its own key, user and conversation, which the original's rows must not
    // replace.
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let zoe = app.user("zoe").await;
    let own = app.conversation(&admin, &[zoe]).await;
    let body = json!({"role": "user", "content": "of my own", "user_id": zoe});
    let path = format!("/api/v1/conversations/{own}/messages");
    app.post(&path, body).key(&admin).send().await.expect(201);
    app.stop().await.unwrap();

    let source = Source::full(backend.folder()).await;
    // A deleted user of whom only messages are left.
    let make_changes =
        "INSERT INTO messages VALUES (24, 5, 40, 'user', 'gone', '2025-02-01 13:00:00');
        DELETE FROM users WHERE id = 3; UPDATE conversations SET id = 1 WHERE id = 6;
        UPDATE conversation_participants SET conversation_id = 1, user_id = 1 WHERE user_id = 3;";
    source.execute(make_changes).await;
    let imported = import(&backend, &source, &[]).await;
    let mut notes = imported.notes();
    notes.retain(|note| note.2 == "renumbered");
    let renumbered: Vec<_> = notes.iter().map(|note| (note.0.as_str(), note.1)).collect();
    assert_eq!(renumbered, [("users", 1), ("api_keys", 1), ("conversations", 1)]);
    assert_eq!(imported.report["summary"]["renumbered_messages"], 0);
    let app = TestApp::new(&backend).await;
    let ids = async |sql| {
        let rows: Vec<(i64, String)> = app.rows(sql).await;
        rows.into_iter().map(|(id, name)| format!("{id} {name}")).collect::<Vec<_>>()
    };
    // New ids are greater than 40 and 9, which the original still refers to.
    assert_eq!(
        ids("SELECT id, username FROM users ORDER BY id").await,
        ["1 zoe", "2 bob", "41 ada"]
    );
    let keys = ids("SELECT id, name FROM api_keys ORDER BY id").await;
    assert_eq!(keys, ["1 Master API Key", "2 reader", "10 Master API Key"]);
    let conversations = "SELECT id, COALESCE(title, '-') FROM conversations ORDER BY id";
    assert_eq!(ids(conversations).await, ["1 a talk", "5 A trip", "6 -"]);
    let conversation = app.get("/api/v1/conversations/5").key(MASTER).send().await.expect(200);
    assert_eq!(conversation["messages"][0]["user"]["username"], "ada");
    assert_eq!(app.user("later").await, 42);
    let (_, key) = app.key(&admin, "read").await;
    assert_eq!((key, app.conversation(&admin, &[]).await), (11, 7));
    app.stop().await.unwrap();
    let second_run = import(&backend, &source, &[]).await;
    assert_eq!(second_run.rows("users"), [2, 0, 2, 0], "recognised under their new ids");
    assert_eq!(second_run.rows("messages"), [5, 0, 5, 0]);
}

#[apply(on_both!)]
async fn a_dry_run_writes_nothing_and_reports_the_same(backend: Backend) {
    backend.start_empty();
    let source = Source::full(backend.folder()).await;
    let dry = import(&backend, &source, &["--dry-run"]).await;
    assert!(dry.output.contains("Nothing was written"), "{}", dry.output);
    assert_eq!(dry.report["summary"]["dry_run"], true);
    if backend.is_sqlite() {
        let mut left: Vec<String> = fs::read_dir(backend.folder())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["chat_conversations.db", "report.json", "tmp"]);
    } else {
        let sql = "SELECT CAST(COUNT(*) AS BIGINT) FROM information_schema.tables \
            WHERE table_schema = current_schema()";
        let mut connection =
            sqlx_postgres::PgConnection::connect(&backend.url().await).await.unwrap();
        let tables: i64 = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
        assert_eq!(tables, 0);
        connection.close().await.unwrap();
    }
    // The same on an existing database.
    TestApp::new(&backend).await.stop().await.unwrap();
    let before = contents(&backend).await;
    let dry = import(&backend, &source, &["--dry-run"]).await;
    assert_eq!(contents(&backend).await, before);
    let real = import(&backend, &source, &[]).await;
    for table in ["users", "api_keys", "conversations", "messages", "api_key_audit_logs"] {
        assert_eq!(dry.rows(table), real.rows(table), "{table}");
    }
    assert_eq!(dry.notes(), real.notes());
    assert_ne!(contents(&backend).await, before);
}

#[apply(on_both!)]
async fn an_import_that_fails_half_way_changes_nothing(backend: Backend) {
    let source = Source::full(backend.folder()).await;
    TestApp::new(&backend).await.stop().await.unwrap();
    let (before, tables) = (contents(&backend).await, schema(&backend).await);
    // A trigger makes the import fail half-way.
    let refuse = if backend.is_sqlite() {
        "CREATE TRIGGER nobody BEFORE INSERT ON api_key_audit_logs BEGIN \
         SELECT RAISE(ABORT, 'not today'); END"
    } else {
        "CREATE FUNCTION nobody() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN RAISE 'not today'; END $$; CREATE TRIGGER nobody BEFORE INSERT \
         ON api_key_audit_logs FOR EACH ROW EXECUTE FUNCTION nobody()"
    };
    backend.execute(refuse).await;
    let output = run(&backend, &source, &[]).await;
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("nothing was imported") && stderr.contains("not today"), "{stderr}");
    assert!(output.stdout.is_empty());
    let on = if backend.is_sqlite() { "" } else { " ON api_key_audit_logs" };
    backend.execute(format!("DROP TRIGGER nobody{on}")).await;
    assert_eq!(contents(&backend).await, before);
    assert_eq!(schema(&backend).await, tables);
    let imported = import(&backend, &source, &[]).await;
    assert_eq!(imported.rows("messages"), [4, 4, 0, 0]);
    assert!(imported.notes().iter().all(|note| note.2 != "renumbered"), "no id was used up");
}

#[apply(on_both!)]
async fn very_many_messages_are_imported(backend: Backend) {
    let messages = scale(3000, 1_000_000);
    let source = Source::large(backend.folder(), messages).await;
    let started = Instant::now();
    let imported = import(&backend, &source, &[]).await;
    let all = i64::try_from(messages).unwrap();
    assert_eq!(imported.rows("messages"), [all, all, 0, 0]);
    measured(&format!(
        "import of {messages} messages: {:?}, {}",
        started.elapsed(),
        imported.report["summary"]["timings"]
    ));
    let app = TestApp::new(&backend).await;
    let wrong = "SELECT CAST(COUNT(*) AS BIGINT) FROM (SELECT c.id FROM conversations c \
        LEFT JOIN messages m ON m.conversation_id = c.id GROUP BY c.id, c.last_seq, c.active_at, c.created_at \
        HAVING COUNT(m.id) <> c.last_seq OR COALESCE(MAX(m.seq), 0) <> c.last_seq \
        OR COALESCE(MAX(m.created_at), c.created_at) <> c.active_at) AS wrong";
    assert_eq!(app.number(wrong).await, 0, "every place in every conversation");
    let unsorted = "SELECT CAST(COUNT(*) AS BIGINT) FROM messages a JOIN messages b \
        ON b.conversation_id = a.conversation_id AND b.seq = a.seq + 1 \
        WHERE (b.created_at, b.id) < (a.created_at, a.id)";
    assert_eq!(app.number(unsorted).await, 0);
    for n in [1, messages / 2, messages] {
        let path = format!("/api/v1/conversations/search?q=\"message+number+{n}+says\"");
        let found = app.get(&path).key(MASTER).send().await.expect(200);
        assert_eq!(found.as_array().map(Vec::len), Some(1), "{n}: {found}");
    }
}

#[apply(on_sqlite!)]
async fn no_key_is_stored_in_plain_text_in_any_file(backend: Backend) {
    let source = Source::full(backend.folder()).await;
    let weak = "a-weak-key-of-25-letters!";
    source.key(Key { id: 3, key: weak, name: weak, ..Key::default() }).await;
    let describe = format!("UPDATE api_keys SET description = 'it is {READER}' WHERE id = 2");
    source.execute(&describe).await;
    let original = fs::read(&source.path).unwrap();
    assert!(contains(&original, MASTER) && contains(&original, weak));
    let elsewhere = backend.another();
    fs::rename(&source.path, elsewhere.folder().join("source.db")).unwrap();
    let source = Source { path: elsewhere.folder().join("source.db") };
    let imported = import(&backend, &source, &["--accept-weak"]).await;
    let app = TestApp::new(&backend).await; // with its log beside the file
    app.get("/api/v1/api-keys").key(weak).send().await.expect(200);
    let mut files = 0;
    for entry in fs::read_dir(backend.folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            files += 1;
            let bytes = fs::read(&path).unwrap();
            for secret in [MASTER, READER, weak] {
                assert!(!contains(&bytes, secret), "{secret} in {}", path.display());
                assert!(!contains(&bytes, &secret[..16]), "its half in {}", path.display());
            }
        }
    }
    assert!(files >= 4, "the database, its log, its key, the report");
    assert!(!imported.output.contains(MASTER) && !imported.output.contains(weak));
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
