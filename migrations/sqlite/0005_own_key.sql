-- Servers answer from memory what a key's holder asks of it: whatever is told of a key counts as a change of it.
DROP TRIGGER api_keys_changed;
CREATE TRIGGER api_keys_changed AFTER UPDATE OF key_hash, name, description, scopes, is_active, created_by_user_id,
    expires_at, rotated_from_id, rotated_to_id, grace_expires_at, allowed_ips, rate_limit_per_minute ON api_keys BEGIN
    UPDATE installation SET version = version + 1 WHERE id = 1;
END;
