DELETE FROM {results} WHERE key IN (SELECT value FROM json_each(:keys))
