-- Rows that somebody writes just now are left to the next sweep.
DELETE FROM {results} WHERE key IN (
    SELECT key FROM {results} WHERE expires_at <= %(now)s LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
