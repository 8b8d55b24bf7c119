INSERT INTO {workers} (namespace, queue, worker, seen_until)
VALUES (%(namespace)s, %(queue)s, %(worker)s, %(until)s)
ON CONFLICT (namespace, queue, worker) DO UPDATE SET seen_until = excluded.seen_until
