UPDATE {messages}
SET due_at = %(until)s, worker = %(worker)s, deliveries = deliveries + 1,
    token = CONCAT(%(fetch_id)s, '-', seq)
WHERE seq IN %(seqs)s
