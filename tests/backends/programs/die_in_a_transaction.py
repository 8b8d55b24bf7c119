"""Lock the row of a record, fork, say the child's number, and stand still: URL KEY.

The server is told not to end the transaction by itself. The child closes its output and lives on
until it is ended.
"""

from __future__ import annotations

import os
import signal
import sys

from upshot.registry import backend_class
from upshot.url import Url
from upshot_backends.sql.results import SqlBackend


def main(address: str, key: str) -> None:
    url = Url.parse(address)
    backend = backend_class(url)(url)
    assert isinstance(backend, SqlBackend)
    table = backend.database.schema.results.name
    lasting = {
        "postgresql": "SET LOCAL idle_in_transaction_session_timeout = 0",
        "mysql": "SET SESSION idle_transaction_timeout = 0",
    }
    with backend.database.write(10.0) as cursor:
        cursor.execute(lasting[backend.database.dialect.name])
        cursor.execute(f"UPDATE {table} SET stored_at = 0 WHERE task_id = '{key}'")
        child = os.fork()
        if child == 0:
            os.close(1)
            signal.pause()
        print(child, flush=True)
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
