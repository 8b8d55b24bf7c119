"""Write whatever a worker or a caller might write, to the same ids as everybody else at once.

    python racing.py < order > sightings

The order is a JSON object: the fields of `Order`. The sightings are a JSON array of `Sighting`s.
"""

from __future__ import annotations

import json
import random
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from upshot import State, clock
from upshot.client import ResultClient
from upshot.errors import UpshotError
from upshot.outcome import encode_value
from upshot.record import Record
from upshot.registry import backend_class
from upshot.url import Url
from upshot_conformance.records import CODECS, failure, revoked, success, unfinished

TIMEOUT = 60.0  # seconds that one operation may take: a busy machine is no outage
PER_ID = 3  # writes of one racer to one id
LAST = 99  # an attempt after all others
READ = 0.4  # the part of the writes that are followed by reading the id
GROUP = 5  # ids that are written to before the next ones
BATCH = 0.7  # the part of the groups that are written in one batch


@dataclass(frozen=True)
class Order:
    """What one racer does.

    Attributes:
        url: of the service.
        namespace: where the ids are.
        reply_to: where records go that are carried; "" if they are stored.
        name: the racer's, which its values show.
        seed: of its random choices.
        ids: what it writes to, in this order.
    """

    url: str
    namespace: str
    reply_to: str
    name: str
    seed: int
    ids: Sequence[str]

    def client(self) -> ResultClient:
        """Return a client of the racer's own."""
        url = Url.parse(self.url)
        make = backend_class(url)
        return ResultClient(lambda: make(url), url=url, namespace=self.namespace, timeout=TIMEOUT)


class Sighting(NamedTuple):
    """What somebody knows of one id, from reading it or from having written it.

    Attributes:
        task_id: which.
        began: when the call began, on the clock that all processes of a machine share.
        ended: when it had ended.
        state: the state; "" if there was no record.
        digest: of the whole record; 0 if there was none.
        is_read: whether it was read, or is what a store said that it has applied.
    """

    task_id: str
    began: float
    ended: float
    state: str
    digest: int
    is_read: bool


def digest(record: Record | None) -> int:
    """Return a number that two records share only if they are the same."""
    return 0 if record is None else zlib.crc32(record.encode())


def any_record(dice: random.Random, task_id: str, name: str) -> Record:
    """Return something to write: half of it terminal, of any attempt."""
    attempt = dice.randint(1, 3)
    kind = dice.randrange(10)
    if kind < 3:
        return success(task_id, [name, dice.random()], attempt=attempt)
    if kind == 3:
        return failure(task_id, ValueError(name, dice.random()), attempt=attempt)
    if kind == 4:
        return revoked(task_id)
    if kind < 7:
        return unfinished(task_id, State.STARTED, attempt=attempt)
    if kind == 7:
        return unfinished(task_id, State.RETRY, attempt=attempt)
    if kind == 8:
        info = encode_value(CODECS, {"current": dice.random()})
        return Record(task_id=task_id, state=State.STARTED, attempt=attempt, info=info)
    return unfinished(task_id, State.QUEUED, attempt=1)


def read(client: ResultClient, ids: Sequence[str]) -> list[Sighting]:
    """Read ids in one call."""
    began = clock.monotonic()
    found = client.load_many(ids)
    ended = clock.monotonic()
    seen: list[Sighting] = []
    for task_id, record in zip(ids, found, strict=True):
        if isinstance(record, UpshotError):
            raise record
        state = "" if record is None else record.state
        seen.append(Sighting(task_id, began, ended, state, digest(record), is_read=True))
    return seen


def batches_of(size: int, ids: Sequence[str]) -> list[Sequence[str]]:
    """Cut ids into groups."""
    return [ids[start : start + size] for start in range(0, len(ids), size)]


def race(client: ResultClient, order: Order) -> list[Sighting]:
    """Write to each id, and read some of them; return what was seen."""
    dice = random.Random(order.seed)
    carries = bool(client.backend.reply_to)
    reads = not carries or client.backend.reply_to == order.reply_to
    seen: list[Sighting] = []
    for group in batches_of(GROUP, order.ids):
        records = [any_record(dice, each, order.name) for each in group for _ in range(PER_ID)]
        batches = [records] if dice.random() < BATCH else [[record] for record in records]
        for batch in batches:
            began = clock.monotonic()
            applied = client.store_encoded(
                [client.encode(record, reply_to=order.reply_to) for record in batch]
            )
            ended = clock.monotonic()
            # What is carried is applied by whom it is carried to; the sender cannot know.
            seen += [
                Sighting(record.task_id, began, ended, record.state, digest(record), is_read=False)
                for record, was in zip(batch, applied, strict=True)
                if was and reads
            ]
            if reads and dice.random() < READ:
                seen += read(client, [record.task_id for record in batch])
    return seen


def end_all(client: ResultClient, order: Order) -> list[Sighting]:
    """End every id that has not ended, then read each of them."""
    ends = [success(task_id, order.name, attempt=LAST) for task_id in order.ids]
    client.store_encoded([client.encode(end, reply_to=order.reply_to) for end in ends])
    return read(client, order.ids)


def main() -> None:
    """Do what the order says."""
    order = Order(**json.load(sys.stdin))
    with order.client() as client:
        json.dump(race(client, order), sys.stdout)


if __name__ == "__main__":
    main()
