"""A second process: what another application on the same backend does.

`run(target, namespace, "load", ids=[…])` starts a new interpreter, which opens the backend by its
URL and does what the function of that name below does. Requests and answers are JSON on the
standard streams, so that no URL, and no password, is ever an argument of a process.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Final

from upshot import clock, registry
from upshot.client import ResultClient
from upshot.origin import Origin
from upshot.record import Record
from upshot.result import AsyncResult
from upshot_conformance.concurrency import start
from upshot_conformance.records import CODECS, failure, new_id, success, value_of
from upshot_conformance.selection import Target
from upshot_conformance.suite import contest
from upshot_conformance.suite.keyed import claim_of, send
from upshot_conformance.suite.watching import read_watched

__all__ = [
    "SECONDS",
    "Action",
    "Other",
    "claim",
    "compete",
    "fail_strangely",
    "interrupt",
    "leave_everything_open",
    "load",
    "run",
    "store_and_tell",
    "store_batches",
    "store_for",
    "take_part",
    "unpickle",
    "unpickle_unopened",
    "wait",
]

SECONDS: Final = 60.0
"""How long a second process may take; a slow machine starts an interpreter in a few seconds."""

Action = Callable[..., object]


class Other:
    """A second process that has opened the backend and waits for the word to begin.

    Use it as a context manager; leaving it ends the process.
    """

    def __init__(self, target: Target, namespace: str, action: str, **arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error::ResourceWarning", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        request = {
            "url": target.text,
            "namespace": namespace,
            "action": action,
            "arguments": arguments,
        }
        self._say(json.dumps(request))
        self._hear("ready")

    def begin(self) -> None:
        """Let it begin; leaving the context then ends it in the middle of what it does."""
        self._say("go")

    def killed_after(self, count: int) -> list[str]:
        """Let it begin, kill it when it has told `count` lines, and return all that it told."""
        self.begin()
        assert self._process.stdout is not None
        told = [self._process.stdout.readline() for _ in range(count)]
        self._process.kill()
        told += self._process.stdout.readlines()
        return [line.strip() for line in told if line.endswith("\n")]

    def finish(self) -> Any:
        """Let it begin, and return its answer once it has ended without a word of complaint."""
        out, errors = self._process.communicate("go\n", timeout=SECONDS)
        assert self._process.returncode == 0, f"the other process failed:\n{errors}"
        assert not errors, f"the other process complained:\n{errors}"
        return json.loads(out)

    def __enter__(self) -> Other:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._process.wait(SECONDS)

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _hear(self, expected: str) -> None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if line != expected:
            _, errors = self._process.communicate(timeout=SECONDS)
            raise AssertionError(f"the other process did not start:\n{errors}")


def run(target: Target, namespace: str, action: str, **arguments: object) -> Any:
    """Do something in a second process and return its answer."""
    with Other(target, namespace, action, **arguments) as other:
        return other.finish()


# -- what the second process does; each takes a client and JSON, and returns JSON --------------


def load(client: ResultClient, ids: Sequence[str]) -> list[object]:
    """Return `[state, value]` per id, None for no record."""
    found = [client.load(task_id) for task_id in ids]
    return [record and [record.state, value_of(record)] for record in found]


def store_for(client: ResultClient, seconds: Mapping[str, float]) -> None:
    """End each task with a record that is kept for its number of seconds."""
    for task_id, expires in seconds.items():
        client.store(success(task_id, 1), expires=expires)


def store_batches(client: ResultClient, batches: Sequence[Sequence[str]]) -> None:
    """End all tasks, one batch after the other."""
    for ids in batches:
        client.store_many([success(task_id, 1) for task_id in ids])


def store_and_tell(client: ResultClient, ids: Sequence[str], reply_to: str) -> None:
    """End one task after the other, and tell of each that is stored as soon as it is."""
    for task_id in ids:
        client.store(success(task_id, task_id), reply_to=reply_to)
        sys.stdout.write(task_id + "\n")
        sys.stdout.flush()


def wait(client: ResultClient, ids: Sequence[str], timeout: float) -> dict[str, object]:
    """Return the value of each id, once all have ended."""
    ended = client.wait_many(ids, timeout=timeout)
    return {key: value_of(record) for key, record in ended if isinstance(record, Record)}


def unpickle(client: ResultClient, handle: str, timeout: float) -> object:
    """Return the value of a pickled handle, as an app that has opened the same backend."""
    origin = Origin(client, CODECS)
    restored: AsyncResult[object] = pickle.loads(base64.b64decode(handle))
    assert restored.origin is origin
    return restored.get(timeout=timeout)


def unpickle_unopened(client: ResultClient, handle: str) -> str:
    """Return which error a pickled handle raises in a process without an app."""
    restored: AsyncResult[object] = pickle.loads(base64.b64decode(handle))
    try:
        restored.get(timeout=SECONDS)
    except Exception as exc:  # which one it is, the test judges
        return type(exc).__name__
    return "nothing was raised"


def compete(client: ResultClient, ids: Sequence[str], name: str) -> list[bool]:
    """End each task in the name of this process; return which of them were applied."""
    return [client.store(success(task_id, name)) for task_id in ids]


def claim(client: ResultClient, keys: Sequence[str], name: str) -> list[str]:
    """Claim each key for a task of this process; return the id that holds it."""
    return [send(client, claim_of(key, f"{name} {key}")) for key in keys]


def take_part(
    client: ResultClient, names: Sequence[str], rounds: int, seed: int
) -> list[dict[str, Any]]:
    """Take part in a contest, with a thread per name; return the calls of all."""
    players = [(name, client) for name in names]
    return contest.to_wire(contest.compete(players, rounds=rounds, seed=seed))


def fail_strangely(client: ResultClient, task_id: str) -> None:
    """Record a failure whose class exists in this process only."""
    namespace: dict[str, Any] = {"__name__": "nowhere_else"}
    exec("class Stranger(ValueError):\n    pass\n", namespace)
    try:
        raise namespace["Stranger"]("who", 7)
    except ValueError as exc:
        client.store(failure(task_id, exc))


def interrupt(client: ResultClient, times: int, after: float) -> dict[str, object]:
    """Interrupt the main thread's waits, as Ctrl-C does, each kind of wait so many times.

    Args:
        client: whose waits they are.
        times: how often each kind.
        after: seconds that a wait is left alone first: a signal that meets a thread which is about
            to block is heeded by Python only when that thread is done with waiting.

    Returns:
        What ended each wait, `ended_by`; how many `seconds` after the interrupt; and how many
        `waiters` are left.
    """
    interrupted = [0.0]

    def press_ctrl_c() -> None:
        while not client.stats()["waiters"]:
            clock.sleep(0.001)
        clock.sleep(after)
        interrupted[0] = clock.monotonic()
        os.kill(os.getpid(), signal.SIGINT)

    ways: list[Action] = [
        lambda: client.wait(new_id(), timeout=SECONDS / 4),
        lambda: list(client.wait_many([new_id(), new_id()], timeout=SECONDS / 4)),
        lambda: AsyncResult[object](new_id(), Origin(client, CODECS)).get(SECONDS / 4),
    ]
    ended_by: list[str] = []
    seconds: list[float] = []
    for way in ways * times:
        pressing = start(press_ctrl_c)
        try:
            way()
        except BaseException as exc:  # which one it is, the test judges
            ended_by.append(type(exc).__name__)
        seconds.append(clock.monotonic() - interrupted[0])
        pressing.result(SECONDS)
        if client.stats()["waiters"]:
            break
    return {"ended_by": ended_by, "seconds": seconds, "waiters": client.stats()["waiters"]}


def leave_everything_open(client: ResultClient) -> None:
    """End the process with a wait running, handles alive and nothing closed."""
    handle: AsyncResult[object] = AsyncResult(new_id(), Origin(client, CODECS))
    client.store(success(new_id(), 1))
    _LEFT.append(handle)
    _LEFT.append(start(lambda: handle.get(timeout=SECONDS)))
    while not client.stats()["waiters"]:
        client.load(handle.id)


_LEFT: Final[list[object]] = []

_ACTIONS: Final[dict[str, Action]] = {
    action.__name__: action
    for action in (
        load,
        store_and_tell,
        store_batches,
        store_for,
        wait,
        unpickle,
        unpickle_unopened,
        compete,
        claim,
        take_part,
        fail_strangely,
        interrupt,
        leave_everything_open,
        read_watched,
    )
}


@contextlib.contextmanager
def _opened(request: dict[str, Any]) -> Generator[ResultClient]:
    target = Target("elsewhere", request["url"])
    expiring = registry.backend_class(target.url).capabilities.expiry_resolution is not None
    client = ResultClient(
        target.make,
        url=target.url,
        namespace=request["namespace"],
        expires=600 if expiring else None,
    )
    yield client
    if request["action"] != "leave_everything_open":
        client.close()


def _main() -> None:
    request = json.loads(sys.stdin.readline())
    with _opened(request) as client:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        answer = _ACTIONS[request["action"]](client, **request["arguments"])
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    _main()
