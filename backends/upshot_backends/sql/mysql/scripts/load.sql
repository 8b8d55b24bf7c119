SELECT `key`, body FROM {results}
WHERE `key` IN %(keys)s AND (expires_at IS NULL OR expires_at > %(now)s)
