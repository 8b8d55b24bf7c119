"""Results and messages in an SQLite file."""
