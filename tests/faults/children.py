"""Forked children that report, and that nobody waits for longer than he has patience."""

from __future__ import annotations

import os
import pickle
import select
import signal
import traceback
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager

from tests.endtoend.patience import PATIENCE
from upshot import clock

__all__ = ["Child", "forking_quietly", "report_of"]


class Child:
    """A forked child that runs `action` and reports what it returned, or how it failed.

    Args:
        action: what it does; what it returns is pickled.
    """

    def __init__(self, action: Callable[[], object]) -> None:
        self._end, end = os.pipe()
        with forking_quietly():
            self.pid = os.fork()
        if self.pid == 0:
            os.close(self._end)
            report_of(action, end)
        os.close(end)

    def report(self) -> object:
        """Return what the child returned; a text if it failed, None if it hung and was killed."""
        deadline, said = clock.Deadline(2 * PATIENCE), b""
        while not deadline.expired:
            if not select.select([self._end], [], [], deadline.left())[0]:
                break
            piece = os.read(self._end, 2**16)
            if not piece:
                break
            said += piece
        else:
            said = b""
        if not said:
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._end)
        return pickle.loads(said) if said else None


@contextmanager
def forking_quietly() -> Generator[None]:
    """Fork without the warning of Python 3.12 that a child of many threads may deadlock.

    To show that it does not is what these experiments are for.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def report_of(action: Callable[[], object], end: int) -> None:
    """Run `action` in the child, write its report, and leave without any cleaning up."""
    try:
        said = pickle.dumps(action())
    except BaseException:
        said = pickle.dumps(traceback.format_exc())
    while said:
        said = said[os.write(end, said) :]
    os._exit(0)
