//! Sessions without a sign-in, which would take the time of a password hash.

use super::TestApp;
use chrono::TimeDelta;
use octopus::core::key_format::SESSION_PREFIX;
use octopus::db::query;
use octopus::security::secret;

impl TestApp {
    /// Creates a session of a user. Returns its token.
    pub async fn session_of(&self, user_id: i64) -> String {
        const SQL: &str = "INSERT INTO sessions \
            (token_hash, user_id, created_at, last_used_at, expires_at) VALUES ($1, $2, $3, $3, $4)";
        let token = secret::generate_token(SESSION_PREFIX, &mut rand::rng());
        let now = self.state.clock.now();
        let mut tx = self.state.db.begin().await.unwrap();
        let statement = query(&mut tx, SQL).bind(secret::hash(&token).to_vec()).bind(user_id);
        statement.bind(now).bind(now + TimeDelta::days(90)).execute().await.unwrap();
        tx.commit().await.unwrap();
        token
    }
}
