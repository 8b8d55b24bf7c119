DELETE FROM {results} WHERE `key` IN %(keys)s
