DELETE FROM {results} WHERE key = :key
