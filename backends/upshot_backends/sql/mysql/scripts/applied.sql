-- Which of the records just stored, in this transaction, applied.
SELECT `key` FROM {results} WHERE `key` IN %(keys)s AND stamp = %(stamp)s
