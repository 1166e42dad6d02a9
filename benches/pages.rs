//! Measures pages of long lists: `cargo bench --bench pages`, on SQLite, or on the empty Postgres
//! database at `DATABASE_URL`. A report, not a test. It prints medians of requests to a complete
//! server, with compared requests sent in turns.

use octopus::core::clock::Clock;
use octopus::core::config::Config;
use octopus::core::http_client::http_client;
use octopus::db::query;
use octopus::features::api_keys::bootstrap;
use octopus::security::secret::{SecretHash, TokenKind};
use octopus::server;
use octopus::state::AppState;
use reqwest::{Client, Response};
use std::collections::HashMap;
use std::net::TcpListener;
use std::time::Instant;

const ROUNDS: usize = 300;
const CONVERSATIONS: &str = "/api/v1/conversations";

/// Conversations 1 and 2 have 100 and 100,000 messages of 200 characters, and 100,000 others have
/// two each.
const MESSAGES: [&str; 5] = [
    "INSERT INTO conversations (last_seq, active_at, created_at, updated_at) \
     VALUES (100, $1, $1, $1), (100000, $1, $1, $1)",
    "INSERT INTO messages (conversation_id, seq, role, content, created_at) \
     WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 100000) \
     SELECT c.id, n.n, 'user', substr($2, 1, 200), $1 \
     FROM conversations c JOIN n ON n.n <= c.last_seq",
    "INSERT INTO users (email, email_key, username, username_key, password_hash, created_at, \
     updated_at) VALUES ('few', 'few', 'few', 'few', '', $1, $1), \
     ('many', 'many', 'many', 'many', '', $1, $1)",
    "INSERT INTO conversations (last_seq, active_at, created_at, updated_at) \
     WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 100000) \
     SELECT 2, $1, $1, $1 FROM n",
    "INSERT INTO messages (conversation_id, seq, role, content, created_at) \
     SELECT c.id, s.seq, 'user', substr($2, 1, 200), $1 FROM conversations c \
     CROSS JOIN (SELECT 1 AS seq UNION ALL SELECT 2) AS s WHERE c.id > 2",
];
/// User 1 is a participant of 20 conversations, user 2 of all.
const MEMBERSHIPS: &str = "INSERT INTO participants (conversation_id, user_id) \
    SELECT c.id, u.id FROM conversations c CROSS JOIN users u WHERE u.id = 2 OR c.id % 5000 = 0";
const SESSION: &str = "INSERT INTO sessions \
    (token_hash, user_id, created_at, last_used_at, expires_at) VALUES ($1, $2, $3, $3, $4)";

struct Bench {
    client: Client,
    address: String,
}

impl Bench {
    async fn get(&self, token: &str, target: &str) -> Response {
        let request = self.client.get(format!("{}{target}", self.address)).bearer_auth(token);
        let answer = request.send().await.expect("the server answers");
        assert!(answer.status().is_success(), "{target}: {}", answer.status());
        answer
    }

    /// The cursor at message `seq` of conversation `id`.
    async fn cursor(&self, key: &str, id: i64, seq: i64) -> String {
        let target = format!("{CONVERSATIONS}/{id}/messages?limit=1&skip={}", seq - 1);
        let answer = self.get(key, &target).await;
        let link = answer.headers()["link"].to_str().expect("a link").to_owned();
        let (_, rest) = link.split_once("after=").expect("a next page");
        rest.split('>').next().expect("a cursor").to_owned()
    }

    /// The median duration of each request in microseconds, sent in turns.
    async fn medians<const N: usize>(&self, token: &str, targets: [&str; N]) -> [u128; N] {
        let mut times = [const { vec![] }; N];
        for _ in 0..ROUNDS {
            for (times, target) in times.iter_mut().zip(targets) {
                let start = Instant::now();
                let body = self.get(token, target).await.bytes().await.expect("a whole answer");
                times.push(start.elapsed().as_micros());
                assert!(body.len() > 2, "an empty page");
            }
        }
        times.map(|mut times| {
            times.sort_unstable();
            times[ROUNDS / 2]
        })
    }

    /// Compares the same page of the short and of the long conversation.
    async fn compare(&self, key: &str, what: &str, short: &str, long: &str) {
        let [short, long] = [(1, short), (2, long)]
            .map(|(id, query)| format!("{CONVERSATIONS}/{id}/messages?limit=50&{query}"));
        let [short, long] = self.medians(key, [&short, &long]).await;
        #[expect(clippy::cast_precision_loss, reason = "it is printed with two digits")]
        let ratio = long as f64 / short as f64;
        println!("{what:<44} {short:>8} µs {long:>8} µs {ratio:>8.2}");
    }
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = std::env::var("DATABASE_URL")
        .unwrap_or_else(|_| format!("sqlite:///{}/bench.db", folder.path().display()));
    let variables = [
        ("DATABASE_URL", url.as_str()),
        ("AUDIT_KEY", "an audit key of the bench with 32 bytes or more"),
        ("RATE_LIMIT_ENABLED", "false"),
    ];
    let variables: HashMap<_, _> =
        variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let config = Config::from_variables(variables).expect("a configuration");
    let app = AppState::open(config, Clock::default()).await.expect("a server");
    let created = bootstrap::from_command_line(&app).await.expect("an empty database");
    let key = created.key.expose();

    let (now, text) = (app.clock.now(), "x".repeat(200));
    let mut tx = app.db.begin().await.expect("a transaction");
    for sql in MESSAGES {
        let statement = query(&mut tx, sql).bind(now);
        let statement = if sql.contains("$2") { statement.bind(&*text) } else { statement };
        statement.execute().await.expect("rows");
    }
    query(&mut tx, MEMBERSHIPS).execute().await.expect("memberships");
    let sessions = [1, 2].map(|user| (user, TokenKind::Session.generate(&mut rand::rng())));
    for (user, token) in &sessions {
        let hash = SecretHash::of(token.expose());
        let statement = query(&mut tx, SESSION).bind(hash.to_vec()).bind(*user);
        let end = now + chrono::TimeDelta::days(1);
        statement.bind(now).bind(end).execute().await.expect("a session");
    }
    if !tx.is_sqlite() {
        query(&mut tx, "ANALYZE").execute().await.expect("statistics");
    }
    tx.commit().await.expect("a commit");

    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(server::run(listener, app, std::future::pending()));
    let client = http_client().no_proxy().build().expect("a client");
    let bench = Bench { client, address };

    println!("{:<44} {:>11} {:>11} {:>8}", "a page of 50 messages of", "100", "100,000", "ratio");
    for (what, short, long) in [("first", 0, 0), ("middle", 25, 49_975), ("last", 50, 99_950)] {
        for order in ["asc", "desc"] {
            let queries = [short, long].map(|skip| format!("order={order}&skip={skip}"));
            let what = format!("the {what} one by skip, {order}");
            bench.compare(key, &what, &queries[0], &queries[1]).await;
        }
    }
    for (what, short, long) in [("first", 1, 1), ("middle", 25, 49_975), ("last", 50, 99_950)] {
        let cursors = [bench.cursor(key, 1, short).await, bench.cursor(key, 2, long).await];
        let [short, long] = cursors.map(|cursor| format!("after={cursor}"));
        bench.compare(key, &format!("the {what} one by cursor"), &short, &long).await;
    }

    println!("\na page of 100 conversations of 100,002");
    let of = [
        ("a user with 20", sessions[0].1.expose()),
        ("a user with all", sessions[1].1.expose()),
        ("a key", key),
    ];
    for (who, token) in of {
        let lists =
            [format!("{CONVERSATIONS}?order=desc"), format!("{CONVERSATIONS}?order=recent")];
        let [by_id, recent] = bench.medians(token, [&lists[0], &lists[1]]).await;
        println!("{who:<44} {by_id:>8} µs {recent:>8} µs, the newest and the recent ones");
    }
}
