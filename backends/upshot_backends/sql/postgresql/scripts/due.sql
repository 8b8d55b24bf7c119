-- Parts of a statement: what is ready, and what has become due, in the queues that are in `wanted`,
-- larger priority first. Messages that somebody else claims or settles just now are passed over.
ready AS MATERIALIZED (
    SELECT message.seq, message.priority, wanted.place
    FROM wanted CROSS JOIN LATERAL (
        SELECT seq, priority FROM {messages}
        WHERE namespace = %(namespace)s AND queue = wanted.queue AND due_at = 0
        ORDER BY priority DESC, seq
        LIMIT %(limit)s
        FOR UPDATE SKIP LOCKED
    ) AS message
), come AS MATERIALIZED (
    SELECT message.seq, message.priority, wanted.place
    FROM wanted CROSS JOIN LATERAL (
        SELECT seq, priority FROM {messages}
        WHERE namespace = %(namespace)s AND queue = wanted.queue
            AND due_at > 0 AND due_at <= %(now)s
        ORDER BY due_at
        LIMIT %(limit)s
        FOR UPDATE SKIP LOCKED
    ) AS message
), chosen AS MATERIALIZED (
    SELECT seq, priority, place
    FROM (SELECT * FROM ready UNION ALL SELECT * FROM come) AS due
    ORDER BY priority DESC, place, seq
    LIMIT %(limit)s
)
