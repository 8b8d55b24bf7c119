"""Exceptions that no pickle takes, such as one whose `__init__` has other arguments than `args`.

Celery's workers put an `UnpickleableExceptionWrapper` in the place of such an exception, and with
Celery's backends that is what comes home. With upshot the exception itself does. Applications may
have learnt to catch the wrapper, so the exception is one as well: of a class that derives from its
own and from the wrapper's.
"""

from __future__ import annotations

import functools
from typing import Any

from upshot.errors import RemoteError
from upshot_contrib.celery.driver import UnpickleableExceptionWrapper

__all__ = ["as_wrapper_too"]


def as_wrapper_too(exc: Exception) -> Exception:
    """Return `exc`, which counts as Celery's wrapper from now on; unchanged where it cannot.

    It cannot where the class has code that would run to derive from it.
    """
    kind: Any = type(exc)
    if isinstance(exc, RemoteError):
        module, _, name = exc.type_name.rpartition(".")
        args: tuple[Any, ...] = exc.args_repr
    else:
        module, name, args = kind.__module__, kind.__name__, exc.args
    try:
        exc.__class__ = _both(kind)
    except TypeError:
        return exc
    vars(exc).update(exc_module=module, exc_cls_name=name, exc_args=args)
    return exc


@functools.lru_cache(maxsize=256)
def _both(kind: Any) -> Any:
    """Return a class of the same name that derives from `kind` and from the wrapper's class.

    Raises:
        TypeError: there can be none without running code of `kind`.
    """
    if type(kind) is not type or any(
        "__init_subclass__" in vars(base) for base in kind.__mro__[:-1]
    ):
        raise TypeError(f"{kind.__qualname__} has its own way of being derived from")
    names = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "__str__": kind.__str__,  # not the wrapper's
        "__repr__": kind.__repr__,
    }
    return type(kind.__name__, (kind, UnpickleableExceptionWrapper), names)
