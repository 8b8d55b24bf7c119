-- As `delete`, of one key, with less work for both sides.
WITH patience AS (
    SELECT set_config('lock_timeout', %(patience)s, true)
), gone AS (
    DELETE FROM {results} USING patience WHERE key = %(key)b::text
)
SELECT pg_notify(%(channel)s, '-' || %(key)b::text)
