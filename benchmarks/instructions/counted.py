"""The process whose instructions are counted; `benchmarks.instructions.counting` starts it.

    python -m benchmarks.instructions.counted URLS

URLS is a JSON object: a URL for each service. First the reference is counted, then every path.

valgrind counts what is done inside of one C function, `REGION`, and notes a count each time it
returns. The interpreter itself calls that function only for `python -c`. ctypes has to call it
through another one, which is `bsearch`: a search in an array of one element calls the function
that compares once. What ctypes calls itself is not seen, for libffi calls it from a stack that
valgrind takes for a return.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from contextlib import ExitStack
from typing import Final

from benchmarks.instructions.paths import PATHS, Operation
from benchmarks.instructions.reference import CALLS, reference

__all__ = ["REGION"]

REGION: Final = "PyRun_SimpleStringFlags"
"""The C function inside of which instructions are counted; it runs a text as Python."""

_library = ctypes.PyDLL(None)  # keeps the interpreter's lock while it calls
_library.bsearch.argtypes = (
    ctypes.c_char_p,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_size_t,
    ctypes.c_void_p,
)
_region = ctypes.cast(getattr(ctypes.pythonapi, REGION), ctypes.c_void_p)
_counted: list[tuple[Operation, int]] = []


def work() -> None:
    """Call what is to be counted; the text that runs in `REGION` calls this."""
    operation, calls = _counted[-1]
    for _ in range(calls):
        operation()
    _counted.pop()


def count(operation: Operation, *, warm_up: int, calls: int) -> None:
    """Call `operation` so often to warm up, and then where it is counted."""
    for _ in range(warm_up):
        operation()
    gc.collect()
    gc.disable()
    _counted.append((operation, calls))
    # The text is the sought key, and no flags are the array: the two arguments of `REGION`.
    _library.bsearch(b"work()", None, 1, 1, _region)
    gc.enable()
    if _counted:
        raise RuntimeError("what was counted failed; see above")


def main() -> None:
    """Count everything."""
    urls: dict[str, str] = json.loads(sys.argv[1])
    count(reference, warm_up=CALLS, calls=CALLS)
    for path in PATHS.values():
        with ExitStack() as stack:
            calls = path.warm_up + path.calls
            operation = path.prepare(urls[path.service], calls, stack)
            count(operation, warm_up=path.warm_up, calls=path.calls)


if __name__ == "__main__":
    main()
