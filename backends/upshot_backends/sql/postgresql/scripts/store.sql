-- Parts of a statement: records of one rank and of different keys, stored under the guard. Those
-- that applied are in `applied`.
-- The lock's timeout is set for this statement alone, and before it waits for any row.
patience AS (
    SELECT set_config('lock_timeout', %(patience)s, true)
), record AS (
    SELECT record.*
    FROM patience, unnest(
        %(keys)b::text[], %(task_ids)b::text[], %(names)b::text[], %(states)b::text[],
        %(barriers)s::bigint[], %(expiries)b::float8[], %(bodies)b::bytea[]
    ) AS record (key, task_id, name, state, barrier, expires_at, body)
), applied AS (
    INSERT INTO {results} AS stored
        (key, task_id, name, state, barrier, stored_at, expires_at, body)
    SELECT
        key, task_id, name, state, barrier, %(now)s::float8, nullif(expires_at, 'Infinity'), body
    FROM record
    ON CONFLICT (key) DO UPDATE SET
        task_id = excluded.task_id,
        name = excluded.name,
        state = excluded.state,
        barrier = excluded.barrier,
        stored_at = excluded.stored_at,
        expires_at = excluded.expires_at,
        body = excluded.body
    WHERE stored.barrier <= %(rank)s OR stored.expires_at <= %(now)s
    RETURNING stored.key, stored.barrier
)
