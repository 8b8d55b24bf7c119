-- Whether the moment of any message has come that is not ready yet.
SELECT EXISTS (
    SELECT 1 FROM {messages}
    WHERE namespace = :namespace AND queue = :queue AND due_at > 0.0 AND due_at <= :now
)
