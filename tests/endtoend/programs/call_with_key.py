"""Call a task with a key from many threads at once, when told to.

    python call_with_key.py TASK ARGUMENT KEY THREADS

Says "ready", waits for a line, and answers with the list of `[id, is_repeat]` of all calls.
"""

from __future__ import annotations

import json
import sys
from functools import partial

from upshot import App
from upshot_conformance.concurrency import together

WITHIN = 120.0  # seconds


def main() -> None:
    """Open the app that the environment names, and call."""
    name, argument, key, threads = *sys.argv[1:4], int(sys.argv[4])
    with App() as app:
        app.results.load("warm-up")
        print("ready", flush=True)
        sys.stdin.readline()
        call = partial(app.send_task, name, [argument], key=key)
        handles = together([call] * threads, within=WITHIN)
        print(json.dumps([[handle.id, handle.is_repeat] for handle in handles]), flush=True)


if __name__ == "__main__":
    main()
