INSERT INTO {workers} (namespace, queue, worker, seen_until)
VALUES (%(namespace)s, %(queue)s, %(worker)s, %(until)s)
ON DUPLICATE KEY UPDATE seen_until = VALUES(seen_until)
