-- Rotation with an overlap, a limit of its own for each key, names that can be searched.
ALTER TABLE api_keys ADD COLUMN name_key TEXT NOT NULL DEFAULT ''; -- name without regard to case
ALTER TABLE api_keys ADD COLUMN rotated_to_id INTEGER REFERENCES api_keys (id) ON DELETE SET NULL;
ALTER TABLE api_keys ADD COLUMN grace_expires_at TEXT; -- until when it works beside its successor
ALTER TABLE api_keys ADD COLUMN rate_limit_per_minute INTEGER CHECK (rate_limit_per_minute > 0);
UPDATE api_keys SET rotated_to_id = (SELECT n.id FROM api_keys n WHERE n.rotated_from_id = api_keys.id);
-- The first start fills them in: the databases fold the case of letters differently.
CREATE INDEX api_keys_without_name_key ON api_keys (id) WHERE name_key = '';
CREATE UNIQUE INDEX api_keys_rotated_to_id ON api_keys (rotated_to_id);
CREATE INDEX api_keys_grace_expires_at ON api_keys (grace_expires_at) WHERE is_active = TRUE;
CREATE INDEX api_keys_last_used ON api_keys (COALESCE(last_used_at, created_at));

-- Whoever changes how a key works, be it by hand, makes every server look it up anew.
CREATE TRIGGER api_keys_changed AFTER UPDATE OF key_hash, name, scopes, is_active, expires_at, grace_expires_at,
    allowed_ips, rate_limit_per_minute ON api_keys BEGIN
    UPDATE installation SET version = version + 1 WHERE id = 1;
END;
CREATE TRIGGER api_keys_deleted AFTER DELETE ON api_keys BEGIN
    UPDATE installation SET version = version + 1 WHERE id = 1;
END;

-- The trail becomes a chain. No foreign keys: it outlives what it speaks of. Rows from before have
-- no hash until the first start, which has the key that this file has not.
CREATE TABLE api_key_audit_chain (
    seq                   INTEGER PRIMARY KEY CHECK (seq > 0), -- 1, 2, 3 … without gaps
    api_key_id            INTEGER,
    api_key_name          TEXT,
    action                TEXT NOT NULL,
    performed_by          TEXT NOT NULL,
    performed_by_key_id   INTEGER,
    performed_by_key_name TEXT,
    performed_by_ip       TEXT,
    request_id            TEXT,
    details               TEXT NOT NULL, -- JSON
    timestamp             TEXT NOT NULL,
    hash_key_id           INTEGER, -- which key the hash was made with
    payload               TEXT, -- the row as JSON: what the hash covers
    hash                  BLOB CHECK (length(hash) = 32) -- HMAC-SHA256
) STRICT;
INSERT INTO api_key_audit_chain (seq, api_key_id, api_key_name, action, performed_by,
        performed_by_key_id, performed_by_key_name, performed_by_ip, details, timestamp)
    SELECT ROW_NUMBER() OVER (ORDER BY id), api_key_id,
        (SELECT name FROM api_keys k WHERE k.id = api_key_id), action,
        CASE WHEN performed_by_key_id IS NOT NULL THEN 'key'
             WHEN performed_by_ip IS NOT NULL THEN 'anonymous' ELSE 'server' END,
        performed_by_key_id, (SELECT name FROM api_keys k WHERE k.id = performed_by_key_id),
        performed_by_ip, details, timestamp
    FROM api_key_audit_logs ORDER BY id;
DROP TABLE api_key_audit_logs;
ALTER TABLE api_key_audit_chain RENAME TO api_key_audit_logs;
CREATE INDEX api_key_audit_logs_api_key_id ON api_key_audit_logs (api_key_id, seq);
CREATE INDEX api_key_audit_logs_action ON api_key_audit_logs (action, seq);

-- One row: the end of the chain. Whoever appends to it locks it, last of all.
CREATE TABLE audit_head (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    seq  INTEGER NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
INSERT INTO audit_head (id, seq, hash) VALUES (1, 0, zeroblob(32));

-- What requests with an Idempotency-Key made. No secrets: only ids and a hash of the request.
CREATE TABLE idempotency_keys (
    credential      TEXT NOT NULL,
    method          TEXT NOT NULL,
    path            TEXT NOT NULL,
    idempotency_key BLOB NOT NULL CHECK (length(idempotency_key) = 32), -- SHA-256
    request_hash    BLOB NOT NULL CHECK (length(request_hash) = 32), -- SHA-256 of the body
    resource_id     INTEGER NOT NULL,
    created_at      TEXT NOT NULL,
    PRIMARY KEY (credential, method, path, idempotency_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at);

-- How often each key was used, by the hour and by how it went.
CREATE TABLE api_key_usage (
    api_key_id     INTEGER NOT NULL REFERENCES api_keys (id) ON DELETE CASCADE,
    hour           TEXT NOT NULL, -- its beginning
    ok             INTEGER NOT NULL,
    denied_scope   INTEGER NOT NULL,
    denied_address INTEGER NOT NULL,
    rate_limited   INTEGER NOT NULL,
    expired        INTEGER NOT NULL,
    PRIMARY KEY (api_key_id, hour)
) STRICT, WITHOUT ROWID;
CREATE INDEX api_key_usage_hour ON api_key_usage (hour);

-- Notices that wait to be delivered. Those that arrived are gone.
CREATE TABLE webhook_outbox (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id      TEXT NOT NULL UNIQUE,
    event           TEXT NOT NULL,
    payload         TEXT NOT NULL, -- JSON
    created_at      TEXT NOT NULL,
    attempts        INTEGER NOT NULL DEFAULT 0,
    next_attempt_at TEXT NOT NULL,
    last_error      TEXT,
    gave_up_at      TEXT
) STRICT;
CREATE INDEX webhook_outbox_next_attempt_at ON webhook_outbox (next_attempt_at) WHERE gave_up_at IS NULL;
CREATE INDEX webhook_outbox_gave_up_at ON webhook_outbox (gave_up_at) WHERE gave_up_at IS NOT NULL;

-- Which notices of a coming end were sent.
CREATE TABLE expiry_notices (
    api_key_id INTEGER NOT NULL REFERENCES api_keys (id) ON DELETE CASCADE,
    expires_at TEXT NOT NULL,
    days       INTEGER NOT NULL,
    PRIMARY KEY (api_key_id, expires_at, days)
) STRICT, WITHOUT ROWID;

-- What one process at a time may do.
CREATE TABLE leases (
    name       TEXT PRIMARY KEY,
    holder     TEXT NOT NULL,
    expires_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
