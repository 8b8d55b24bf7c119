"""Lease everything in a queue, say so, and hold it until killed: URL NAMESPACE QUEUE LEASE."""

from __future__ import annotations

import sys

from upshot.registry import broker_class
from upshot.url import Url


def main(address: str, namespace: str, queue: str, lease: str) -> None:
    url = Url.parse(address)
    broker = broker_class(url)(url, namespace)
    held = broker.fetch([queue], limit=1000, wait=5.0, lease=float(lease), worker="doomed")
    print(len(held), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
