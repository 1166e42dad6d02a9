-- People who log in. A session that ended is gone.
CREATE TABLE sessions (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    token_hash   BLOB NOT NULL UNIQUE CHECK (length(token_hash) = 32), -- SHA-256
    user_id      INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at   TEXT NOT NULL,
    last_used_at TEXT NOT NULL,
    last_used_ip TEXT,
    user_agent   TEXT,
    expires_at   TEXT NOT NULL -- however much it is used
) STRICT;
CREATE INDEX sessions_user_id ON sessions (user_id, id);
CREATE INDEX sessions_expires_at ON sessions (expires_at);
CREATE INDEX sessions_last_used_at ON sessions (last_used_at);

-- What lets somebody set a new password, once. The newest of each user only.
CREATE TABLE password_resets (
    user_id    INTEGER PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    token_hash BLOB NOT NULL UNIQUE CHECK (length(token_hash) = 32), -- SHA-256
    expires_at TEXT NOT NULL
) STRICT;
CREATE INDEX password_resets_expires_at ON password_resets (expires_at);

-- Messages that are edited and deleted, and what clients attach.
ALTER TABLE messages ADD COLUMN version INTEGER NOT NULL DEFAULT 1; -- counts its changes
ALTER TABLE messages ADD COLUMN edited_at TEXT;
ALTER TABLE messages ADD COLUMN deleted_at TEXT; -- its content is gone then
ALTER TABLE messages ADD COLUMN metadata TEXT; -- a JSON object
ALTER TABLE conversations ADD COLUMN metadata TEXT; -- a JSON object
ALTER TABLE conversations ADD COLUMN external_id TEXT; -- what it is called in every installation
UPDATE conversations SET external_id = lower(hex(randomblob(16)));
-- When its newest message was appended, or it was begun.
ALTER TABLE conversations ADD COLUMN active_at TEXT NOT NULL DEFAULT '1970-01-01T00:00:00+00:00';
UPDATE conversations SET active_at = COALESCE(
    (SELECT m.created_at FROM messages m WHERE m.conversation_id = conversations.id AND m.seq = last_seq), created_at);
CREATE UNIQUE INDEX conversations_external_id ON conversations (external_id);
CREATE TRIGGER conversations_named AFTER INSERT ON conversations WHEN NEW.external_id IS NULL BEGIN
    UPDATE conversations SET external_id = lower(hex(randomblob(16))) WHERE id = NEW.id;
END;
CREATE INDEX conversations_active_at ON conversations (active_at, id);
-- Nobody finds such a one. From then on it is being removed, which may take many transactions; one
-- that is being imported has a time to come, and none when it is whole.
ALTER TABLE conversations ADD COLUMN retired_at TEXT;
CREATE INDEX conversations_retired ON conversations (id) WHERE retired_at IS NOT NULL;

-- A request that is sent again may have made several things.
ALTER TABLE idempotency_keys ADD COLUMN resource_count INTEGER NOT NULL DEFAULT 1;

-- What happened in each conversation, in order, for those who watch it: ids, never contents. The
-- schema writes them, so that nothing happens without. Who changes a conversation holds its row
-- locked meanwhile, so that within one conversation the order of ids is that of the commits.
CREATE TABLE conversation_events (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation_id INTEGER NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    kind            TEXT NOT NULL,
    message_id      INTEGER,
    user_id         INTEGER,
    created_at      TEXT NOT NULL
) STRICT;
CREATE INDEX conversation_events_conversation_id ON conversation_events (conversation_id, id);

CREATE TRIGGER messages_created AFTER INSERT ON messages BEGIN
    INSERT INTO conversation_events (conversation_id, kind, message_id, created_at)
        VALUES (NEW.conversation_id, 'message.created', NEW.id, NEW.created_at);
END;
CREATE TRIGGER messages_edited AFTER UPDATE OF version ON messages WHEN NEW.deleted_at IS NULL BEGIN
    INSERT INTO conversation_events (conversation_id, kind, message_id, created_at)
        VALUES (NEW.conversation_id, 'message.edited', NEW.id, NEW.edited_at);
END;
CREATE TRIGGER messages_deleted AFTER UPDATE OF version ON messages WHEN NEW.deleted_at IS NOT NULL BEGIN
    INSERT INTO conversation_events (conversation_id, kind, message_id, created_at)
        VALUES (NEW.conversation_id, 'message.deleted', NEW.id, NEW.deleted_at);
END;
CREATE TRIGGER participants_added AFTER INSERT ON participants BEGIN
    INSERT INTO conversation_events (conversation_id, kind, user_id, created_at)
        SELECT id, 'participant.added', NEW.user_id, updated_at FROM conversations WHERE id = NEW.conversation_id;
END;
-- Nothing where the whole conversation goes.
CREATE TRIGGER participants_removed AFTER DELETE ON participants BEGIN
    INSERT INTO conversation_events (conversation_id, kind, user_id, created_at)
        SELECT id, 'participant.removed', OLD.user_id, updated_at FROM conversations WHERE id = OLD.conversation_id;
END;
CREATE TRIGGER conversations_updated AFTER UPDATE OF title, metadata ON conversations
    WHEN NEW.title IS NOT OLD.title OR NEW.metadata IS NOT OLD.metadata BEGIN
    INSERT INTO conversation_events (conversation_id, kind, created_at)
        VALUES (NEW.id, 'conversation.updated', NEW.updated_at);
END;

-- What lets a browser watch a conversation, once: its EventSource cannot send header fields.
CREATE TABLE event_tickets (
    token_hash      BLOB PRIMARY KEY CHECK (length(token_hash) = 32), -- SHA-256
    conversation_id INTEGER NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    api_key_id      INTEGER REFERENCES api_keys (id) ON DELETE CASCADE,
    session_id      INTEGER REFERENCES sessions (id) ON DELETE CASCADE,
    expires_at      TEXT NOT NULL,
    CHECK ((api_key_id IS NULL) <> (session_id IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX event_tickets_expires_at ON event_tickets (expires_at);
CREATE INDEX event_tickets_conversation_id ON event_tickets (conversation_id);
CREATE INDEX event_tickets_api_key_id ON event_tickets (api_key_id);
CREATE INDEX event_tickets_session_id ON event_tickets (session_id);

-- What messages are found by: every three characters in a row, without regard to case. Two line
-- feeds at the end make a beginning of such a three of every shorter word. Rows of messages are
-- changed in place and never replaced: a REPLACE would fire no trigger for what it removes.
CREATE VIEW message_texts AS SELECT id, content || char(10, 10) AS content FROM messages;
CREATE VIRTUAL TABLE message_search USING fts5 (
    content, content = 'message_texts', content_rowid = 'id', tokenize = 'trigram', columnsize = 0
);
CREATE VIRTUAL TABLE message_terms USING fts5vocab (message_search, row);
-- What is deleted leaves the file at once, rather than when its part of the index is written anew.
INSERT INTO message_search (message_search, rank) VALUES ('secure-delete', 1);
INSERT INTO message_search (message_search) VALUES ('rebuild');
INSERT INTO message_search (message_search) VALUES ('optimize'); -- what is in one part is deleted fastest

CREATE TRIGGER messages_found AFTER INSERT ON messages BEGIN
    INSERT INTO message_search (rowid, content) VALUES (NEW.id, NEW.content || char(10, 10));
END;
CREATE TRIGGER messages_found_otherwise AFTER UPDATE OF content ON messages WHEN NEW.content <> OLD.content BEGIN
    INSERT INTO message_search (message_search, rowid, content)
        VALUES ('delete', OLD.id, OLD.content || char(10, 10));
    INSERT INTO message_search (rowid, content) VALUES (NEW.id, NEW.content || char(10, 10));
END;
CREATE TRIGGER messages_found_no_more AFTER DELETE ON messages BEGIN
    INSERT INTO message_search (message_search, rowid, content)
        VALUES ('delete', OLD.id, OLD.content || char(10, 10));
END;
