"""Results and messages inside one process: for tests, and for trying things out."""
