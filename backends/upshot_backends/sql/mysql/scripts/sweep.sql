-- By key, and not by expiry: rows would be locked in another order than `store` locks them.
DELETE FROM {results} WHERE `key` IN %(keys)s AND expires_at <= %(now)s
