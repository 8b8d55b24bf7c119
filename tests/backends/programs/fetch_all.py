"""Fetch and settle until a queue is empty; print the id of each message: URL NAMESPACE QUEUE."""

from __future__ import annotations

import sys

from upshot.broker import Settlement
from upshot.registry import broker_class
from upshot.url import Url


def main(address: str, namespace: str, queue: str) -> None:
    url = Url.parse(address)
    broker = broker_class(url)(url, namespace)
    while deliveries := broker.fetch([queue], limit=7, wait=0.5, lease=60.0, worker="program"):
        settled = broker.settle([Settlement(delivery=delivery) for delivery in deliveries], 5.0)
        assert all(settled)
        for delivery in deliveries:
            print(delivery.message_id)
    broker.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
