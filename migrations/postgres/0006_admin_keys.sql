-- Whether an admin key stays is asked whenever one is taken away: not of every key there is.
CREATE INDEX api_keys_admins ON api_keys (id) WHERE is_active = TRUE AND expires_at IS NULL AND grace_expires_at IS NULL
    AND (scopes = 'admin' OR scopes LIKE 'admin,%');
