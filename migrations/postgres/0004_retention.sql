-- The id of the last event of a conversation that was removed because it was old: who saw less has
-- missed something.
ALTER TABLE conversations ADD COLUMN events_removed_to BIGINT NOT NULL DEFAULT 0;
CREATE INDEX conversation_events_created_at ON conversation_events (created_at);

-- The number of the last migration a program must know to work on this schema. A migration that
-- takes away or gives another meaning to what earlier programs use sets it to its own number.
ALTER TABLE installation ADD COLUMN readable_from BIGINT NOT NULL DEFAULT 4;
