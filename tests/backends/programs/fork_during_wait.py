"""Fork while a thread waits; the child stores what it waits for: URL. Prints what was waited for.

The child uses the client that it inherited, and ends as an interpreter does, with nothing closed.
"""

from __future__ import annotations

import os
import sys
import threading

from upshot.client import ResultClient
from upshot.record import Payload, Record
from upshot.registry import backend_class
from upshot.url import Url


def main(address: str) -> None:
    url = Url.parse(address)
    client = ResultClient(lambda: backend_class(url)(url), url=url, namespace="fork", timeout=30.0)
    found: list[Record] = []
    waiting = threading.Thread(target=lambda: found.append(client.wait("a", timeout=60.0)))
    waiting.start()
    while not client.stats()["listeners"]:
        client.load("other")
    child = os.fork()
    if child == 0:
        stored = client.store(_finished("a"))
        assert stored
        assert client.wait("a", timeout=30.0) == _finished("a")
        sys.exit(7)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    waiting.join()
    assert client.load("a") == found[0]
    client.forget(["a"])
    client.close()
    print(found[0].state)


def _finished(task_id: str) -> Record:
    return Record(task_id=task_id, state="SUCCESS", outcome=Payload("json", b"1"))


if __name__ == "__main__":
    main(*sys.argv[1:])
