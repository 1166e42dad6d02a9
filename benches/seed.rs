//! Fills an empty database for `ci/bench.sh`, on SQLite or Postgres, with a progress bar.
//!
//! `DATABASE_URL` and `AUDIT_KEY` set the database; `--keys`, `--users`, `--conversations` and
//! `--messages` set the sizes. The measured parts are the same in a database of any size:
//! conversations 1 to 100 have 5 messages each, conversation 101 has 20, and all of them have two
//! participants. Prints a key with every scope and a read-only key.

use chrono::{DateTime, TimeDelta, Utc};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use octopus::audit::{Action, Operation, Origin, Subject};
use octopus::core::clock::Clock;
use octopus::core::config::Config;
use octopus::db::{Tx, bulk, query};
use octopus::features::api_keys::bootstrap;
use octopus::security::secret::{SecretHash, TokenKind, display_prefix};
use octopus::state::AppState;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

/// Conversations of the measured list, and the messages of each.
const LISTED: (i64, i64) = (100, 5);
/// Messages of the conversation after them.
const SHOWN: i64 = 20;
/// Number of different message texts.
const TEXTS: i64 = 10_000;
/// Rows written in one transaction.
const BATCH: i64 = 50_000;

#[derive(Parser)]
struct Sizes {
    #[arg(long, default_value_t = 100)]
    keys: i64,
    #[arg(long, default_value_t = 100)]
    users: i64,
    #[arg(long, default_value_t = 300)]
    conversations: i64,
    #[arg(long, default_value_t = 2000)]
    messages: i64,
    /// `cargo bench` adds this argument.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The server state, the time of all rows, which is older than the retained events, and the bar.
struct Seed {
    app: AppState,
    at: DateTime<Utc>,
    bar: ProgressBar,
}

impl Seed {
    async fn begin(&self) -> Tx {
        self.app.db.begin().await.expect("a transaction")
    }

    async fn keys(&self, count: i64) -> String {
        const SQL: &str = "INSERT INTO api_keys (key_hash, key_prefix, name, name_key, scopes, \
            created_at) VALUES ($1, $2, $3, $3, 'read', $4) RETURNING id";
        let mut last = String::new();
        for first in (1..=count).step_by(1000) {
            let mut tx = self.begin().await;
            let mut made = vec![];
            for n in first..=count.min(first + 999) {
                let key = TokenKind::ApiKey.generate(&mut rand::rng());
                key.expose().clone_into(&mut last);
                let name = format!("key {n}");
                let statement = query(&mut tx, SQL).bind(SecretHash::of(&last).to_vec());
                let statement = statement.bind(display_prefix(&last)).bind(&*name).bind(self.at);
                let (id,): (i64,) = statement.one().await.expect("a key");
                made.push((id, name));
            }
            let details = json!({"scopes": "read"});
            let subject = |(id, name): &(i64, String)| (*id, name.clone());
            let subjects: Vec<(i64, String)> = made.iter().map(subject).collect();
            let operations: Vec<Operation<'_>> = subjects
                .iter()
                .map(|(id, name)| Operation {
                    action: Action::Create,
                    subject: Subject::Key(*id, name),
                    details: &details,
                })
                .collect();
            let audit = &self.app.audit;
            audit
                .record_all(&mut tx, &Origin::HOST, self.at, &operations)
                .await
                .expect("audit entries");
            tx.commit().await.expect("a commit");
            self.bar.inc(made.len().try_into().unwrap_or_default());
        }
        last
    }

    /// Runs `sql` for each batch of the numbers from 1 to `count`: `$1` is the first number of the
    /// batch, `$2` its last, `$3` the time.
    async fn numbered(&self, sql: &'static str, count: i64, each: i64) {
        let step = (BATCH / each).max(1);
        for first in (1..=count).step_by(usize::try_from(step).unwrap_or(1)) {
            let last = count.min(first + step - 1);
            let mut tx = self.begin().await;
            let statement = query(&mut tx, sql).bind(first).bind(last).bind(self.at);
            let rows = statement.execute().await.expect("rows");
            tx.commit().await.expect("a commit");
            self.bar.inc(rows);
        }
    }

    async fn users(&self, count: i64) {
        const SQL: &str = "INSERT INTO users (email, email_key, username, username_key, \
            password_hash, created_at, updated_at) \
            WITH RECURSIVE n (n) AS (SELECT $1 UNION ALL SELECT n + 1 FROM n WHERE n < $2) \
            SELECT 'user' || n || '@example.com', 'user' || n || '@example.com', 'user' || n, \
            'user' || n, '', $3, $3 FROM n";
        self.numbered(SQL, count, 1).await;
    }

    async fn conversations(&self, sizes: &Sizes) {
        const SQL: &str = "INSERT INTO conversations (title, active_at, created_at, updated_at) \
            WITH RECURSIVE n (n) AS (SELECT $1 UNION ALL SELECT n + 1 FROM n WHERE n < $2) \
            SELECT 'Conversation ' || n, $3, $3, $3 FROM n";
        const PARTICIPANTS: &str = "INSERT INTO participants (conversation_id, user_id) \
            SELECT c.id, u.id FROM conversations c CROSS JOIN (SELECT 0 AS n UNION ALL SELECT 1) s \
            JOIN users u ON u.id = 1 + (c.id + s.n) % $3 WHERE c.id >= $1 AND c.id <= $2";
        self.numbered(SQL, sizes.conversations, 1).await;
        for first in (1..=sizes.conversations).step_by(10_000) {
            let mut tx = self.begin().await;
            let aside =
                bulk::disable_triggers(&mut tx, &["participants"], false).await.expect("triggers");
            let last = sizes.conversations.min(first + 9_999);
            let statement = query(&mut tx, PARTICIPANTS).bind(first).bind(last);
            let rows = statement.bind(sizes.users).execute().await.expect("participants");
            aside.restore_triggers(&mut tx).await.expect("triggers");
            tx.commit().await.expect("a commit");
            self.bar.inc(rows);
        }
    }

    /// Texts of 20 to 400 characters.
    async fn texts(&self) {
        const TABLE: &str = "CREATE TABLE bench_texts (id INTEGER PRIMARY KEY, content TEXT)";
        const SQL: &str = "INSERT INTO bench_texts (id, content) VALUES ($1, $2)";
        const SYLLABLES: [&str; 16] = [
            "ka", "ter", "lo", "min", "sen", "pra", "vi", "dor", "an", "the", "ing", "sta", "ron",
            "mu", " ", " ",
        ];
        let mut rng = StdRng::seed_from_u64(1);
        let mut tx = self.begin().await;
        query(&mut tx, TABLE).execute().await.expect("a table");
        for id in 0..TEXTS {
            let length = rng.random_range(10..200);
            let text: String =
                (0..length).map(|_| SYLLABLES[rng.random_range(0..SYLLABLES.len())]).collect();
            let text = format!("said: {text}");
            // 32 bits, the type of the column on Postgres.
            let id = i32::try_from(id).expect("a small number");
            query(&mut tx, SQL).bind(id).bind(text).execute().await.expect("a text");
        }
        tx.commit().await.expect("a commit");
    }

    async fn messages(&self, conversations: i64, each: i64, first: i64) {
        const SQL: &str = "INSERT INTO messages \
            (conversation_id, seq, role, content, user_id, created_at) \
            WITH RECURSIVE s (n) AS (SELECT CAST(1 AS BIGINT) UNION ALL \
                SELECT n + 1 FROM s WHERE n < $4) \
            SELECT c.id, s.n, 'user', t.content, p.user_id, $3 FROM conversations c CROSS JOIN s \
            JOIN bench_texts t ON t.id = (c.id * 7919 + s.n * 104729) % 10000 \
            LEFT JOIN participants p ON p.conversation_id = c.id \
                AND p.user_id = (SELECT MIN(user_id) FROM participants WHERE conversation_id = c.id) \
            WHERE c.id >= $1 AND c.id <= $2 ORDER BY c.id, s.n";
        const LAST: &str = "UPDATE conversations SET last_seq = $3 WHERE id >= $1 AND id <= $2";
        let step = (BATCH / each).max(1);
        let end = first + conversations;
        for first in (first..end).step_by(usize::try_from(step).unwrap_or(1)) {
            let last = (end - 1).min(first + step - 1);
            let mut tx = self.begin().await;
            let statement = query(&mut tx, SQL).bind(first).bind(last).bind(self.at).bind(each);
            let rows = statement.execute().await.expect("messages");
            let statement = query(&mut tx, LAST).bind(first).bind(last).bind(each);
            statement.execute().await.expect("numbers");
            tx.commit().await.expect("a commit");
            self.bar.inc(rows);
        }
    }

    /// Inserts all messages without the triggers, and builds the search index at the end.
    async fn all_messages(&self, sizes: &Sizes) {
        // Builds the index in few large segments and merges them, like the index of a database that
        // grew over time. Separate segments would be merged during the measured writes.
        const INDEX: [&str; 7] = [
            "UPDATE message_search_progress SET up_to = (SELECT MAX(id) FROM messages)",
            "INSERT INTO message_search (message_search, rank) VALUES ('hashsize', 67108864)",
            "INSERT INTO message_search (message_search, rank) VALUES ('automerge', 0)",
            "INSERT INTO message_search (message_search) VALUES ('rebuild')",
            "INSERT INTO message_search (message_search) VALUES ('optimize')",
            "INSERT INTO message_search (message_search, rank) VALUES ('automerge', 4)",
            "INSERT INTO message_search (message_search, rank) VALUES ('hashsize', 1048576)",
        ];
        let mut tx = self.begin().await;
        let aside = bulk::disable_triggers(&mut tx, &["messages"], true).await.expect("triggers");
        tx.commit().await.expect("a commit");
        self.texts().await;
        self.messages(LISTED.0, LISTED.1, 1).await;
        self.messages(1, SHOWN, LISTED.0 + 1).await;
        let others = sizes.conversations - LISTED.0 - 1;
        let left = sizes.messages - LISTED.0 * LISTED.1 - SHOWN;
        self.messages(others, left / others, LISTED.0 + 2).await;
        self.bar.set_message("the index");
        let mut tx = self.begin().await;
        bulk::raise_memory_limits(&mut tx).await.expect("room");
        if tx.is_sqlite() {
            for statement in INDEX {
                query(&mut tx, statement).execute().await.expect("an index");
            }
        }
        aside.restore_triggers(&mut tx).await.expect("triggers");
        query(&mut tx, "DROP TABLE bench_texts").execute().await.expect("a table");
        if !tx.is_sqlite() {
            query(&mut tx, "ANALYZE").execute().await.expect("statistics");
        }
        tx.commit().await.expect("a commit");
    }
}

#[tokio::main]
async fn main() {
    let sizes = Sizes::parse();
    assert!(sizes.conversations > LISTED.0 + 1 && sizes.users > 1, "too few to measure on");
    let config = Config::from_variables(std::env::vars().collect()).expect("a configuration");
    let app = AppState::open(config, Clock::default()).await.expect("a database");
    let admin = bootstrap::from_command_line(&app).await.expect("an empty database").key;
    let rows = sizes.keys + sizes.users + 3 * sizes.conversations + sizes.messages;
    let bar = ProgressBar::new(rows.try_into().unwrap_or_default());
    let style = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos}/{len} {msg}");
    bar.set_style(style.expect("a template"));
    let at = app.clock.now() - TimeDelta::days(60);
    let seed = Seed { app, at, bar };
    let reader = seed.keys(sizes.keys).await;
    seed.users(sizes.users).await;
    seed.conversations(&sizes).await;
    seed.all_messages(&sizes).await;
    seed.bar.finish_and_clear();
    seed.app.db.close().await;
    println!("{} {reader}", admin.expose());
}
