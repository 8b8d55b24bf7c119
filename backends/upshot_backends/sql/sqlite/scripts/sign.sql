INSERT INTO {workers} (namespace, queue, worker, seen_until)
VALUES (:namespace, :queue, :worker, :until)
ON CONFLICT DO UPDATE SET seen_until = excluded.seen_until
