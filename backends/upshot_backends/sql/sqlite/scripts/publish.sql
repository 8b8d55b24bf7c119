INSERT INTO {messages} (namespace, queue, message_id, priority, due_at, deliveries, body)
VALUES (:namespace, :queue, :message_id, :priority, :due_at, 0, :body)
ON CONFLICT DO NOTHING
