-- `keys` is a JSON array: one statement for any number.
SELECT stored.key, stored.body
FROM json_each(:keys) AS wanted JOIN {results} AS stored ON stored.key = wanted.value
WHERE stored.expires_at IS NULL OR stored.expires_at > :now
