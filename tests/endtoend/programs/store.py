"""Store outcomes that arrive on standard input, as a worker would that ran the tasks.

    python store.py URL NAMESPACE TIMEOUT

Each line is a JSON object with `reply_to` and `values`, by task id. The answer, a line too, is
the list of whether each was applied.
"""

from __future__ import annotations

import json
import sys

from upshot.client import ResultClient
from upshot.registry import backend_class
from upshot.url import Url
from upshot_conformance.records import success


def main() -> None:
    """Open the backend, and serve until the input ends."""
    url, namespace, timeout = Url.parse(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    make = backend_class(url)
    with ResultClient(lambda: make(url), url=url, namespace=namespace, timeout=timeout) as client:
        for line in sys.stdin:
            order = json.loads(line)
            records = [
                client.encode(success(task_id, value), reply_to=order["reply_to"])
                for task_id, value in order["values"].items()
            ]
            print(json.dumps(client.store_encoded(records)), flush=True)


if __name__ == "__main__":
    main()
