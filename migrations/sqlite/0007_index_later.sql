-- The index for searches takes messages many at once: each that it took by itself would make a part of its own, to be
-- merged with others. It has those with ids up to this one; searches read the others themselves.
CREATE TABLE message_search_progress (up_to INTEGER NOT NULL) STRICT;
INSERT INTO message_search_progress SELECT COALESCE(MAX(id), 0) FROM messages;

DROP VIEW message_texts;
CREATE VIEW message_texts AS SELECT id, content || char(10, 10) AS content FROM messages
    WHERE id <= (SELECT up_to FROM message_search_progress);

-- What it lacks need not be changed in it. New messages have higher ids than all before, but by hand.
DROP TRIGGER messages_found;
DROP TRIGGER messages_found_otherwise;
DROP TRIGGER messages_found_no_more;
CREATE TRIGGER messages_found AFTER INSERT ON messages
    WHEN NEW.id <= (SELECT up_to FROM message_search_progress) BEGIN
    INSERT INTO message_search (rowid, content) VALUES (NEW.id, NEW.content || char(10, 10));
END;
CREATE TRIGGER messages_found_otherwise AFTER UPDATE OF content ON messages
    WHEN NEW.content <> OLD.content AND OLD.id <= (SELECT up_to FROM message_search_progress) BEGIN
    INSERT INTO message_search (message_search, rowid, content)
        VALUES ('delete', OLD.id, OLD.content || char(10, 10));
    INSERT INTO message_search (rowid, content) VALUES (NEW.id, NEW.content || char(10, 10));
END;
CREATE TRIGGER messages_found_no_more AFTER DELETE ON messages
    WHEN OLD.id <= (SELECT up_to FROM message_search_progress) BEGIN
    INSERT INTO message_search (message_search, rowid, content)
        VALUES ('delete', OLD.id, OLD.content || char(10, 10));
END;

-- Earlier programs would not find what the index lacks.
UPDATE installation SET readable_from = 7;
