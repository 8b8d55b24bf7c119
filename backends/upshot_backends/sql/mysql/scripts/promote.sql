UPDATE {messages} SET due_at = 0 WHERE seq IN %(seqs)s
