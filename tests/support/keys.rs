//! API keys looked up on the server's state, without a request.

use super::TestApp;
use octopus::core::text::folded;
use octopus::db::query;
use octopus::security::secret::{SecretHash, TokenKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

impl TestApp {
    /// Inserts `n` read keys in one transaction, without audit entries. Returns secrets and ids.
    pub async fn many_keys(&self, n: usize) -> Vec<(String, i64)> {
        const SQL: &str = "INSERT INTO api_keys \
            (key_hash, key_prefix, name, name_key, scopes, is_active, created_at) \
            VALUES ($1, 'octopus_many', $2, $3, 'read', TRUE, $4) RETURNING id";
        let mut made = vec![];
        let mut tx = self.state.db.begin().await.unwrap();
        for n in 0..n {
            let key = TokenKind::ApiKey.generate(&mut rand::rng()).expose().to_owned();
            let name = format!("Key {n}");
            let statement = query(&mut tx, SQL).bind(SecretHash::of(&key).to_vec());
            let statement = statement.bind(&*name).bind(folded(&name)).bind(self.state.clock.now());
            let (id,): (i64,) = statement.one().await.unwrap();
            made.push((key, id));
        }
        tx.commit().await.unwrap();
        made
    }

    /// Whether `key` is valid now, without a check of the address.
    pub async fn is_valid(&self, key: &str) -> bool {
        let found = self.state.keys.find(key).await.unwrap();
        found.is_some_and(|key| key.check(self.state.clock.now(), None).is_ok())
    }

    /// Whether the cache has `key`.
    pub async fn is_cached(&self, key: &str) -> bool {
        let first = self.state.keys.find(key).await.unwrap();
        let second = self.state.keys.find(key).await.unwrap();
        // Each lookup in the database returns a new value.
        first.zip(second).is_some_and(|(first, second)| Arc::ptr_eq(&first, &second))
    }

    /// Waits until the cache has `key`. After the start of a server the cache is off for a moment.
    pub async fn wait_until_cached(&self, key: &str) {
        for _ in 0..1000 {
            if self.is_cached(key).await {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
        panic!("the key is not cached");
    }
}
