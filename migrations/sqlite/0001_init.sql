-- One row: what may change who is an administrator locks it first.
CREATE TABLE installation (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    version    INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO installation (id) VALUES (1);

CREATE TABLE users (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    email         TEXT NOT NULL,
    email_key     TEXT NOT NULL UNIQUE, -- email without regard to case
    username      TEXT NOT NULL,
    username_key  TEXT NOT NULL UNIQUE, -- username without regard to case
    full_name     TEXT,
    password_hash TEXT NOT NULL,
    is_active     INTEGER NOT NULL DEFAULT TRUE CHECK (is_active IN (0, 1)),
    is_superuser  INTEGER NOT NULL DEFAULT FALSE CHECK (is_superuser IN (0, 1)),
    created_at    TEXT NOT NULL,
    updated_at    TEXT NOT NULL
) STRICT;

CREATE TABLE api_keys (
    id                 INTEGER PRIMARY KEY AUTOINCREMENT,
    key_hash           BLOB NOT NULL UNIQUE CHECK (length(key_hash) = 32), -- SHA-256
    key_prefix         TEXT NOT NULL, -- its first characters, for people
    name               TEXT NOT NULL CHECK (name <> ''),
    description        TEXT,
    scopes             TEXT NOT NULL,
    is_active          INTEGER NOT NULL DEFAULT TRUE CHECK (is_active IN (0, 1)),
    created_at         TEXT NOT NULL,
    expires_at         TEXT,
    last_used_at       TEXT,
    last_used_ip       TEXT,
    allowed_ips        TEXT,
    created_by_user_id INTEGER REFERENCES users (id) ON DELETE SET NULL,
    rotated_from_id    INTEGER UNIQUE REFERENCES api_keys (id) ON DELETE SET NULL,
    rotated_at         TEXT -- when another key took its place: it never comes back
) STRICT;
CREATE INDEX api_keys_expires_at ON api_keys (expires_at) WHERE is_active = TRUE;
CREATE INDEX api_keys_created_by_user_id ON api_keys (created_by_user_id);

-- No foreign keys: the trail outlives what it speaks of.
CREATE TABLE api_key_audit_logs (
    id                  INTEGER PRIMARY KEY AUTOINCREMENT,
    api_key_id          INTEGER,
    action              TEXT NOT NULL,
    performed_by_key_id INTEGER,
    performed_by_ip     TEXT,
    details             TEXT NOT NULL, -- JSON
    timestamp           TEXT NOT NULL
) STRICT;
CREATE INDEX api_key_audit_logs_api_key_id ON api_key_audit_logs (api_key_id, id);
CREATE INDEX api_key_audit_logs_action ON api_key_audit_logs (action, id);

CREATE TABLE conversations (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    title      TEXT,
    last_seq   INTEGER NOT NULL DEFAULT 0, -- seq of the newest message
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT;

CREATE TABLE participants (
    conversation_id INTEGER NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    user_id         INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    PRIMARY KEY (conversation_id, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX participants_user_id ON participants (user_id, conversation_id);

CREATE TABLE messages (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation_id INTEGER NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    seq             INTEGER NOT NULL CHECK (seq > 0), -- 1, 2, 3 … without gaps: their order
    role            TEXT NOT NULL CHECK (role IN ('user', 'assistant', 'system')),
    content         TEXT NOT NULL,
    user_id         INTEGER REFERENCES users (id) ON DELETE SET NULL,
    created_at      TEXT NOT NULL,
    UNIQUE (conversation_id, seq)
) STRICT;
CREATE INDEX messages_user_id ON messages (user_id);

CREATE TABLE items (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    item_id TEXT NOT NULL UNIQUE,
    name    TEXT NOT NULL
) STRICT;
INSERT INTO items (item_id, name) VALUES ('plumbus', 'Plumbus'), ('gun', 'Portal Gun');
