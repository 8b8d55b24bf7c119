"""Submits one task to the results URL in argv[1], prints its address, and never ends.

With a third argument it ends at once instead, with everything open.
"""

from __future__ import annotations

import sys

from upshot import State, clock
from upshot.client import ResultClient
from upshot.url import Url
from upshot_backends.amqp.results import AmqpBackend
from upshot_conformance.records import new_id, unfinished

url = Url.parse(sys.argv[1])
client = ResultClient(lambda: AmqpBackend(url), url=url, namespace=sys.argv[2])
client.store(unfinished(new_id(), State.QUEUED))
print(client.backend.reply_to, flush=True)
while len(sys.argv) < 4:
    clock.sleep(60.0)
