"""The project's app: `from upshot_contrib.django.app import app`, and then `@app.task`."""

from __future__ import annotations

from typing import Final

from upshot import App
from upshot_contrib.django.around import as_a_request
from upshot_contrib.django.backend import open_django
from upshot_contrib.django.settings import make_app

__all__ = ["app"]

app: Final[App] = make_app()
app.around_task = as_a_request

open_django()  # for `upshot -A upshot_contrib.django.app …`: Django imports all tasks then
