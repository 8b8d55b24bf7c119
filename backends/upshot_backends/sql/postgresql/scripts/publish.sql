-- Parts of a statement: messages in order; those whose id is there already are left as they are.
message AS (
    SELECT message.*
    FROM unnest(
        %(queues)b::text[], %(message_ids)b::text[], %(priorities)s::int[],
        %(moments)b::float8[], %(messages)b::bytea[]
    ) WITH ORDINALITY AS message (queue, message_id, priority, due_at, body, place)
), published AS (
    INSERT INTO {messages} (namespace, queue, message_id, priority, due_at, deliveries, body)
    SELECT %(namespace)s, queue, message_id, priority, due_at, 0, body
    FROM message
    ORDER BY place
    ON CONFLICT DO NOTHING
)
