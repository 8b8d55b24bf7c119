-- Lease the messages in `chosen`.
UPDATE {messages} AS message
SET due_at = %(until)s, worker = %(worker)s, deliveries = message.deliveries + 1,
    token = %(fetch_id)s || '-' || message.seq
FROM chosen
WHERE message.seq = chosen.seq
RETURNING
    -chosen.priority, chosen.place, message.seq,
    message.message_id, message.queue, message.body, message.deliveries, message.token
