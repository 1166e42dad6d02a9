-- Keys by which names are compared: username_key and email_key ignore case only, and earlier programs use them. The
-- columns below also ignore width, Unicode normalization, invisible characters and the form of an IDN domain. The first
-- start fills them in, as SQL cannot (db/backfill.rs). NULL is not filled in yet.
ALTER TABLE users ADD COLUMN username_canonical TEXT;
ALTER TABLE users ADD COLUMN email_canonical TEXT;
-- 0, or the user's id where an older user had the same canonical key before the key existed.
ALTER TABLE users ADD COLUMN username_duplicate INTEGER NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN email_duplicate INTEGER NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN username_skeleton TEXT; -- UTS 39, of username_canonical
-- When the user took the name; NULL is created_at.
ALTER TABLE users ADD COLUMN username_since TEXT;
ALTER TABLE users ADD COLUMN email_since TEXT;
CREATE UNIQUE INDEX users_username_canonical ON users (username_canonical, username_duplicate);
CREATE UNIQUE INDEX users_email_canonical ON users (email_canonical, email_duplicate);
CREATE INDEX users_username_skeleton ON users (username_skeleton);
CREATE INDEX users_without_canonical ON users (id) WHERE username_canonical IS NULL OR email_canonical IS NULL;

-- Earlier programs change a name without its canonical key: the next start fills it in again.
CREATE TRIGGER users_renamed AFTER UPDATE OF username_key ON users
    WHEN NEW.username_key <> OLD.username_key AND NEW.username_since IS OLD.username_since BEGIN
    UPDATE users SET username_canonical = NULL, username_skeleton = NULL, username_duplicate = 0 WHERE id = NEW.id;
END;
CREATE TRIGGER users_email_changed AFTER UPDATE OF email_key ON users
    WHEN NEW.email_key <> OLD.email_key AND NEW.email_since IS OLD.email_since BEGIN
    UPDATE users SET email_canonical = NULL, email_duplicate = 0 WHERE id = NEW.id;
END;

-- Usernames that were given up, and by whom. No foreign key: the user may be deleted.
CREATE TABLE released_usernames (
    username_canonical TEXT PRIMARY KEY,
    user_id            INTEGER NOT NULL,
    released_at        TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX released_usernames_released_at ON released_usernames (released_at);
CREATE INDEX released_usernames_user_id ON released_usernames (user_id);
