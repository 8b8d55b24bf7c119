"""Results on memcached servers."""
