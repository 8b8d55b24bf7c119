"""Results and messages in SQL databases, through SQLAlchemy. SQLite is the embedded default."""
