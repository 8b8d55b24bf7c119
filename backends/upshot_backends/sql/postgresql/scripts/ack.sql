-- Remove messages whose deliveries nobody else has taken; returns their ids. Rows are locked in the
-- order in which others lock them too.
WITH patience AS (
    SELECT set_config('lock_timeout', %(patience)s, true)
), held AS MATERIALIZED (
    SELECT message.seq
    FROM patience, unnest(%(message_ids)b::text[], %(tokens)b::text[]) AS done (message_id, token)
    JOIN {messages} AS message
        ON message.namespace = %(namespace)s
        AND message.message_id = done.message_id
        AND message.token = done.token
    ORDER BY message.message_id
    FOR UPDATE OF message
)
DELETE FROM {messages} AS message USING held WHERE message.seq = held.seq
RETURNING message.message_id
