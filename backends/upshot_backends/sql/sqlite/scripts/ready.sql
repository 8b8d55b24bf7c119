SELECT seq, priority, message_id, body, deliveries FROM {messages}
WHERE namespace = :namespace AND queue = :queue AND due_at = 0.0
ORDER BY priority DESC, seq
LIMIT :limit
