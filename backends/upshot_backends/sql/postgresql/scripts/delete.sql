-- Keys that are not there are notified too: somebody may wait for them.
WITH patience AS (
    SELECT set_config('lock_timeout', %(patience)s, true)
), gone AS (
    DELETE FROM {results} USING patience WHERE key = ANY (%(keys)b::text[])
)
SELECT pg_notify(%(channel)s, '-' || key) FROM unnest(%(keys)b::text[]) AS key
