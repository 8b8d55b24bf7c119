"""Race for the terminal record of each of 200 ids; print those won: URL BODY.

Says "ready" when open, and begins when a line comes in.
"""

from __future__ import annotations

import sys

from upshot.backend import StoredRecord
from upshot.registry import backend_class
from upshot.states import NEVER
from upshot.url import Url


def main(address: str, body: str) -> None:
    url = Url.parse(address)
    backend = backend_class(url)(url)
    backend.load(["ns:0"], 5.0)
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(200):
        record = StoredRecord(
            key=f"ns:{number}",
            body=body.encode(),
            rank=31,
            barrier=NEVER,
            expires=3600.0,
            task_id=str(number),
            state="SUCCESS",
            name="",
            reply_to="",
        )
        if backend.store([record], 10.0)[0]:
            print(number)
    backend.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
