"""Store records and publish messages until killed; print each number once it is safe: URL NAME."""

from __future__ import annotations

import itertools
import sys

from upshot.backend import StoredRecord
from upshot.broker import QueuedMessage
from upshot.registry import broker_class
from upshot.states import NEVER
from upshot.url import Url


def main(address: str, name: str) -> None:
    url = Url.parse(address)
    broker = broker_class(url)(url, "ns")
    for number in itertools.count():
        item = f"{name}-{number}"
        record = StoredRecord(
            key=f"ns:{item}",
            body=item.encode() * 50,
            rank=31,
            barrier=NEVER,
            expires=None,
            task_id=item,
            state="SUCCESS",
            name="",
            reply_to="",
        )
        message = QueuedMessage(message_id=item, queue="q", body=item.encode() * 50)
        broker.publish([message], [record], 10.0)
        print(item, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
