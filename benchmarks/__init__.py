"""Programs that measure, on real services started for them; the tests run only `instructions`."""
