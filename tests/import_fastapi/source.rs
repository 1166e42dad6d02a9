//! Databases of the FastAPI original, with the schema that SQLAlchemy creates.

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, SqliteConnection};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The password of every user of [`Source::insert_users`].
pub const PASSWORD: &str = "the-horse-of-the-original";
/// A key in the format of the original: `token_urlsafe(32)`.
pub const MASTER: &str = "octopus_Jq3-0h1kX_zH7w2mVvJ0bT9sYcN4dLrPqA5eFgUiKoM";
pub const READER: &str = "octopus_R3ad-rUo1kX_zH7w2mVvJ0bT9sYcN4dLrPqA5eFgUi1";

const TABLES: &str = "
    CREATE TABLE users (id INTEGER NOT NULL, email VARCHAR(255) NOT NULL,
        username VARCHAR(100) NOT NULL, full_name VARCHAR(255),
        hashed_password VARCHAR(255) NOT NULL, is_active BOOLEAN NOT NULL,
        is_superuser BOOLEAN NOT NULL, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL,
        PRIMARY KEY (id));
    CREATE UNIQUE INDEX ix_users_email ON users (email);
    CREATE UNIQUE INDEX ix_users_username ON users (username);
    CREATE TABLE conversations (id INTEGER NOT NULL, title VARCHAR(255), created_at DATETIME NOT NULL,
        updated_at DATETIME NOT NULL, PRIMARY KEY (id));
    CREATE TABLE conversation_participants (user_id INTEGER NOT NULL,
        conversation_id INTEGER NOT NULL, joined_at DATETIME NOT NULL,
        PRIMARY KEY (user_id, conversation_id), FOREIGN KEY(user_id) REFERENCES users (id),
        FOREIGN KEY(conversation_id) REFERENCES conversations (id));
    CREATE TABLE messages (id INTEGER NOT NULL, conversation_id INTEGER NOT NULL, user_id INTEGER,
        role VARCHAR(50) NOT NULL, content TEXT NOT NULL, created_at DATETIME NOT NULL,
        PRIMARY KEY (id), FOREIGN KEY(conversation_id) REFERENCES conversations (id),
        FOREIGN KEY(user_id) REFERENCES users (id));";

const KEYS_FIRST: &str = r#"
    CREATE TABLE api_keys (id INTEGER NOT NULL, "key" VARCHAR(255) NOT NULL,
        name VARCHAR(255) NOT NULL, description TEXT, scopes VARCHAR(500) NOT NULL,
        is_active BOOLEAN NOT NULL, created_at DATETIME NOT NULL, last_used_at DATETIME,
        expires_at DATETIME, created_by_user_id INTEGER, PRIMARY KEY (id),
        FOREIGN KEY(created_by_user_id) REFERENCES users (id));
    CREATE UNIQUE INDEX ix_api_keys_key ON api_keys ("key");"#;

const KEYS_SECOND: &str = r#"
    CREATE TABLE api_keys (id INTEGER NOT NULL, "key" VARCHAR(255) NOT NULL,
        name VARCHAR(255) NOT NULL, description TEXT, scopes VARCHAR(500) NOT NULL,
        is_active BOOLEAN NOT NULL, created_at DATETIME NOT NULL, last_used_at DATETIME,
        last_used_ip VARCHAR(45), expires_at DATETIME, allowed_ips TEXT,
        created_by_user_id INTEGER, PRIMARY KEY (id),
        FOREIGN KEY(created_by_user_id) REFERENCES users (id));
    CREATE UNIQUE INDEX ix_api_keys_key ON api_keys ("key");
    CREATE TABLE api_key_audit_logs (id INTEGER NOT NULL, api_key_id INTEGER,
        action VARCHAR(50) NOT NULL, performed_by_key_id INTEGER, performed_by_ip VARCHAR(45),
        details TEXT, timestamp DATETIME NOT NULL, PRIMARY KEY (id),
        FOREIGN KEY(api_key_id) REFERENCES api_keys (id),
        FOREIGN KEY(performed_by_key_id) REFERENCES api_keys (id));"#;

/// The table that an early migration of the original created.
const EARLY_AUDIT_LOG: &str = "
    DROP TABLE api_key_audit_logs;
    CREATE TABLE api_key_audit_logs (id INTEGER PRIMARY KEY AUTOINCREMENT, api_key_id INTEGER,
        action VARCHAR(50) NOT NULL, performed_by VARCHAR(255), ip_address VARCHAR(45),
        details TEXT, timestamp DATETIME DEFAULT CURRENT_TIMESTAMP,
        FOREIGN KEY(api_key_id) REFERENCES api_keys (id));";

/// A database file of the original.
pub struct Source {
    pub path: PathBuf,
}

/// An API key to insert: the columns of the second schema.
#[derive(Clone)]
#[expect(clippy::struct_field_names, reason = "the name of the column")]
pub struct Key<'k> {
    pub id: i64,
    pub key: &'k str,
    pub name: &'k str,
    pub scopes: &'k str,
    pub is_active: bool,
    pub expires_at: Option<&'k str>,
    pub allowed_ips: Option<&'k str>,
}

impl Default for Key<'_> {
    fn default() -> Self {
        Self {
            id: 1,
            key: MASTER,
            name: "Master API Key",
            scopes: "admin,read,write",
            is_active: true,
            expires_at: None,
            allowed_ips: None,
        }
    }
}

impl Source {
    /// Without API keys, like the first version of the original.
    pub async fn without_keys(folder: &Path) -> Self {
        Self::make(folder, &[TABLES]).await
    }

    /// The first schema of API keys: without addresses and audit log.
    pub async fn first(folder: &Path) -> Self {
        Self::make(folder, &[TABLES, KEYS_FIRST]).await
    }

    pub async fn second(folder: &Path) -> Self {
        Self::make(folder, &[TABLES, KEYS_SECOND]).await
    }

    pub async fn with_early_audit_log(folder: &Path) -> Self {
        Self::make(folder, &[TABLES, KEYS_SECOND, EARLY_AUDIT_LOG]).await
    }

    async fn make(folder: &Path, tables: &[&str]) -> Self {
        let source = Self { path: folder.join("chat_conversations.db") };
        source.execute(&tables.concat()).await;
        source
    }

    /// Runs the statements on the file.
    pub async fn execute(&self, sql: &str) {
        let mut connection = self.connect(SqliteJournalMode::Delete).await;
        connection.execute(AssertSqlSafe(sql.to_owned())).await.expect(sql);
        connection.close().await.unwrap();
    }

    pub async fn connect(&self, mode: SqliteJournalMode) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(&self.path).create_if_missing(true);
        // SQLAlchemy does not enable foreign keys.
        options.foreign_keys(false).journal_mode(mode).connect().await.unwrap()
    }

    pub async fn key(&self, key: Key<'_>) {
        let quoted = |text: Option<&str>| {
            text.map_or("NULL".to_owned(), |text| format!("'{}'", text.replace('\'', "''")))
        };
        let sql = format!(
            "INSERT INTO api_keys (id, \"key\", name, scopes, is_active, created_at, expires_at, \
             allowed_ips, last_used_at, last_used_ip) VALUES ({}, {}, {}, {}, {}, \
             '2025-01-01 00:00:00.000000', {}, {}, '2025-03-01 10:20:30.123456', '192.0.2.9')",
            key.id,
            quoted(Some(key.key)),
            quoted(Some(key.name)),
            quoted(Some(key.scopes)),
            u8::from(key.is_active),
            quoted(key.expires_at),
            quoted(key.allowed_ips),
        );
        self.execute(&sql).await;
    }

    /// Inserts users 1 to 3: ada, bob and cleo, registered on the first three days of 2025.
    pub async fn insert_users(&self) {
        let mut sql = String::new();
        for (id, name) in [(1, "ada"), (2, "bob"), (3, "cleo")] {
            sql.push_str(&user(id, name, &format!("{name}@example.com")));
        }
        self.execute(&sql).await;
    }

    /// Inserts two conversations: one of ada and bob with four messages, and an empty one of cleo.
    pub async fn insert_conversations(&self) {
        let sql = "
            INSERT INTO conversations VALUES (5, 'A trip', '2025-02-01 00:00:00.000000',
                '2025-02-01 12:00:00.500000');
            INSERT INTO conversations VALUES (6, NULL, '2025-02-02 00:00:00.000000',
                '2025-02-02 00:00:00.000000');
            INSERT INTO conversation_participants VALUES (1, 5, '2025-02-01 00:00:00.000000'),
                (2, 5, '2025-02-01 00:00:00.000000'), (3, 6, '2025-02-02 00:00:00.000000');
            INSERT INTO messages VALUES
                (20, 5, 1, 'user', 'Where to?', '2025-02-01 10:00:00.000001'),
                (21, 5, NULL, 'assistant', 'To the Antarctic.', '2025-02-01 10:00:00.000002'),
                (22, 5, 2, 'user', 'Said third', '2025-02-01 12:00:00.000000'),
                (23, 5, 2, 'user', 'Said last, and written second', '2025-02-01 12:00:00.500000');";
        self.execute(sql).await;
    }

    /// A database with rows in every table.
    pub async fn full(folder: &Path) -> Self {
        let source = Self::second(folder).await;
        source.insert_users().await;
        source.insert_conversations().await;
        source.key(Key::default()).await;
        source
            .key(Key { id: 2, key: READER, name: "reader", scopes: "read", ..Key::default() })
            .await;
        let audit_entries = format!(
            "INSERT INTO api_key_audit_logs VALUES
                (1, 2, 'create', 1, '192.0.2.1', '{{\"name\": \"reader\", \"scopes\": \"read\"}}',
                    '2025-01-01 00:00:01.000000'),
                (2, 9, 'delete', 1, '192.0.2.1', 'no JSON, and {READER}',
                    '2025-01-02 00:00:00.000000');"
        );
        source.execute(&audit_entries).await;
        source
    }

    /// A database with `messages` messages, in a tenth as many conversations.
    pub async fn large(folder: &Path, messages: usize) -> Self {
        let source = Self::second(folder).await;
        source.insert_users().await;
        source.key(Key::default()).await;
        let conversations = messages.div_ceil(10);
        let sql = format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {conversations})
             INSERT INTO conversations SELECT i, 'talk ' || i, '2025-02-01 00:00:00.000000',
                '2025-02-01 00:00:00.000000' FROM n;
             INSERT INTO conversation_participants SELECT 1 + id % 3, id, created_at FROM conversations;
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {messages})
             INSERT INTO messages SELECT i, 1 + i * 7919 % {conversations}, 1 + i % 3,
                CASE i % 2 WHEN 0 THEN 'user' ELSE 'assistant' END,
                'message number ' || i || ' says ' || hex(randomblob(60)),
                strftime('%Y-%m-%d %H:%M:%S', 1740000000 + i, 'unixepoch') || '.000000' FROM n;"
        );
        source.execute(&sql).await;
        source
    }
}

/// The statement that inserts a user registered on day `id` of 2025.
pub fn user(id: i64, name: &str, email: &str) -> String {
    let hash = bcrypt::hash(PASSWORD, 4).unwrap();
    let mut sql = String::new();
    let (name, email) = (name.replace('\'', "''"), email.replace('\'', "''"));
    let day = id.rem_euclid(28).max(1);
    write!(
        sql,
        "INSERT INTO users VALUES ({id}, '{email}', '{name}', NULL, '{hash}', 1, 0, \
         '2025-01-{day:02} 08:00:00.000000', '2025-01-{day:02} 09:00:00.000000');"
    )
    .unwrap();
    sql
}
