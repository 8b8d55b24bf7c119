"""Results on MongoDB."""
