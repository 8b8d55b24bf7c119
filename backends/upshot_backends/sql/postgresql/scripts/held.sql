-- A part of a statement: messages whose deliveries nobody else has taken. Rows are locked in the order
-- in which others lock them too.
held AS MATERIALIZED (
    SELECT message.seq
    FROM patience, unnest(%(message_ids)b::text[], %(tokens)b::text[]) AS done (message_id, token)
    JOIN {messages} AS message
        ON message.namespace = %(namespace)s
        AND message.message_id = done.message_id
        AND message.token = done.token
    ORDER BY message.message_id
    FOR UPDATE OF message
)
