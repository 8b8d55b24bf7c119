"""Results and messages in SQL databases, through SQLAlchemy; today SQLite, the embedded default."""
