-- A part of a statement: one record, for `apply`; as in `records`, with fewer bytes and less work.
record AS (
    SELECT
        %(key)b::text AS key, %(task_id)b::text AS task_id, %(name)b::text AS name,
        %(state)b::text AS state, %(barrier)b::bigint AS barrier,
        %(expires_at)b::float8 AS expires_at, %(body)b::bytea AS body
    FROM patience
)
