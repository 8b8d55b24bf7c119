"""Results and messages on a Redis server."""
