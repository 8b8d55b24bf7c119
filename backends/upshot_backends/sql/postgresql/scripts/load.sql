SELECT key, body FROM {results}
WHERE key = ANY (%(keys)s::text[]) AND (expires_at IS NULL OR expires_at > %(now)s)
