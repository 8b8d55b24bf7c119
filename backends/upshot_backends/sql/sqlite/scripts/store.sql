-- One record under the guard; one row changed if it applied, else none.
INSERT INTO {results} (key, task_id, name, state, barrier, stored_at, expires_at, body)
VALUES (:key, :task_id, :name, :state, :barrier, :now, :expires_at, :body)
ON CONFLICT (key) DO UPDATE SET
    task_id = excluded.task_id,
    name = excluded.name,
    state = excluded.state,
    barrier = excluded.barrier,
    stored_at = excluded.stored_at,
    expires_at = excluded.expires_at,
    body = excluded.body
WHERE {results}.barrier <= :rank OR {results}.expires_at <= :now
