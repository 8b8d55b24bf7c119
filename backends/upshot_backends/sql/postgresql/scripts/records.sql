-- A part of a statement: records of one rank and of different keys, for `apply`.
record AS (
    SELECT record.*
    FROM patience, unnest(
        %(keys)b::text[], %(task_ids)b::text[], %(names)b::text[], %(states)b::text[],
        %(barriers)s::bigint[], %(expiries)b::float8[], %(bodies)b::bytea[]
    ) AS record (key, task_id, name, state, barrier, expires_at, body)
)
