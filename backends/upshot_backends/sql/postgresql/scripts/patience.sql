-- A part of a statement: sets the lock's timeout for this statement alone. What waits for rows reads
-- from it, so that this comes first.
patience AS (
    SELECT set_config('lock_timeout', %(patience)s, true)
)
