SELECT seq, priority, message_id, body, deliveries FROM {messages}
WHERE namespace = %(namespace)s AND queue = %(queue)s AND due_at = 0
ORDER BY priority DESC, seq
LIMIT %(limit)s
FOR UPDATE SKIP LOCKED
