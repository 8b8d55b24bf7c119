-- One record under the guard; one row changed if it applied, else none. ?6 is the present moment,
-- ?9 the record's rank.
INSERT INTO {results} (key, task_id, name, state, barrier, stored_at, expires_at, body)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
ON CONFLICT (key) DO UPDATE SET
    task_id = excluded.task_id,
    name = excluded.name,
    state = excluded.state,
    barrier = excluded.barrier,
    stored_at = excluded.stored_at,
    expires_at = excluded.expires_at,
    body = excluded.body
WHERE {results}.barrier <= ?9 OR {results}.expires_at <= ?6
