-- Keys by which names are compared: username_key and email_key ignore case only, and earlier programs use them. The
-- columns below also ignore width, Unicode normalization, invisible characters and the form of an IDN domain. The first
-- start fills them in, as SQL cannot (db/backfill.rs). NULL is not filled in yet.
ALTER TABLE users ADD COLUMN username_canonical TEXT;
ALTER TABLE users ADD COLUMN email_canonical TEXT;
-- 0, or the user's id where an older user had the same canonical key before the key existed.
ALTER TABLE users ADD COLUMN username_duplicate BIGINT NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN email_duplicate BIGINT NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN username_skeleton TEXT; -- UTS 39, of username_canonical
-- When the user took the name; NULL is created_at.
ALTER TABLE users ADD COLUMN username_since TIMESTAMPTZ;
ALTER TABLE users ADD COLUMN email_since TIMESTAMPTZ;
CREATE UNIQUE INDEX users_username_canonical ON users (username_canonical, username_duplicate);
CREATE UNIQUE INDEX users_email_canonical ON users (email_canonical, email_duplicate);
CREATE INDEX users_username_skeleton ON users (username_skeleton);
CREATE INDEX users_without_canonical ON users (id) WHERE username_canonical IS NULL OR email_canonical IS NULL;

-- Earlier programs change a name without its canonical key: the next start fills it in again.
CREATE FUNCTION octopus_user_renamed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.username_key <> OLD.username_key AND NEW.username_since IS NOT DISTINCT FROM OLD.username_since THEN
        NEW.username_canonical := NULL;
        NEW.username_skeleton := NULL;
        NEW.username_duplicate := 0;
    END IF;
    IF NEW.email_key <> OLD.email_key AND NEW.email_since IS NOT DISTINCT FROM OLD.email_since THEN
        NEW.email_canonical := NULL;
        NEW.email_duplicate := 0;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER users_renamed BEFORE UPDATE OF username_key, email_key ON users
    FOR EACH ROW EXECUTE FUNCTION octopus_user_renamed();

-- Usernames that were given up, and by whom. No foreign key: the user may be deleted.
CREATE TABLE released_usernames (
    username_canonical TEXT PRIMARY KEY,
    user_id            BIGINT NOT NULL,
    released_at        TIMESTAMPTZ NOT NULL
);
CREATE INDEX released_usernames_released_at ON released_usernames (released_at);
CREATE INDEX released_usernames_user_id ON released_usernames (user_id);
