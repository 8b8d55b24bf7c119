-- `seqs` is a JSON array. The delivery's token is `fetch_id` and the message's number.
UPDATE {messages}
SET due_at = :until, worker = :worker, deliveries = deliveries + 1, token = :fetch_id || '-' || seq
WHERE seq IN (SELECT value FROM json_each(:seqs))
