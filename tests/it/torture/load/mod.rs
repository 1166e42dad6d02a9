//! Writers of every kind of write, who remember what was acknowledged, and what a database must
//! hold of it.

mod stored;
mod talks;
mod things;
mod writer;
mod writes;

pub use stored::is_sound;
pub use writer::{Write, Writer};
pub use writes::Kind;

use octopus::db::Db;
use std::collections::BTreeSet;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;
use things::Facts;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How long a writer waits after a 503.
const PAUSE: Duration = Duration::from_millis(100);

/// Writers who work at the same time.
pub struct Load {
    writers: Vec<Writer>,
    /// How long each rests between two writes.
    rest: Duration,
    /// Answers that said the database is away.
    pub unavailable: usize,
    /// Writes whose answers were lost: all, and those that had happened.
    pub lost_answers: (usize, usize),
}

/// When writers end.
#[derive(Clone)]
pub enum Until {
    /// When the server is gone.
    CutOff,
    /// When they are told to. A 503 makes them wait a little.
    Told(CancellationToken),
}

impl Load {
    /// `count` writers with an admin key.
    pub fn new(count: usize, admin: &str) -> Self {
        let writer = |n| Writer::new(format!("w{n}"), admin.to_owned());
        let writers = (0..count).map(writer).collect();
        Self { writers, rest: Duration::ZERO, unavailable: 0, lost_answers: (0, 0) }
    }

    /// The same, not as fast as they can.
    pub fn resting(self, rest: Duration) -> Self {
        Self { rest, ..self }
    }

    /// Writes to the server at `url`.
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

    /// Has each writer do something of its own.
    pub async fn each<F: Future<Output = Writer> + Send + 'static>(
        &mut self,
        deed: impl Fn(Writer) -> F,
    ) {
        let mut tasks: JoinSet<Writer> = self.writers.drain(..).map(deed).collect();
        while let Some(ended) = tasks.join_next().await {
            let ended = ended.map_err(tokio::task::JoinError::into_panic);
            self.writers.push(ended.unwrap_or_else(|panic| resume_unwind(panic)));
        }
    }

    /// Writes that were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.writers.iter().map(|writer| writer.acknowledged).sum()
    }

    /// Kinds of writes that were, of all there are.
    pub fn kinds(&self) -> (usize, usize) {
        let known: BTreeSet<Kind> =
            self.writers.iter().flat_map(|writer| writer.kinds.iter().copied()).collect();
        (known.len(), Kind::ALL.len())
    }

    /// Requests with an `Idempotency-Key` that were sent again: all, and those that had happened.
    pub fn repeated(&self) -> (usize, usize) {
        let repeated = self.writers.iter().map(|writer| writer.repeated);
        repeated.fold((0, 0), |(all, before), one| (all + one.0, before + one.1))
    }

    /// Asserts that `db` has everything that was acknowledged, nothing that was not sent, of what
    /// nobody knows all or nothing, and that no part of it contradicts another.
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
        let told = wrong.iter().take(20);
        let told: Vec<_> = told.map(|n| (n, expected.get(*n), stored.get(*n))).collect();
        assert!(wrong.is_empty(), "{} facts differ, expected and found: {told:#?}", wrong.len());
        stored::is_sound(db).await;
    }

    /// Asserts that the server at `url` lets in whom it should, and nobody else.
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
        if matches!(&until, Until::Told(told) if told.is_cancelled()) {
            return (writer, unavailable);
        }
        let write = writer.next();
        match (write.call(&client, &url).try_send().await, &until) {
            (Ok(answer), Until::Told(_)) if answer.status == 503 => {
                assert!(answer.header("retry-after").is_some(), "{answer:?}");
                writer.doubt(write);
                unavailable += 1;
                sleep(PAUSE).await;
            }
            (Ok(answer), _) => writer.acknowledge(write, &answer),
            (Err(_), Until::CutOff) => {
                writer.doubt(write);
                return (writer, unavailable);
            }
            (Err(error), Until::Told(_)) => panic!("the server must go on: {error:?}"),
        }
        if !rest.is_zero() {
            sleep(rest).await;
        }
    }
}
