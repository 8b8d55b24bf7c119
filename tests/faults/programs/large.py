"""Stores and reads large records from many threads at once: `python large.py URL COUNT MEGABYTES`.

Prints the bytes of RSS before, while it holds nothing, and afterwards, with the backend open.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

from upshot import registry
from upshot.client import ResultClient
from upshot.url import Url
from upshot_conformance.records import success


def rss() -> int:
    """Return the bytes of this process that are in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(address: str, count: int, megabytes: int) -> None:
    """Store `count` records at the same time, then wait for them all at the same time."""
    url = Url.parse(address)
    make = registry.backend_class(url)

    def store(number: int) -> bool:
        return client.store(success(f"large-{number}", "x" * (megabytes * 2**20)))

    def read(number: int) -> bool:
        return client.wait(f"large-{number}", timeout=300).is_terminal

    with ResultClient(lambda: make(url), url=url, namespace="large", timeout=120) as client:
        client.store(success("small", "x"))
        client.wait("small")
        before = rss()
        with ThreadPoolExecutor(count) as threads:
            applied = all(threads.map(store, range(count)))
            ended = all(threads.map(read, range(count)))
        after = rss()
        client.forget(f"large-{number}" for number in range(count))
    assert applied
    assert ended
    print(before, after)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
