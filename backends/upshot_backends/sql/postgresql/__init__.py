"""Results and messages in PostgreSQL."""
