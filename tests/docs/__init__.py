"""The pages of `docs/` are true."""
