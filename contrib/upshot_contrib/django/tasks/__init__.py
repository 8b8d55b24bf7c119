"""A backend for Django's own tasks, `django.tasks`, of Django 6.

    TASKS = {"default": {"BACKEND": "upshot_contrib.django.tasks.UpshotBackend"}}

What is here, from what is known to what is done:

    known      the tasks that this process has declared: those alone can run
    values     arguments and values as JSON has them
    errors     the error of a task, whose class is one that is loaded already
    calls      what is kept of one call, beside its result
    results    a record as Django's `TaskResult`, with waiting, progress and revocation
    running    what a worker calls
    services   the app of each alias in TASKS
    backend    the class that TASKS names
"""

from __future__ import annotations

import django

if django.VERSION < (6,):
    raise ImportError(
        f"upshot_contrib.django.tasks needs Django 6, whose `django.tasks` it serves; this is "
        f"Django {django.get_version()}, where tasks are declared with `@app.task`"
    )

from upshot_contrib.django.tasks.backend import UpshotBackend
from upshot_contrib.django.tasks.results import UpshotResult
from upshot_contrib.django.tasks.running import UpshotContext

__all__ = ["UpshotBackend", "UpshotContext", "UpshotResult"]
