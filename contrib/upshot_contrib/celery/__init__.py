"""upshot's result backends inside Celery: `Celery("tasks", backend="upshot+redis://localhost")`.

Celery finds `backend.UpshotBackend` by its entry point `upshot`; what follows `upshot+` is a URL of
upshot. An application needs to import nothing from here.
"""
