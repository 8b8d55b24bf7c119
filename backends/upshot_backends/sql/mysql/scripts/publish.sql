-- Messages in order; those whose id is there already are left as they are.
INSERT INTO {messages} (namespace, queue, message_id, priority, due_at, deliveries, body)
VALUES {rows}
ON DUPLICATE KEY UPDATE seq = seq
