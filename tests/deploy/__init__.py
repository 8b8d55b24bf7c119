"""How upshot is run in earnest: under service managers, in containers, and as `docs/` says."""
