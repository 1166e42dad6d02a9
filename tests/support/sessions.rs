//! Sessions without a sign-in, which would take the time of a password hash.

use super::TestApp;
use chrono::TimeDelta;
use octopus::db::query;
use octopus::security::secret::{SecretHash, TokenKind};

impl TestApp {
    /// Creates a session of a user. Returns its token.
    pub async fn session_of(&self, user_id: i64) -> String {
        const SQL: &str = "INSERT INTO sessions \
            (token_hash, user_id, created_at, last_used_at, expires_at) VALUES ($1, $2, $3, $3, $4)";
        let token = TokenKind::Session.generate(&mut rand::rng()).expose().to_owned();
        let now = self.state.clock.now();
        let mut tx = self.state.db.begin().await.unwrap();
        let statement = query(&mut tx, SQL).bind(SecretHash::of(&token).to_vec()).bind(user_id);
        statement.bind(now).bind(now + TimeDelta::days(90)).execute().await.unwrap();
        tx.commit().await.unwrap();
        token
    }
}
