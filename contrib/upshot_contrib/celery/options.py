"""What an application sets for this backend, in Celery's `result_backend_transport_options`.

    app.conf.result_backend_transport_options = {"upshot_strict": True}

Our options have the prefix `upshot_`, as they do in URLs; an unknown one of that prefix is refused.
All others are Celery's. Of those, `global_keyprefix` counts here too.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from upshot_contrib.celery.driver import ImproperlyConfigured

__all__ = ["Options", "read_options"]

_PREFIX: Final = "upshot_"
_LONGEST_TIMEOUT: Final = 86_400.0  # drivers refuse what is too long for the system's clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options, each with its type, its default and what it means.

    Attributes:
        namespace: what separates this application's records from others on the same service, 1
            to 48 characters. Without it, Celery's `global_keyprefix`, or "celery".
        strict: the first end of a task stays, whatever it is. False: a success replaces a
            failure or a revocation, as Celery may run a task again that has failed.
        earlier_backend: URL of the Celery backend that the application had before. What upshot does
            not have is looked for there. None looks nowhere else. Celery masks passwords in what it
            shows of settings where a name has the word "backend", so this one has it.
        timeout: seconds that one operation may take, its retries included; less than a day.
    """

    namespace: str = "celery"
    strict: bool = False
    earlier_backend: str | None = None
    timeout: float = 5.0

    def __post_init__(self) -> None:
        if not 1 <= len(self.namespace) <= 48:
            raise ValueError(
                f"{_PREFIX}namespace, or global_keyprefix in its place, has 1 to 48 characters"
            )
        if not 0 < self.timeout < _LONGEST_TIMEOUT:
            raise ValueError(f"{_PREFIX}timeout is more than 0 seconds, and less than a day")


_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "namespace": (str,),
    "strict": (bool,),
    "earlier_backend": (str, type(None)),
    "timeout": (int, float),
}


def read_options(transport_options: Mapping[str, Any]) -> Options:
    """Return the options among Celery's `result_backend_transport_options`.

    Raises:
        ImproperlyConfigured: an `upshot_…` option is unknown, of the wrong type or out of range.
    """
    known = [field.name for field in fields(Options)]
    values: dict[str, Any] = {}
    if prefix := transport_options.get("global_keyprefix"):
        values["namespace"] = prefix
    for option, value in transport_options.items():
        if not option.startswith(_PREFIX):
            continue
        name = option.removeprefix(_PREFIX)
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1) or known
            raise ImproperlyConfigured(
                f"result_backend_transport_options has no option {option!r}; "
                f"there is {', '.join(_PREFIX + each for each in near)}"
            )
        if type(value) not in _KINDS[name]:
            kinds = " or ".join(kind.__name__ for kind in _KINDS[name])
            raise ImproperlyConfigured(f"the option {option!r} is of type {kinds}")
        values[name] = value
    try:
        return Options(**values)
    except ValueError as exc:
        raise ImproperlyConfigured(f"result_backend_transport_options: {exc}") from exc
