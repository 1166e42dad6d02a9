//! Measures the cost of search: `cargo bench --bench search`. A report, not a test.
//!
//! It fills a database with `BENCH_MESSAGES` messages (default 1,000,000) and sends searches over
//! HTTP. The database is the empty Postgres at `BENCH_DATABASE_URL`, or an SQLite file: in
//! `BENCH_FOLDER`, where it is kept and reused, or in a temporary folder.

use chrono::TimeDelta;
use octopus::core::clock::Clock;
use octopus::core::config::Config;
use octopus::core::http_client::http_client;
use octopus::db::{Db, query};
use octopus::features::api_keys::bootstrap;
use octopus::security::secret::{SecretHash, TokenKind};
use octopus::server;
use octopus::state::AppState;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlx::AssertSqlSafe;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::TcpListener;
use std::time::{Duration, Instant};
use std::{env, fs, io};

const CONVERSATIONS: usize = 10_000;
/// Conversations in which the user is a participant.
const OF_THE_USER: usize = 100;
/// Different queries of each kind.
const QUERIES: usize = 40;
const APPENDS: u32 = 500;
const NOW: &str = "'2026-01-01T00:00:00+00:00'";

/// Words by decreasing frequency: the first two hundred make up half of all text.
struct Language {
    english: Vec<String>,
    japanese: Vec<String>,
}

impl Language {
    fn new(rng: &mut StdRng) -> Self {
        const SYLLABLES: [&str; 40] = [
            "ka", "ter", "lo", "min", "sen", "pra", "vi", "dor", "el", "an", "the", "ing", "sta",
            "ron", "mu", "cha", "ble", "fi", "os", "un", "gre", "ti", "po", "wa", "ser", "con",
            "de", "li", "mo", "ra", "qu", "ex", "ju", "ost", "ack", "ight", "ow", "ness", "y", "h",
        ];
        let mut english = vec![];
        let mut japanese = vec![];
        for n in 0..40_000 {
            let syllables = rng.random_range(1..=if n < 200 { 2 } else { 5 });
            let syllable = |_| SYLLABLES[rng.random_range(0..SYLLABLES.len())];
            english.push((0..syllables).map(syllable).collect());
            let characters = rng.random_range(1..=4);
            let kanji = |_| char::from_u32(0x4E00 + 37 * rng.random_range(0..500)).unwrap_or('語');
            japanese.push((0..characters).map(kanji).collect());
        }
        Self { english, japanese }
    }

    /// A random rank, by Zipf's law.
    fn rank(&self, rng: &mut StdRng) -> usize {
        let most = f64::from(u32::try_from(self.english.len()).unwrap_or(u32::MAX));
        let rank = (most.powf(rng.random::<f64>()) - 1.0).max(0.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0…40,000")]
        let rank = rank as usize;
        rank
    }

    /// A random message; one of five is Japanese.
    fn message(&self, rng: &mut StdRng) -> String {
        let mut text = String::new();
        if rng.random_range(0..5) == 0 {
            for _ in 0..rng.random_range(3..40) {
                text.push_str(&self.japanese[self.rank(rng)]);
                text.push_str(
                    ["の", "に", "を", "は", "が", "です", "ます。", "、"][rng.random_range(0..8)],
                );
            }
        } else {
            for n in 0..rng.random_range(3..60) {
                text.push_str(if n == 0 { "" } else { " " });
                text.push_str(&self.english[self.rank(rng)]);
            }
        }
        text
    }
}

async fn run(db: &Db, sql: String) {
    let sql = AssertSqlSafe(sql);
    let done = match db {
        Db::Sqlite { write, .. } => {
            let mut connection = write.pool().acquire().await.expect("the connection");
            sqlx::raw_sql(sql).execute(connection.connection()).await.map(drop)
        }
        Db::Postgres { pool, .. } => sqlx::raw_sql(sql).execute(pool).await.map(drop),
    };
    done.expect("the statement runs");
}

async fn number(db: &Db, sql: &'static str) -> i64 {
    let (number,): (i64,) = query(db, sql).one().await.expect("a number");
    number
}

/// The statements that drop the search index and that create it again.
async fn index(db: &Db) -> (String, String) {
    let rows: Vec<(String, String)> = match db {
        Db::Sqlite { .. } => {
            let sql = "SELECT 'DROP TRIGGER ' || name, sql FROM sqlite_master \
                       WHERE type = 'trigger' AND name LIKE 'messages_found%'";
            query(db, sql).all().await.expect("triggers")
        }
        Db::Postgres { .. } => {
            let sql = "SELECT 'DROP INDEX messages_search', indexdef FROM pg_indexes \
                       WHERE indexname = 'messages_search'";
            query(db, sql).all().await.expect("an index")
        }
    };
    let (drop, mut make): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    if matches!(db, Db::Sqlite { .. }) {
        let all = "UPDATE message_search_progress SET up_to = (SELECT MAX(id) FROM messages)";
        make.push(all.to_owned());
        for command in ["rebuild", "optimize"] {
            make.push(format!("INSERT INTO message_search (message_search) VALUES ('{command}')"));
        }
    }
    (drop.join(";"), make.join(";"))
}

async fn fill(db: &Db, language: &Language, messages: usize, rng: &mut StdRng) -> usize {
    let mut sql = String::from("BEGIN;");
    for id in 1..=CONVERSATIONS {
        let _ = write!(
            sql,
            "INSERT INTO conversations (title, created_at, updated_at) VALUES ('Talk {id}', {NOW}, {NOW});"
        );
    }
    let _ = write!(
        sql,
        "INSERT INTO users (email, email_key, username, username_key, password_hash, created_at, updated_at)
         VALUES ('a', 'a', 'a', 'a', 'x', {NOW}, {NOW});
         INSERT INTO participants (conversation_id, user_id)
         SELECT id, 1 FROM conversations WHERE id % {} = 7; COMMIT;",
        CONVERSATIONS / OF_THE_USER
    );
    run(db, sql).await;
    let (mut seqs, mut bytes) = (vec![0; CONVERSATIONS + 1], 0);
    for _ in 0..messages / 1000 {
        let mut sql = String::from(
            "INSERT INTO messages (conversation_id, seq, role, content, created_at) VALUES ",
        );
        for n in 0..1000 {
            let conversation = rng.random_range(1..=CONVERSATIONS);
            seqs[conversation] += 1;
            let content = language.message(rng);
            bytes += content.len();
            let comma = if n == 0 { "" } else { ", " };
            let seq: usize = seqs[conversation];
            let _ = write!(sql, "{comma}({conversation}, {seq}, 'user', '{content}', {NOW})");
        }
        run(db, sql).await;
    }
    let last = "UPDATE conversations SET last_seq = \
        (SELECT COALESCE(MAX(seq), 0) FROM messages m WHERE m.conversation_id = conversations.id)";
    run(db, last.to_owned()).await;
    if matches!(db, Db::Postgres { .. }) {
        run(db, "VACUUM ANALYZE messages".into()).await;
    }
    bytes
}

/// Wall-clock time, and processor time, which other programs on the machine affect little.
type Times = (Duration, Duration);

/// Processor time of all threads of this process.
fn used() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").expect("/proc of Linux");
    let of = |task: io::Result<fs::DirEntry>| {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(tasks.filter_map(of).sum())
}

async fn timed<T>(work: impl Future<Output = T>) -> (T, Times) {
    let (start, before) = (Instant::now(), used());
    let done = work.await;
    let elapsed = start.elapsed();
    (done, (elapsed, used().saturating_sub(before)))
}

fn report(what: &str, times: &[Times]) {
    let (mut clock, mut processor): (Vec<_>, Vec<_>) = times.iter().copied().unzip();
    clock.sort_unstable();
    processor.sort_unstable();
    let at = |times: &[Duration], percent: usize| {
        times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0
    };
    println!(
        "{what:<52} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>9.2}",
        at(&clock, 50),
        at(&clock, 95),
        at(&clock, 100),
        at(&processor, 50),
        at(&processor, 95)
    );
}

/// A running server and its client.
struct Bench {
    client: reqwest::Client,
    address: String,
    key: String,
    token: String,
}

impl Bench {
    async fn append(&self) {
        let url = format!("{}/1/messages", self.address);
        let body = serde_json::json!({"role": "user", "content": "The quick brown fox jumps over the \
            lazy dog, and then it sleeps until the sun comes up again over the hills and the sea."});
        let call = self.client.post(url).header("Octopus-API-Key", &self.key).json(&body);
        assert_eq!(call.send().await.expect("an answer").status().as_u16(), 201);
    }

    async fn appends(&self, what: &str) {
        let mut times = vec![];
        for _ in 0..APPENDS {
            times.push(timed(self.append()).await.1);
        }
        report(what, &times);
    }

    /// Deletes the newest conversations.
    async fn deletions(&self, db: &Db) {
        let mut times = vec![];
        for _ in 0..5 {
            let sql = "SELECT MAX(id) FROM conversations";
            let url = format!("{}/{}", self.address, number(db, sql).await);
            let call = self.client.delete(url).header("Octopus-API-Key", &self.key);
            let (answer, time) = timed(call.send()).await;
            assert_eq!(answer.expect("an answer").status().as_u16(), 204);
            times.push(time);
        }
        report("deleting a conversation of a ten-thousandth", &times);
    }

    /// Number of hits in the response.
    async fn search(&self, path: &str, is_user: bool, q: &str) -> usize {
        let q: String = form_urlencoded::byte_serialize(q.as_bytes()).collect();
        let url = format!("{}{path}/search?q={q}", self.address);
        let call = self.client.get(url);
        let call = if is_user {
            call.header("Authorization", format!("Bearer {}", self.token))
        } else {
            call.header("Octopus-API-Key", &self.key)
        };
        let hits: Vec<serde_json::Value> =
            call.send().await.expect("an answer").json().await.expect("hits");
        hits.len()
    }
}

/// Queries of each kind, made from the words of the messages.
fn queries(language: &Language, rng: &mut StdRng) -> Vec<(&'static str, Vec<String>)> {
    let mut kinds: Vec<(&str, Vec<String>)> = vec![];
    let mut add = |kind, make: &mut dyn FnMut() -> Option<String>| {
        let mut all = vec![];
        while all.len() < QUERIES {
            all.extend(make());
        }
        kinds.push((kind, all));
    };
    let mut rng_of = || StdRng::seed_from_u64(rng.random());
    for (kind, ranks) in [
        ("a common word", 0..50),
        ("a word of middling frequency", 300..3000),
        ("a rare word", 20_000..40_000),
    ] {
        let mut rng = rng_of();
        add(kind, &mut || {
            let word = &language.english[rng.random_range(ranks.clone())];
            (word.len() > 3).then(|| word.clone())
        });
    }
    let mut rng = rng_of();
    add("a word in no message", &mut || Some(format!("zzqxv{}", rng.random_range(0..1000))));
    let mut rng = rng_of();
    add("two words", &mut || {
        let words = [
            &language.english[language.rank(&mut rng)],
            &language.english[language.rank(&mut rng)],
        ];
        words.iter().all(|word| word.len() > 2).then(|| format!("{} {}", words[0], words[1]))
    });
    let mut rng = rng_of();
    add("a phrase of two words", &mut || {
        let message = language.message(&mut rng);
        let words: Vec<&str> = message.split(' ').collect();
        (words.len() > 2).then(|| format!("\"{} {}\"", words[1], words[2]))
    });
    for (kind, length) in [
        ("Japanese, four characters", 4),
        ("Japanese, two characters", 2),
        ("Japanese, one character", 1),
    ] {
        let mut rng = rng_of();
        add(kind, &mut || {
            let word = &language.japanese[language.rank(&mut rng)];
            let next = &language.japanese[language.rank(&mut rng)];
            let text = format!("{word}の{next}");
            let is_long = word.chars().count() >= length || length == 4 && text.chars().count() > 3;
            is_long.then(|| text.chars().take(length).collect())
        });
    }
    let mut rng = rng_of();
    add("two letters", &mut || {
        let mut letter = || char::from(b'a' + rng.random_range(0..26));
        Some([letter(), letter()].iter().collect())
    });
    kinds
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let messages = env::var("BENCH_MESSAGES").map_or(1_000_000, |n| n.parse().expect("a number"));
    let temporary = tempfile::tempdir().expect("a folder");
    let folder = env::var("BENCH_FOLDER").unwrap_or(temporary.path().display().to_string());
    let url = env::var("BENCH_DATABASE_URL").unwrap_or(format!("sqlite:///{folder}/search.db"));
    let variables = [
        ("DATABASE_URL", &*url),
        ("RATE_LIMIT_ENABLED", "false"),
        ("AUDIT_KEY", "an audit key of the bench with 32 bytes or more"),
    ];
    let variables: HashMap<_, _> =
        variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let config = Config::from_variables(variables).expect("a configuration");
    let app = AppState::open(config, Clock::default()).await.expect("a server");
    let (db, now) = (app.db.clone(), app.clock.now());

    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}/api/v1/conversations", listener.local_addr().expect("one"));
    let key = TokenKind::ApiKey.generate(&mut rand::rng()).expose().to_owned();
    let token = TokenKind::Session.generate(&mut rand::rng()).expose().to_owned();
    let client = http_client().no_proxy().build().expect("a client");
    let mut bench = Bench { client, address, key, token };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server::run(listener, app.clone(), async {
        let _ = stopped.await;
    }));

    let mut rng = StdRng::seed_from_u64(4);
    let language = Language::new(&mut rng);
    println!(
        "{:<52} {:>9} {:>9} {:>9} {:>9} {:>9}",
        format!("{}, {messages} messages", db.kind()),
        "ms median",
        "95 %",
        "most",
        "processor",
        "95 %"
    );
    if number(&db, "SELECT CAST(COUNT(*) AS BIGINT) FROM users").await == 0 {
        let created = bootstrap::from_command_line(&app).await.expect("the first key");
        bench.key = created.key.expose().to_owned();
        let (drop_index, make_index) = index(&db).await;
        run(&db, drop_index).await;
        let text = fill(&db, &language, messages, &mut rng).await;
        let before = db.size_bytes().await.expect("a size");
        bench.appends("appending a message without the index").await;
        let start = Instant::now();
        run(&db, make_index).await;
        let seconds = start.elapsed().as_secs_f64();
        let size = db.size_bytes().await.expect("a size") - before;
        println!("text {text} bytes, database {before}, index {size}, made in {seconds:.1} s");
        bench.appends("the same with it").await;
    } else {
        let (id,): (i64,) = {
            let mut tx = db.begin().await.expect("a transaction");
            let sql = "UPDATE api_keys SET key_hash = $1 WHERE id = 1 RETURNING id";
            let hash = SecretHash::of(&bench.key).to_vec();
            let id = query(&mut tx, sql).bind(hash).one().await.expect("a key");
            tx.commit().await.expect("a commit");
            id
        };
        assert_eq!(id, 1);
    }
    let mut tx = db.begin().await.expect("a transaction");
    let sql = "INSERT INTO sessions (token_hash, user_id, created_at, last_used_at, expires_at) \
               VALUES ($1, 1, $2, $2, $3)";
    let session = query(&mut tx, sql).bind(SecretHash::of(&bench.token).to_vec()).bind(now);
    session.bind(now + TimeDelta::days(1)).execute().await.expect("a session");
    tx.commit().await.expect("a commit");

    for (who, path, is_user) in [
        ("all conversations, by a key", "", false),
        ("a user's 100 of 10,000", "", true),
        ("one conversation", "/7", false),
    ] {
        println!("-- {who}");
        let mut all = vec![];
        for (kind, queries) in queries(&language, &mut StdRng::seed_from_u64(5)) {
            let (mut times, mut found) = (vec![], 0);
            for q in &queries {
                let (hits, time) = timed(bench.search(path, is_user, q)).await;
                times.push(time);
                found += hits;
            }
            all.extend(&times);
            report(
                &format!("{kind}, {:.1} hits", f64::from(u32::try_from(found).unwrap_or(0)) / 40.0),
                &times,
            );
        }
        report("all of these", &all);
    }
    bench.deletions(&db).await;
    let _ = stop.send(());
    running.await.expect("the server ends").expect("a clean shutdown");
}
