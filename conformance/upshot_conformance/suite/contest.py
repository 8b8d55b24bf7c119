"""A contest: many threads, of one process or two, call the same few ids at once.

Each draws its calls from a seed of its own. The ids are of three kinds, which are called in turn,
so that an impossible answer can be blamed on a clause.
"""

from __future__ import annotations

import contextlib
import random
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Final

from upshot.client import ResultClient
from upshot.outcome import encode_failure, encode_value
from upshot.record import Payload, Record
from upshot.states import State
from upshot_conformance.concurrency import together
from upshot_conformance.histories import Recorder
from upshot_conformance.linearizability import Operation, check
from upshot_conformance.records import CODECS

__all__ = ["BLAMED", "blame", "compete", "from_wire", "rounds_for", "to_wire"]

BLAMED: Final = ("ST-4", "ST-5", "ST-8", "RL-2")
"""The clauses whose breach a contest can show."""

_SECONDS: Final = 100.0
"""How long they may take; a slow service needs a few seconds."""

_ENDS: Final = (State.SUCCESS, State.FAILURE, State.REVOKED)
_LIFE: Final = (State.QUEUED, State.STARTED, State.STARTED, State.RETRY, "PROGRESS", State.SUCCESS)


def rounds_for(round_trip: float) -> int:
    """Return how many calls each thread makes on the ids of each kind.

    It takes about two seconds where a request takes a millisecond, and less where it takes less.

    Args:
        round_trip: seconds that a request takes.
    """
    return max(80, min(200, int(0.04 / max(round_trip, 1e-6))))


def compete(
    players: Sequence[tuple[str, ResultClient]], *, rounds: int, seed: int
) -> list[Operation]:
    """Let each player, a name and a client, call in a thread of its own; return all calls."""
    recorders = [Recorder(client, name) for name, client in players]
    turns = threading.Barrier(len(players))
    with _switching_often():
        together(
            [
                partial(_play, recorder, name, rounds, random.Random(f"{seed} {name}"), turns)
                for recorder, (name, _) in zip(recorders, players, strict=True)
            ],
            within=_SECONDS,
        )
    return [operation for recorder in recorders for operation in recorder.operations]


def blame(task_id: str, operations: Sequence[Operation], *, visibility: float) -> str:
    """Return the clause that is broken by impossible answers about an id."""
    if task_id.startswith("forgotten"):
        return "RL-2"
    ours = [each for each in operations if each.task_id == task_id and each.action != "load"]
    if not check(ours, visibility=visibility):
        return "ST-8"  # without what was read it is possible
    return "ST-4" if task_id.startswith("ended") else "ST-5"


def to_wire(operations: Sequence[Operation]) -> list[dict[str, Any]]:
    """Return plain data, for another process."""
    return list(map(asdict, operations))


def from_wire(wire: Sequence[dict[str, Any]]) -> list[Operation]:
    """Return what `to_wire` was called on."""
    return [Operation(**each) for each in wire]


def _play(
    recorder: Recorder, name: str, rounds: int, draw: random.Random, turns: threading.Barrier
) -> None:
    kinds = (_end, _live, _forget, _forget)
    try:
        for turn in range(rounds):
            for index, kind in enumerate(kinds):
                turns.wait(_SECONDS)  # calls that do not meet cannot get into each other's way
                kind(recorder, f"{name}.{turn}.{index}", turn, draw)
    except threading.BrokenBarrierError:
        return  # another player failed, and says how
    except BaseException:
        turns.abort()
        raise


def _end(recorder: Recorder, token: str, turn: int, draw: random.Random) -> None:
    """Tasks that several try to end: only the first call of all on an id decides."""
    ids = [f"ended-{turn}", f"ended-{turn + 1}"][: draw.randint(1, 2)]
    if draw.random() < 0.3:
        recorder.load(ids)
    else:
        recorder.store([_record(each, draw.choice(_ENDS), 1, token) for each in ids])


def _live(recorder: Recorder, token: str, turn: int, draw: random.Random) -> None:
    """Tasks that several try to run, attempt by attempt."""
    task_id = f"run-{turn // 10}"
    if draw.random() < 0.4:
        recorder.load([task_id])
        return
    state = draw.choice(_LIFE if turn % 10 > 5 else _LIFE[:-1])
    attempt = max(1, turn % 10 // 2 + draw.randint(-1, 1))
    recorder.store([_record(task_id, state, attempt, token)])


def _forget(recorder: Recorder, token: str, turn: int, draw: random.Random) -> None:
    """Tasks that end and are forgotten again and again."""
    task_id = f"forgotten-{turn // 10}-{draw.choice('aab')}"
    action: Callable[[], None] = draw.choice(
        [
            partial(recorder.load, [task_id]),
            partial(recorder.load, [task_id]),
            partial(recorder.forget, task_id),
            partial(recorder.store, [_record(task_id, State.SUCCESS, 1, token)]),
        ]
    )
    action()


def _record(task_id: str, state: str, attempt: int, token: str) -> Record:
    outcome: Payload | None = None
    if state == State.SUCCESS:
        outcome = encode_value(CODECS, token)
    elif state == State.FAILURE:
        outcome = encode_failure(CODECS, ValueError(token))
    return Record(task_id=task_id, state=state, attempt=attempt, token=token, outcome=outcome)


@contextlib.contextmanager
def _switching_often() -> Generator[None]:
    """Let Python change threads after microseconds: the gaps that it can change in are small."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)
