//! A write load: concurrent writers that issue every kind of write and record which writes were
//! acknowledged, and the check that a database holds exactly those.

mod conversations;
mod model;
mod stored;
mod writer;
mod writes;

pub use stored::is_sound;
pub use writer::{Write, Writer};
pub use writes::Kind;

use model::Facts;
use octopus::db::Db;
use std::collections::BTreeSet;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How long a writer waits after a 503.
const PAUSE: Duration = Duration::from_millis(100);

/// Concurrent writers.
pub struct Load {
    writers: Vec<Writer>,
    /// Pause of each writer between two writes.
    rest: Duration,
    /// Number of 503 responses.
    pub unavailable: usize,
    /// Writes without a response: how many, and how many of them were applied.
    pub lost_answers: (usize, usize),
}

/// When the writers stop.
#[derive(Clone)]
pub enum Until {
    /// When the connection to the server breaks.
    CutOff,
    /// When the token is cancelled. After a 503 a writer waits for [`PAUSE`].
    Cancelled(CancellationToken),
}

impl Load {
    /// `count` writers with an admin key.
    pub fn new(count: usize, admin: &str) -> Self {
        let writer = |n| Writer::new(format!("w{n}"), admin.to_owned());
        let writers = (0..count).map(writer).collect();
        Self { writers, rest: Duration::ZERO, unavailable: 0, lost_answers: (0, 0) }
    }

    /// Adds a pause between two writes of a writer.
    pub fn resting(self, rest: Duration) -> Self {
        Self { rest, ..self }
    }

    /// Runs the writers against the server at `url`.
    pub async fn work(&mut self, url: &str, until: Until) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let (mut tasks, url): (_, Arc<str>) = (JoinSet::new(), url.into());
        for writer in self.writers.drain(..) {
            tasks.spawn(write_on(writer, client.clone(), url.clone(), until.clone(), self.rest));
        }
        while let Some(ended) = tasks.join_next().await {
            let ended = ended.map_err(tokio::task::JoinError::into_panic);
            let (writer, unavailable) = ended.unwrap_or_else(|panic| resume_unwind(panic));
            self.writers.push(writer);
            self.unavailable += unavailable;
        }
    }

    /// Runs `work` with each writer concurrently.
    pub async fn each<F: Future<Output = Writer> + Send + 'static>(
        &mut self,
        work: impl Fn(Writer) -> F,
    ) {
        let mut tasks: JoinSet<Writer> = self.writers.drain(..).map(work).collect();
        while let Some(ended) = tasks.join_next().await {
            let ended = ended.map_err(tokio::task::JoinError::into_panic);
            self.writers.push(ended.unwrap_or_else(|panic| resume_unwind(panic)));
        }
    }

    /// Number of acknowledged writes.
    pub fn acknowledged(&self) -> usize {
        self.writers.iter().map(|writer| writer.acknowledged).sum()
    }

    /// Number of kinds of acknowledged writes, and of all kinds.
    pub fn kinds(&self) -> (usize, usize) {
        let known: BTreeSet<Kind> =
            self.writers.iter().flat_map(|writer| writer.kinds.iter().copied()).collect();
        (known.len(), Kind::ALL.len())
    }

    /// Retried requests with an `Idempotency-Key`: how many, and how many were already applied.
    pub fn repeated(&self) -> (usize, usize) {
        let repeated = self.writers.iter().map(|writer| writer.repeated);
        repeated.fold((0, 0), |(all, before), one| (all + one.0, before + one.1))
    }

    /// Asserts that `db` holds every acknowledged write and no write that was not sent, that each
    /// unconfirmed write was applied entirely or not at all, and that the tables are consistent.
    pub async fn check(&mut self, db: &Db) {
        let stored = stored::facts(db).await;
        for writer in &mut self.writers {
            let (all, happened) = writer.resolve(&stored);
            self.lost_answers.0 += all;
            self.lost_answers.1 += happened;
        }
        let expected: Facts =
            self.writers.iter().flat_map(|writer| writer.facts().clone()).collect();
        let names = expected.keys().chain(stored.keys());
        let mut wrong: Vec<_> =
            names.filter(|name| expected.get(*name) != stored.get(*name)).collect();
        wrong.sort_unstable();
        wrong.dedup();
        let shown = wrong.iter().take(20);
        let shown: Vec<_> = shown.map(|n| (n, expected.get(*n), stored.get(*n))).collect();
        assert!(wrong.is_empty(), "{} facts differ, expected and found: {shown:#?}", wrong.len());
        stored::is_sound(db).await;
    }

    /// Asserts that the server at `url` accepts the valid credentials and rejects the ended ones.
    pub async fn check_credentials(&self, url: &str) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let asked = async |path: &str, field: &str, value: String| {
            let call = client.get(format!("{url}/api/v1/{path}")).header(field, value);
            let answer = call.send().await.unwrap();
            (answer.status().as_u16(), answer.json::<serde_json::Value>().await.unwrap())
        };
        for writer in &self.writers {
            let (keys, tokens) = writer.good_credentials();
            for (key, id) in keys {
                let (status, own) = asked("api-keys/me", "Octopus-API-Key", key.to_owned()).await;
                assert_eq!((status, &own["id"]), (200, &id.into()), "{own}");
            }
            for token in tokens {
                let (status, own) =
                    asked("users/me", "Authorization", format!("Bearer {token}")).await;
                assert_eq!(status, 200, "{own}");
            }
            for ended in writer.ended_credentials() {
                let (status, own) =
                    asked("api-keys/me", "Authorization", format!("Bearer {ended}")).await;
                assert_eq!(status, 401, "{own}");
            }
        }
    }
}

async fn write_on(
    mut writer: Writer,
    client: reqwest::Client,
    url: Arc<str>,
    until: Until,
    rest: Duration,
) -> (Writer, usize) {
    let mut unavailable = 0;
    loop {
        if matches!(&until, Until::Cancelled(stop) if stop.is_cancelled()) {
            return (writer, unavailable);
        }
        let write = writer.next();
        match (write.call(&client, &url).try_send().await, &until) {
            (Ok(answer), Until::Cancelled(_)) if answer.status == 503 => {
                assert!(answer.header("retry-after").is_some(), "{answer:?}");
                writer.mark_unconfirmed(write);
                unavailable += 1;
                sleep(PAUSE).await;
            }
            (Ok(answer), _) => writer.acknowledge(write, &answer),
            (Err(_), Until::CutOff) => {
                writer.mark_unconfirmed(write);
                return (writer, unavailable);
            }
            (Err(error), Until::Cancelled(_)) => panic!("the server must stay up: {error:?}"),
        }
        if !rest.is_zero() {
            sleep(rest).await;
        }
    }
}
