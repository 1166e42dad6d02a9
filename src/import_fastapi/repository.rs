//! SQL of the import. It writes tables of several features, which do not depend on this module.

use crate::core::clock::Timestamp;
use crate::db::{Query, Tx, query};
use crate::security::secret::SecretHash;
use chrono::{DateTime, Utc};
use sqlx::Result;

/// Rows per INSERT statement, from large to small for the remainder. There are few sizes, as the
/// databases cache each statement text. The sizes are small, as SQLite's driver searches all
/// parameters of a statement for each bind: the time is quadratic.
const ROWS: [usize; 3] = [32, 4, 1];
/// Rows looked up per statement.
pub const LOOKED_UP: usize = 128;
/// Memory of SQLite's search index before it writes, in bytes: normally, and during an import.
const INDEX_MEMORY: (i64, i64) = (1024 * 1024, 8 * 1024 * 1024);

/// An existing user with a conflicting email or username.
#[derive(sqlx::FromRow)]
pub struct ConflictingUser {
    pub id: i64,
    pub email_key: String,
    pub username_key: String,
    #[sqlx(try_from = "Timestamp")]
    pub created_at: DateTime<Utc>,
}

pub struct NewUser {
    pub id: i64,
    pub email: String,
    pub email_key: String,
    pub email_canonical: String,
    pub username: String,
    pub username_key: String,
    pub username_canonical: String,
    pub username_skeleton: String,
    pub full_name: Option<String>,
    pub password_hash: String,
    pub is_active: bool,
    pub is_superuser: bool,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

pub struct NewKey {
    pub id: i64,
    pub hash: SecretHash,
    pub prefix: String,
    pub name: String,
    pub name_key: String,
    pub description: Option<String>,
    pub scopes: String,
    pub is_active: bool,
    pub created_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    pub last_used_at: Option<DateTime<Utc>>,
    pub last_used_ip: Option<String>,
    pub allowed_ips: Option<String>,
    pub created_by_user_id: Option<i64>,
}

pub struct NewConversation {
    pub id: i64,
    pub external_id: String,
    pub title: Option<String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

pub struct NewMessage {
    pub id: i64,
    pub conversation_id: i64,
    pub seq: i64,
    pub role: &'static str,
    pub content: String,
    pub user_id: Option<i64>,
    pub metadata: Option<String>,
    pub created_at: DateTime<Utc>,
}

/// Users with one of these emails or this username.
pub async fn conflicting_users(
    tx: &mut Tx,
    emails: [&str; 2],
    username: &str,
) -> Result<Vec<ConflictingUser>> {
    const SQL: &str = "SELECT id, email_key, username_key, created_at FROM users \
        WHERE email_key IN ($1, $2) OR username_key = $3 ORDER BY id";
    query(tx, SQL).bind(emails[0]).bind(emails[1]).bind(username).all().await
}

/// Returns whether a user has this username.
pub async fn has_username(tx: &mut Tx, key: &str) -> Result<bool> {
    const SQL: &str = "SELECT id FROM users WHERE username_key = $1";
    Ok(query(tx, SQL).bind(key).optional::<(i64,)>().await?.is_some())
}

pub async fn insert_user(tx: &mut Tx, new: &NewUser) -> Result<()> {
    const SQL: &str = "INSERT INTO users (id, email, email_key, username, username_key, full_name, \
        password_hash, is_active, is_superuser, created_at, updated_at, username_canonical, \
        username_skeleton, email_canonical, username_duplicate, email_duplicate) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, \
        CASE WHEN EXISTS (SELECT 1 FROM users WHERE username_canonical = $12) THEN $1 ELSE 0 END, \
        CASE WHEN EXISTS (SELECT 1 FROM users WHERE email_canonical = $14) THEN $1 ELSE 0 END)";
    let statement = query(tx, SQL).bind(new.id).bind(&*new.email).bind(&*new.email_key);
    let statement = statement.bind(&*new.username).bind(&*new.username_key);
    let statement = statement.bind(new.full_name.as_deref()).bind(&*new.password_hash);
    let statement = statement.bind(new.is_active).bind(new.is_superuser);
    let statement = statement.bind(new.created_at).bind(new.updated_at);
    let statement = statement.bind(&*new.username_canonical).bind(&*new.username_skeleton);
    statement.bind(&*new.email_canonical).execute().await.map(drop)
}

/// The id and name of the key with this hash.
pub async fn key(tx: &mut Tx, hash: SecretHash) -> Result<Option<(i64, String)>> {
    const SQL: &str = "SELECT id, name FROM api_keys WHERE key_hash = $1";
    query(tx, SQL).bind(hash.to_vec()).optional().await
}

pub async fn insert_key(tx: &mut Tx, new: &NewKey) -> Result<()> {
    const SQL: &str = "INSERT INTO api_keys (id, key_hash, key_prefix, name, name_key, description, \
        scopes, is_active, created_at, expires_at, last_used_at, last_used_ip, allowed_ips, \
        created_by_user_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";
    let statement = query(tx, SQL).bind(new.id).bind(new.hash.to_vec()).bind(&*new.prefix);
    let statement = statement.bind(&*new.name).bind(&*new.name_key);
    let statement = statement.bind(new.description.as_deref()).bind(&*new.scopes);
    let statement = statement.bind(new.is_active).bind(new.created_at).bind(new.expires_at);
    let statement = statement.bind(new.last_used_at).bind(new.last_used_ip.as_deref());
    let statement = statement.bind(new.allowed_ips.as_deref()).bind(new.created_by_user_id);
    statement.execute().await.map(drop)
}

/// Which of at most [`LOOKED_UP`] conversations exist: external id, id and last position of each.
pub async fn conversations(tx: &mut Tx, names: &[&str]) -> Result<Vec<(String, i64, i64)>> {
    const SQL: &str = "SELECT external_id, id, last_seq FROM conversations WHERE external_id IN (";
    let mut statement = query(tx, SQL);
    for index in 0..LOOKED_UP {
        let name = names.get(index).or(names.last()).copied();
        statement = statement.push(if index == 0 { "" } else { ", " }).push_bind(name);
    }
    statement.push(")").all().await
}

pub async fn insert_conversations(tx: &mut Tx, new: &[NewConversation]) -> Result<()> {
    const SQL: &str = "INSERT INTO conversations (id, external_id, title, last_seq, active_at, \
        created_at, updated_at) VALUES ";
    insert_all(tx, SQL, "", new, |statement, new| {
        let statement = statement.push("(").push_bind(new.id);
        let statement = statement.push(", ").push_bind(&*new.external_id);
        let statement = statement.push(", ").push_bind(new.title.as_deref());
        let statement = statement.push(", 0, ").push_bind(new.created_at);
        let statement = statement.push(", ").push_bind(new.created_at);
        statement.push(", ").push_bind(new.updated_at).push(")")
    })
    .await
}

/// Inserts participants: pairs of user and conversation id.
pub async fn insert_participants(tx: &mut Tx, pairs: &[(i64, i64)]) -> Result<()> {
    const SQL: &str = "INSERT INTO participants (user_id, conversation_id) VALUES ";
    insert_all(tx, SQL, " ON CONFLICT DO NOTHING", pairs, |statement, (user, conversation)| {
        let statement = statement.push("(").push_bind(*user);
        statement.push(", ").push_bind(*conversation).push(")")
    })
    .await
}

pub async fn insert_messages(tx: &mut Tx, new: &[NewMessage]) -> Result<()> {
    const SQL: &str = "INSERT INTO messages (id, conversation_id, seq, role, content, user_id, \
        metadata, created_at) VALUES ";
    insert_all(tx, SQL, "", new, |statement, new| {
        let statement = statement.push("(").push_bind(new.id);
        let statement = statement.push(", ").push_bind(new.conversation_id);
        let statement = statement.push(", ").push_bind(new.seq);
        let statement = statement.push(", ").push_bind(new.role);
        let statement = statement.push(", ").push_bind(&*new.content);
        let statement = statement.push(", ").push_bind(new.user_id);
        let statement = statement.push(", ").push_bind(new.metadata.as_deref());
        statement.push(", ").push_bind(new.created_at).push(")")
    })
    .await
}

/// Inserts `rows`, several per statement.
async fn insert_all<T>(
    tx: &mut Tx,
    sql: &'static str,
    end: &'static str,
    rows: &[T],
    append: impl for<'c> Fn(Query<'c>, &T) -> Query<'c>,
) -> Result<()> {
    let mut rest = rows;
    for size in ROWS {
        while let Some((now, later)) = rest.split_at_checked(size) {
            let mut statement = query(&mut *tx, sql);
            for (index, row) in now.iter().enumerate() {
                statement = append(statement.push(if index == 0 { "" } else { ", " }), row);
            }
            statement.push(end).execute().await?;
            rest = later;
        }
    }
    Ok(())
}

/// Updates the last position and last activity of conversations with ids above `after`.
pub async fn count_messages(tx: &mut Tx, after: i64) -> Result<()> {
    const LAST: &str = "UPDATE conversations SET last_seq = COALESCE((SELECT MAX(m.seq) \
        FROM messages m WHERE m.conversation_id = conversations.id), 0) WHERE id > $1";
    const ACTIVE: &str = "UPDATE conversations SET active_at = (SELECT m.created_at FROM messages m \
        WHERE m.conversation_id = conversations.id AND m.seq = conversations.last_seq) \
        WHERE id > $1 AND last_seq > 0";
    query(&mut *tx, LAST).bind(after).execute().await?;
    query(tx, ACTIVE).bind(after).execute().await.map(drop)
}

/// Returns whether there is any message.
pub async fn has_messages(tx: &mut Tx) -> Result<bool> {
    const SQL: &str = "SELECT id FROM messages LIMIT 1";
    Ok(query(tx, SQL).optional::<(i64,)>().await?.is_some())
}

/// Configures SQLite's search index for bulk inserts: few large segments, merged at the end.
/// Postgres rebuilds its index when it is restored.
pub async fn begin_index(tx: &mut Tx, is_new: bool) -> Result<()> {
    if is_new && tx.is_sqlite() {
        configure_index(tx, "hashsize", INDEX_MEMORY.1).await?;
        configure_index(tx, "automerge", 0).await?;
        configure_index(tx, "crisismerge", 1999).await?;
    }
    Ok(())
}

/// Merges the segments of SQLite's search index and restores its configuration.
pub async fn end_index(tx: &mut Tx, is_new: bool) -> Result<()> {
    const OPTIMIZE: &str = "INSERT INTO message_search (message_search) VALUES ('optimize')";
    if is_new && tx.is_sqlite() {
        query(&mut *tx, OPTIMIZE).execute().await?;
        // The defaults of FTS5.
        configure_index(tx, "crisismerge", 16).await?;
        configure_index(tx, "automerge", 4).await?;
        configure_index(tx, "hashsize", INDEX_MEMORY.0).await?;
    }
    Ok(())
}

async fn configure_index(tx: &mut Tx, option: &str, value: i64) -> Result<()> {
    const SQL: &str = "INSERT INTO message_search (message_search, rank) VALUES ($1, $2)";
    query(tx, SQL).bind(option).bind(value).execute().await.map(drop)
}

/// The next entries imported from the audit log of the FastAPI app, with positions above `after`:
/// position and details of each. No other entry of the host has details that begin so.
pub async fn imported_entries(tx: &mut Tx, after: i64) -> Result<Vec<(i64, String)>> {
    const SQL: &str = "SELECT seq, details FROM api_key_audit_logs \
        WHERE performed_by = 'host' AND details LIKE '{\"original\":%' AND seq > $1 \
        ORDER BY seq LIMIT 500";
    query(tx, SQL).bind(after).all().await
}
