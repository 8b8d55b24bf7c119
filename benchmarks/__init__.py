"""Programs that measure, on real services started for them; none is part of the tests."""
