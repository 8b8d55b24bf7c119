"""For the tests of whoever uses upshot: an app in memory, a worker in the process, a moving clock.

Nothing here is loaded before it is asked for, and pytest is needed for the fixtures only. A
`conftest.py` that says `pytest_plugins = ["upshot.testing"]` gets these:

    upshot_app       takes an app to memory until the test is over: `upshot_app(app)`
    upshot_worker    does the same, and runs a worker in threads of the process
    upshot_clock     the `Clock` of the test
    upshot_released  fails the test that leaves results unreleased

Without pytest, `with in_memory(app):`, `with Clock() as clock:` and `require_released(app)` do the
same. `run_due` and `drain` run tasks in the thread of the test, one after the other.

A `conftest.py` may both name this as a plugin and import from it: no assertion here is for pytest
to rewrite (PYTEST_DONT_REWRITE), and so it has nothing to warn of.
"""

from __future__ import annotations

import sys

from upshot.testing.draining import drain, run_due
from upshot.testing.memory import in_memory
from upshot.testing.releases import require_released
from upshot.testing.travelling import Clock

if "pytest" in sys.modules:  # which looks for its fixtures here, and is not loaded for others
    from upshot.testing.fixtures import Apps as Apps
    from upshot.testing.fixtures import upshot_app as upshot_app
    from upshot.testing.fixtures import upshot_clock as upshot_clock
    from upshot.testing.fixtures import upshot_released as upshot_released
    from upshot.testing.fixtures import upshot_worker as upshot_worker

__all__ = ["Clock", "drain", "in_memory", "require_released", "run_due"]
