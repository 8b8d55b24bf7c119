-- Make ready whose moment has come.
UPDATE {messages} SET due_at = 0.0 WHERE seq IN (
    SELECT seq FROM {messages}
    WHERE namespace = :namespace AND queue = :queue AND due_at > 0.0 AND due_at <= :now
    ORDER BY due_at
    LIMIT :limit
)
