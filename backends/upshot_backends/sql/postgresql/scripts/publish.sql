-- Messages in order; those whose id is there already are left as they are. Then the bells are rung
-- of the queues that they are in.
WITH published AS (
    INSERT INTO {messages} (namespace, queue, message_id, priority, due_at, deliveries, body)
    SELECT %(namespace)s, queue, message_id, priority, due_at, 0, body
    FROM unnest(
        %(queues)s::text[], %(message_ids)s::text[], %(priorities)s::int[], %(moments)s::float8[],
        %(bodies)s::bytea[]
    ) WITH ORDINALITY AS message (queue, message_id, priority, due_at, body, place)
    ORDER BY place
    ON CONFLICT DO NOTHING
)
SELECT pg_notify(%(channel)s, bell) FROM unnest(%(bells)s::text[]) AS bell
