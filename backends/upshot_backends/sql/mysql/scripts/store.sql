-- Records of one rank and of different keys, under the guard.
INSERT INTO {results}
    (`key`, task_id, name, state, barrier, stored_at, expires_at, body, stamp)
VALUES {rows}
ON DUPLICATE KEY UPDATE
    -- Assignments are made from left to right, and each sees those before it. So the guard looks
    -- at the row as it was, and from then on the stamp tells whether the record applies.
    stamp = IF(barrier <= %(rank)s OR expires_at <= %(now)s, VALUES(stamp), stamp),
    task_id = IF(stamp = VALUES(stamp), VALUES(task_id), task_id),
    name = IF(stamp = VALUES(stamp), VALUES(name), name),
    state = IF(stamp = VALUES(stamp), VALUES(state), state),
    barrier = IF(stamp = VALUES(stamp), VALUES(barrier), barrier),
    stored_at = IF(stamp = VALUES(stamp), VALUES(stored_at), stored_at),
    expires_at = IF(stamp = VALUES(stamp), VALUES(expires_at), expires_at),
    body = IF(stamp = VALUES(stamp), VALUES(body), body)
