SELECT key, body FROM {results}
WHERE key = ANY (%(keys)b::text[]) AND (expires_at IS NULL OR expires_at > %(now)s)
