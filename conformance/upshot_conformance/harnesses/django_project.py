"""The settings of the smallest Django project that keeps results; `harnesses.django` makes it.

A second process of the same run finds the databases in an environment variable, as JSON.
"""

from __future__ import annotations

import json
import os
from typing import Any, Final

__all__ = ["DATABASES", "INSTALLED_APPS", "SECRET_KEY", "USE_TZ", "VARIABLE"]

VARIABLE: Final = "UPSHOT_CONFORMANCE_DJANGO"
"""The environment variable: an object with an entry of DATABASES for each alias."""

DATABASES: Final[dict[str, dict[str, Any]]] = {
    "default": {},  # which there has to be
    **json.loads(os.environ.get(VARIABLE, "{}")),
}
INSTALLED_APPS: Final = ["upshot_contrib.django"]
SECRET_KEY: Final = "nothing is signed"
USE_TZ: Final = True
