"""Looking at exception classes without running code that belongs to them.

A class may have a metaclass, a module a `__getattr__`, an exception properties. So nothing here
uses plain attribute access on them: it asks the descriptors of `type`, `BaseException` and
`ModuleType`, which are C functions, never compares or hashes a class of others, and puts only
builtins on the right of `issubclass`.
"""

from __future__ import annotations

import sys
from types import MemberDescriptorType, ModuleType
from typing import Any, Final

__all__ = [
    "builtin_base",
    "full_name",
    "is_dunder",
    "loaded_class",
    "member_descriptors",
    "mro",
    "name_parts",
]

_HEAP_TYPE: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE: set for classes that Python code made

# What builtin exceptions keep outside `args` and `__dict__`, as far as a constructor does not
# restore it. Not `AttributeError.obj`: it can be anything, of any size.
_BUILTIN_MEMBERS: Final[dict[type[BaseException], tuple[str, ...]]] = {
    OSError: ("errno", "strerror", "filename", "filename2"),
    ImportError: ("name", "path"),
    StopIteration: ("value",),
}


def _slot(cls: type[Any], name: str) -> Any:
    """Return `cls.name` as `type` knows it, whatever the metaclass says."""
    return type.__dict__[name].__get__(cls)


def _is_a(value: object, kind: type[Any]) -> bool:
    """Do as `isinstance`, which would ask a strange value for its `__class__`."""
    return issubclass(type(value), kind)


def _is_heap_type(cls: type[Any]) -> bool:
    return bool(_slot(cls, "__flags__") & _HEAP_TYPE)


def is_dunder(name: str) -> bool:
    """Tell whether a name is of the form `__name__`."""
    return name.startswith("__") and name.endswith("__")


def mro(cls: type[Any]) -> tuple[type[Any], ...]:
    """Return the class and its bases, nearest first."""
    classes: tuple[type[Any], ...] = _slot(cls, "__mro__")
    return classes


def name_parts(cls: type[Any]) -> tuple[str, str]:
    """Return module and qualified name; "?" for what is no text."""
    scope, qualname = _slot(cls, "__dict__"), _slot(cls, "__qualname__")
    module = scope.get("__module__") if _is_heap_type(cls) else _slot(cls, "__module__")
    return module if type(module) is str else "?", qualname if type(qualname) is str else "?"


def full_name(cls: type[Any]) -> str:
    """Return `module.Class`."""
    return ".".join(name_parts(cls))


def loaded_class(module: str, qualname: str) -> type[Exception] | None:
    """Return the exception class of that name if this process has it already, else None.

    Nothing is imported. Names are looked up in the module's and the classes' own `__dict__`, and
    the class found must call itself by the name asked for, so an alias or an attribute that
    merely refers to a class elsewhere is not one. SystemExit and its like, which do not derive
    from Exception, are never returned: raising one at the reader would end the reader.
    """
    found: Any = sys.modules.get(module)
    if not _is_a(found, ModuleType):
        return None
    scope = vars(ModuleType)["__dict__"].__get__(found)
    for part in qualname.split("."):
        if is_dunder(part):
            return None
        found = scope.get(part)
        if not _is_a(found, type):
            return None
        scope = _slot(found, "__dict__")
    if not issubclass(found, Exception) or name_parts(found) != (module, qualname):
        return None
    cls: type[Exception] = found
    return cls


def builtin_base(cls: type[Any]) -> type[Any] | None:
    """Return the builtin exception whose memory layout the class has, None if it has another.

    It is the first class written in C on the way along `__base__`, and the only one whose
    `__new__` CPython lets make instances of `cls`. A class from an extension module is none.
    """
    base = cls
    while _is_heap_type(base):
        base = _slot(base, "__base__")
    return base if _slot(base, "__module__") == "builtins" else None


def member_descriptors(cls: type[Any]) -> dict[str, MemberDescriptorType]:
    """Return the attributes outside `__dict__` that can be read and set without running code.

    They are the `__slots__` of classes written in Python, and some of the builtins' members.
    An extension module's members are left alone: some may only be set to certain types.
    """
    descriptors: dict[str, MemberDescriptorType] = {}
    for base in reversed(mro(cls)):
        scope = _slot(base, "__dict__")
        if not _is_heap_type(base):
            names = _BUILTIN_MEMBERS.get(base, ())
        else:
            names = tuple(scope) if "__slots__" in scope else ()
        for name in names:
            if type(scope[name]) is MemberDescriptorType and not is_dunder(name):
                descriptors[name] = scope[name]
    return descriptors
