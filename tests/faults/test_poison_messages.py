"""Messages that nobody can run, straight into the queue: each is put away, and the worker lives."""

from __future__ import annotations

import json
import pickle
import random
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.endtoend.patience import PATIENCE, comes_to
from tests.endtoend.services import Service
from upshot import App
from upshot.broker import QueuedMessage
from upshot.errors import UpshotError
from upshot.message import Message
from upshot.record import Payload

from .conftest import BROKERS, JOBS, Sized
from .lairs import lair
from .scoreboard import Score

MIB: Final = 2**20
GROWTH: Final = 64 * MIB  # bytes that a worker may grow by, besides copies of the largest message


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


@dataclass
class Poison:
    """One message.

    Attributes:
        body: what is put into the queue.
        fails: its task, whose id is `task_id`, has to fail.
        dies: it has to end as a dead letter.
    """

    body: bytes
    fails: bool = False
    dies: bool = True
    task_id: str = ""


def sealed(header: object, payload: bytes = b"[[],{}]", *, version: bytes = b"m1") -> bytes:
    """Return bytes in the layout of `upshot.message`, whatever stands in the header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = text + payload
    return version + struct.pack("!II", zlib.crc32(body, len(text)), len(text)) + body


def poisons(dice: random.Random, trap: Path, largest: int) -> list[Poison]:
    """Return one of each kind."""
    ids = iter(range(10_000))

    def task(**fields: Any) -> dict[str, Any]:
        task_id = f"poison-{next(ids)}"
        return {"c": "json", "task_id": task_id, "name": "jobs.echo", "queue": "default", **fields}

    def wrong(fails: bool = True, dies: bool = True, **fields: Any) -> Poison:
        """Return a message with one wrong field in its header."""
        header = task(**fields)
        return Poison(sealed(header), fails, dies, header["task_id"])

    def argued(payload: bytes, kind: str = "json") -> Poison:
        """Return a message with arguments that its task cannot be called with."""
        header = task(c=kind)
        return Poison(sealed(header, payload), True, False, header["task_id"])

    good, cut, flipped, new = task(), task(), task(), task()
    unfinished = sealed(cut)
    deep = b'{"task_id":"poison-deep","name":"jobs.echo","headers":' + b"[" * 100_000
    return [
        Poison(dice.randbytes(200)),
        Poison(b""),
        Poison(b"\0" * 11),
        Poison(b"[1, 2, 3]"),
        Poison(b'{"id": "poison-of-others", "task": "jobs.echo", "args": [], "kwargs": {}}'),
        Poison(b"null"),
        Poison(dice.randbytes(largest)),
        Poison(zlib.compress(b"\0" * 80 * MIB)),
        Poison(sealed([good["task_id"], "jobs.echo"])),
        Poison(sealed({k: v for k, v in good.items() if k != "task_id"})),
        wrong(fails=False, task_id={"$gt": ""}),
        wrong(fails=False, task_id="poison\nFAKE: all is well"),
        wrong(fails=False, task_id="p" * 300),
        Poison(unfinished[: len(unfinished) - 12], True, True, cut["task_id"]),
        Poison(sealed(flipped)[:-1] + b"?", True, True, flipped["task_id"]),
        Poison(sealed(new, version=b"m9"), True, True, new["task_id"]),
        Poison(sealed(deep), True, True, "poison-deep"),
        wrong(attempt=-1),
        wrong(attempt=2**70),
        wrong(priority=99),
        wrong(time_limit=-5),
        wrong(soft_time_limit=1e300),
        wrong(result_expires=-1e6),
        wrong(expires=float("nan")),
        wrong(retry={"max_retries": 1, "evil\nFAKE: all is well": 1}),
        wrong(retry=[1]),
        wrong(name="jobs.\ud800"),
        wrong(c=None),
        wrong(dies=False, name="os.system"),
        wrong(name="jobs.echo\nFAKE: \x1b[31mall is well" + "!" * 10_000),
        wrong(fails=False, ignore_result=True, name="jobs.unknown"),
        argued(b"[[],{}]", "application/x-nothing"),
        argued(pickle.dumps([[Trap(trap)], {}]), "pickle"),
        argued(b"!!python/object/apply:os.system ['touch trap']", "application/x-yaml"),
        argued(b"[[1, 2, 3, 4], {}]"),
        argued(b'[[], {"unknown": 1}]'),
        argued(b"[7, {}]"),
        argued(b"[[], []]"),
        argued(b"[" * 100_000),
        argued(b"[[" + b"9" * 100_000 + b"], {}]"),
        argued(b"[[NaN], {}]"),
        argued(b"[[1e999], {}]"),
        argued(b'[[], {"value": 1, "value": 2}]'),
        argued(b"\xff\xfe"),
        argued(b""),
    ]


@pytest.fixture(params=BROKERS)
def service_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The broker, which keeps or carries the results too."""
    broker: Service = request.param
    return broker.find(request, tmp_path)


@pytest.fixture
def app(project: Path, service_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    """The caller's side, with results in a file where the broker only carries them."""
    shutil.copy(JOBS.with_name("poison.py"), project)
    kept = f"sqlite:///{project}/results.db" if service_url.startswith("amqp:") else service_url
    monkeypatch.setenv("UPSHOT_RESULT_BACKEND", kept)
    with App() as app:
        yield app


def peak(pid: int) -> int:
    """Return the most memory, in bytes, that a process has had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def is_failed(app: App, each: Poison, score: Score) -> bool:
    """Wait for the end of a task whose message was poison."""
    try:
        error = app.AsyncResult(each.task_id).exception(timeout=PATIENCE)
    except UpshotError as exc:
        score.surprise(f"{each.task_id}, {each.body[:80]!r}: {exc}")
        return False
    return error is not None


def is_readable(reason: str) -> bool:
    """Tell whether an operator can be shown why a message is among the dead letters."""
    return bool(reason) and reason.isprintable() and len(reason) <= 1000


def forged(log: str) -> list[str]:
    """Return the lines of a log that a message has written, and not the worker."""
    return [line for line in log.splitlines() if line.startswith("FAKE") or "\x1b" in line]


def _publish(app: App, message: QueuedMessage) -> None:
    app.broker.call(lambda broker, seconds: broker.publish([message], (), seconds))


@pytest.mark.experiment(9)
@pytest.mark.timeout(300)
def test_messages_that_nobody_can_run(
    app: App,
    service_url: str,
    tmp_path: Path,
    score: Score,
    start_worker: Callable[..., Any],
    sized: Sized,
    dice: random.Random,
) -> None:
    """All kinds in one queue, with a healthy task after each."""
    trap = tmp_path / "trap"
    takes = app.broker.current.capabilities.max_message_bytes
    largest = min(sized(100 * MIB, 8 * MIB), takes - MIB)
    worker = start_worker("-c", "1")
    assert app.send_task("jobs.echo", ["first"]).get(timeout=PATIENCE) == "first"
    (child,) = worker.children()
    before = peak(child)
    behind = lair(service_url, app.settings.namespace)
    bad = poisons(dice, trap, largest)
    dice.shuffle(bad)

    neighbours: list[Any] = []
    for number, each in enumerate(bad):
        message = QueuedMessage(message_id=f"put-{number}", queue="default", body=each.body)
        _publish(app, message)
        neighbours.append(app.send_task("jobs.echo", [number]))
    named = Message(
        task_id="poison-named", name="jobs.echo", arguments=Payload("json", b""), queue="default"
    )
    nameless = QueuedMessage(message_id=f"{named.task_id}/1", queue="default", body=b"\0\0\0")
    _publish(app, nameless)
    odd = behind.put_oddities()
    neighbours.append(app.send_task("jobs.echo", [len(bad)]))

    score.submitted = len(bad) + 1 + odd
    for number, handle in enumerate(neighbours):
        assert handle.get(timeout=PATIENCE) == number
    score.executed = len(neighbours)
    expected = [each for each in bad if each.fails] + [Poison(b"", task_id=named.task_id)]
    score.recorded = sum(is_failed(app, each, score) for each in expected)
    dead = sum(each.dies for each in bad) + 1 + odd
    comes_to(lambda: len(behind.reasons()), dead)
    reasons = behind.reasons()
    score.surprises += [f"a reason is {each[:200]!r}" for each in reasons if not is_readable(each)]
    if worker.children() != [child]:
        score.surprise(f"the process was replaced: {worker.output()[-500:]}")
    grown = peak(child) - before
    score.remark(f"{len(reasons)} dead letters, {grown / MIB:.0f} MiB grown")
    if grown > GROWTH + 4 * largest:
        score.surprise(f"the worker grew by {grown / MIB:.0f} MiB")
    if trap.exists():
        score.surprise("a pickle was loaded")
    score.surprises += forged(worker.output())
    purged = app.broker.call(lambda broker, seconds: broker.purge(["default"], seconds))
    if purged != dead or behind.reasons():
        score.surprise(f"{purged} of {dead} dead letters were purged")
    if worker.stop(PATIENCE) != 0:
        score.surprise(worker.output()[-500:])
    score.judge()
