-- What has become due and nobody else looks at just now.
SELECT seq FROM {messages}
WHERE namespace = %(namespace)s AND queue = %(queue)s AND due_at > 0 AND due_at <= %(now)s
ORDER BY due_at
LIMIT %(limit)s
FOR UPDATE SKIP LOCKED
