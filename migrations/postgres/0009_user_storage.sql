-- What each signed-in user wrote in each conversation while USER_MAX_BYTES or USER_MAX_CONVERSATIONS was set: bytes of
-- texts and metadata, and whether they created it. It goes with the conversation or the user.
CREATE TABLE user_storage (
    user_id         BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    conversation_id BIGINT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    bytes           BIGINT NOT NULL CHECK (bytes >= 0),
    has_created     BOOLEAN NOT NULL,
    PRIMARY KEY (user_id, conversation_id)
);
CREATE INDEX user_storage_conversation_id ON user_storage (conversation_id);
