-- A part of a statement: stores what is in `record` under the guard. Those that applied are in
-- `applied`.
applied AS (
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
