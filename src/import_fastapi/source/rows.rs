//! Reads the rows of the source in pages. SQLite accepts any value in any column, so most columns
//! are read as bytes; `values` decodes them.

use super::database::Source;
use crate::db::{Query, query};
use sqlx::Result;

/// Rows per page.
const PAGE: i64 = 500;
/// Messages per page, and their total bytes; a larger message is a page of its own.
const MESSAGES: i64 = 2048;
const BYTES: i64 = 2 * 1024 * 1024;

/// The bytes of a column, or null.
pub type Raw = Option<Vec<u8>>;

#[derive(sqlx::FromRow)]
pub struct UserRow {
    pub id: i64,
    pub email: Raw,
    pub username: Raw,
    pub full_name: Raw,
    pub hashed_password: Raw,
    pub is_active: Raw,
    pub is_superuser: Raw,
    pub created_at: Raw,
    pub updated_at: Raw,
}

#[derive(sqlx::FromRow)]
pub struct KeyRow {
    pub id: i64,
    pub key: Raw,
    pub name: Raw,
    pub description: Raw,
    pub scopes: Raw,
    pub is_active: Raw,
    pub created_at: Raw,
    pub last_used_at: Raw,
    pub last_used_ip: Raw,
    pub expires_at: Raw,
    pub allowed_ips: Raw,
    pub created_by_user_id: Raw,
}

#[derive(sqlx::FromRow)]
pub struct ConversationRow {
    pub id: i64,
    pub title: Raw,
    pub created_at: Raw,
    pub updated_at: Raw,
}

#[derive(sqlx::FromRow)]
pub struct MessageRow {
    pub id: i64,
    pub conversation_id: i64,
    /// The position in the conversation: 1, 2, 3 …
    pub seq: i64,
    pub user_id: Raw,
    pub role: Raw,
    pub content: Raw,
    pub created_at: Raw,
}

#[derive(sqlx::FromRow)]
pub struct AuditRow {
    pub id: i64,
    pub api_key_id: Raw,
    pub action: Raw,
    pub performed_by_key_id: Raw,
    pub performed_by_ip: Raw,
    /// Only in an early version.
    pub performed_by: Raw,
    /// Only in an early version.
    pub ip_address: Raw,
    pub details: Raw,
    pub timestamp: Raw,
}

/// A column for [`Source::select`]: its name, and the SQL if it exists and if it is missing.
macro_rules! column {
    ($name:literal) => {
        ($name, concat!(", CAST(", $name, " AS BLOB) AS ", $name), concat!(", NULL AS ", $name))
    };
}

type Column = (&'static str, &'static str, &'static str);

impl Source {
    /// Selects existing columns as bytes and missing ones as null.
    fn select<'c>(&'c mut self, table: &'static str, columns: &[Column]) -> Query<'c> {
        let Self { snapshot, schema, .. } = self;
        let mut statement = query(snapshot, "SELECT id");
        for (name, existing, missing) in columns {
            statement = statement.push(if schema.has(table, name) { existing } else { missing });
        }
        statement.push(" FROM ").push(table)
    }

    /// The number of rows of a table; 0 if it does not exist.
    pub async fn count(&mut self, table: &'static str) -> Result<i64> {
        if !self.schema.has_table(table) {
            return Ok(0);
        }
        let statement = query(&mut self.snapshot, "SELECT COUNT(*) FROM ").push(table);
        let (count,): (i64,) = statement.one().await?;
        Ok(count)
    }

    /// The highest number up to `most` in `column` of `table`, at least 0.
    pub async fn highest(
        &mut self,
        table: &'static str,
        column: &'static str,
        most: i64,
    ) -> Result<i64> {
        if !self.schema.has(table, column) {
            return Ok(0);
        }
        let statement = query(&mut self.snapshot, "SELECT COALESCE(MAX(CAST(").push(column);
        let statement = statement.push(" AS INTEGER)), 0) FROM ").push(table).push(" WHERE CAST(");
        let statement = statement.push(column).push(" AS INTEGER) <= ").push_bind(most);
        let (highest,): (i64,) = statement.one().await?;
        Ok(highest.max(0))
    }

    pub async fn users(&mut self, after: i64) -> Result<Vec<UserRow>> {
        let columns = [
            column!("email"),
            column!("username"),
            column!("full_name"),
            column!("hashed_password"),
            column!("is_active"),
            column!("is_superuser"),
            column!("created_at"),
            column!("updated_at"),
        ];
        page(self.select("users", &columns), after).all().await
    }

    pub async fn keys(&mut self, after: i64) -> Result<Vec<KeyRow>> {
        if !self.schema.has_table("api_keys") {
            return Ok(vec![]);
        }
        let columns = [
            column!("key"),
            column!("name"),
            column!("description"),
            column!("scopes"),
            column!("is_active"),
            column!("created_at"),
            column!("last_used_at"),
            column!("last_used_ip"),
            column!("expires_at"),
            column!("allowed_ips"),
            column!("created_by_user_id"),
        ];
        page(self.select("api_keys", &columns), after).all().await
    }

    pub async fn conversations(&mut self, after: i64) -> Result<Vec<ConversationRow>> {
        let columns = [column!("title"), column!("created_at"), column!("updated_at")];
        page(self.select("conversations", &columns), after).all().await
    }

    pub async fn audit_logs(&mut self, after: i64) -> Result<Vec<AuditRow>> {
        if !self.schema.has_table("api_key_audit_logs") {
            return Ok(vec![]);
        }
        let columns = [
            column!("api_key_id"),
            column!("action"),
            column!("performed_by_key_id"),
            column!("performed_by_ip"),
            column!("performed_by"),
            column!("ip_address"),
            column!("details"),
            column!("timestamp"),
        ];
        page(self.select("api_key_audit_logs", &columns), after).all().await
    }

    /// The next participants after the pair `after`, as user and conversation ids, in order. Rows
    /// without valid ids are omitted.
    pub async fn participants(&mut self, after: (i64, i64)) -> Result<Vec<(i64, i64)>> {
        const SQL: &str = "SELECT DISTINCT user_id, conversation_id \
            FROM conversation_participants WHERE (user_id, conversation_id) > ($1, $2) \
            AND typeof(user_id) = 'integer' AND typeof(conversation_id) = 'integer' \
            ORDER BY user_id, conversation_id LIMIT $3";
        if !self.schema.has_table("conversation_participants") {
            return Ok(vec![]);
        }
        let statement = query(&mut self.snapshot, SQL).bind(after.0).bind(after.1);
        statement.bind(MESSAGES).all().await
    }

    /// Determines the position of each message in its conversation, by time and then by id. Returns
    /// the number of messages. SQLite sorts on disk if the data exceeds its memory.
    pub async fn assign_positions(&mut self) -> Result<i64> {
        const TABLE: &str = "CREATE TEMP TABLE places \
            (id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, bytes INTEGER NOT NULL)";
        const FILL: &str = "INSERT INTO places SELECT id, seq, bytes FROM (SELECT m.id, \
            COALESCE(octet_length(m.content), 0) AS bytes, ROW_NUMBER() OVER \
            (PARTITION BY m.conversation_id ORDER BY ";
        const BY_TIME: &str = "unixepoch(m.created_at, 'subsec'), m.created_at, ";
        const FROM: &str = "m.id) AS seq FROM messages m \
            WHERE typeof(m.conversation_id) = 'integer' \
            AND m.conversation_id IN (SELECT c.id FROM conversations c)) ORDER BY id";
        query(&mut self.snapshot, TABLE).execute().await?;
        let has_time = self.schema.has("messages", "created_at");
        let statement = query(&mut self.snapshot, FILL).push(if has_time { BY_TIME } else { "" });
        let placed = statement.push(FROM).execute().await?;
        Ok(i64::try_from(placed).unwrap_or(i64::MAX))
    }

    /// The next messages with ids above `after`, in order. Call [`Source::assign_positions`] first.
    pub async fn messages(&mut self, after: i64) -> Result<Vec<MessageRow>> {
        const SIZES: &str = "SELECT id, bytes FROM places WHERE id > $1 ORDER BY id LIMIT $2";
        const SELECT: &str = "SELECT m.id, m.conversation_id, p.seq, \
            CAST(m.role AS BLOB) AS role, CAST(m.content AS BLOB) AS content";
        let sizes = query(&mut self.snapshot, SIZES).bind(after).bind(MESSAGES);
        let sizes: Vec<(i64, i64)> = sizes.all().await?;
        let Some(mut last) = sizes.first().map(|(id, _)| *id) else { return Ok(vec![]) };
        let mut bytes = 0;
        for (id, size) in sizes {
            bytes += size;
            if bytes > BYTES {
                break;
            }
            last = last.max(id);
        }
        let Self { snapshot, schema, .. } = self;
        let mut statement = query(snapshot, SELECT);
        let (time, user) =
            (schema.has("messages", "created_at"), schema.has("messages", "user_id"));
        statement = statement.push(if user {
            ", CAST(m.user_id AS BLOB) AS user_id"
        } else {
            ", NULL AS user_id"
        });
        statement = statement.push(if time {
            ", CAST(m.created_at AS BLOB) AS created_at"
        } else {
            ", NULL AS created_at"
        });
        statement = statement.push(" FROM places p JOIN messages m ON m.id = p.id WHERE p.id > ");
        statement = statement.push_bind(after).push(" AND p.id <= ").push_bind(last);
        statement.push(" ORDER BY p.id").all().await
    }

    /// The next messages with ids above `after` whose conversation does not exist: message id and
    /// conversation id, if valid.
    pub async fn orphans(&mut self, after: i64) -> Result<Vec<(i64, Option<i64>)>> {
        const SQL: &str = "SELECT m.id, CASE typeof(m.conversation_id) WHEN 'integer' \
            THEN m.conversation_id END FROM messages m WHERE m.id NOT IN (SELECT p.id FROM places p) AND m.id > ";
        page_after(query(&mut self.snapshot, SQL), "m.id", after).all().await
    }

    /// The number of participants without a valid user or conversation id.
    pub async fn empty_participants(&mut self) -> Result<i64> {
        const SQL: &str = "SELECT COUNT(*) FROM conversation_participants \
            WHERE typeof(user_id) <> 'integer' OR typeof(conversation_id) <> 'integer'";
        if !self.schema.has_table("conversation_participants") {
            return Ok(0);
        }
        let (count,): (i64,) = query(&mut self.snapshot, SQL).one().await?;
        Ok(count)
    }
}

/// Limits a query to the next page, with ids above `after`.
fn page(statement: Query<'_>, after: i64) -> Query<'_> {
    page_after(statement.push(" WHERE id > "), "id", after)
}

fn page_after<'c>(statement: Query<'c>, id: &'static str, after: i64) -> Query<'c> {
    let statement = statement.push_bind(after).push(" ORDER BY ").push(id);
    statement.push(" LIMIT ").push_bind(PAGE)
}
