-- Lease what is ready in one queue, larger priority first. `ready` and `lease` at once.
UPDATE {messages}
SET due_at = :until, worker = :worker, deliveries = deliveries + 1, token = :fetch_id || '-' || seq
WHERE seq IN (
    SELECT seq FROM {messages}
    WHERE namespace = :namespace AND queue = :queue AND due_at = 0.0
    ORDER BY priority DESC, seq
    LIMIT :limit
)
RETURNING -priority, seq, message_id, body, deliveries, token
