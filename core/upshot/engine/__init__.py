"""Runs messages inside one process: fetch and lease, run, store, settle.

`Consumer` is the whole of it for a caller. The worker starts one in each of its processes, and
`app.running()` one in a thread.
"""

from __future__ import annotations

from upshot.engine.background import in_background
from upshot.engine.consumer import Consumer
from upshot.engine.coroutines import Interruption
from upshot.engine.host import Host
from upshot.engine.pulse import Pulse

__all__ = ["Consumer", "Host", "Interruption", "Pulse", "in_background"]
