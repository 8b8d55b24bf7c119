SELECT min(soonest.due_at)
FROM unnest(%(queues)b::text[]) AS wanted (queue) CROSS JOIN LATERAL (
    SELECT min(due_at) AS due_at FROM {messages}
    WHERE namespace = %(namespace)s AND queue = wanted.queue
) AS soonest
