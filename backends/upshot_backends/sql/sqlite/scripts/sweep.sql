DELETE FROM {results} WHERE key IN (SELECT key FROM {results} WHERE expires_at <= :now LIMIT :limit)
