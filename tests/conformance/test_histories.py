"""Histories: the checker finds what is impossible and nothing else; files are whole or refused."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from upshot.client import ResultClient
from upshot.errors import ServiceUnavailableError
from upshot.states import NEVER
from upshot_conformance import histories
from upshot_conformance.histories import History, HistoryError, Recorder
from upshot_conformance.linearizability import (
    NOTHING,
    Action,
    Operation,
    Outcome,
    State,
    check,
)
from upshot_conformance.records import failure, success
from upshot_conformance.selection import Target

END, START, RETRY = 31, 20, 28


def call(
    action: Action, invoked: float, returned: float, *, by: str = "one", **details: Any
) -> Operation:
    details.setdefault("outcome", "ok")
    return Operation(
        client=by,
        process=1,
        thread=1,
        action=action,
        task_id="a",
        invoked=invoked,
        returned=returned,
        **details,
    )


def end(
    mark: str, invoked: float, returned: float, *, applied: bool = True, **details: Any
) -> Operation:
    return call(
        "store", invoked, returned, mark=mark, rank=END, barrier=NEVER, applied=applied, **details
    )


def begin(mark: str, attempt: int, invoked: float, returned: float, *, applied: bool) -> Operation:
    rank = 16 * attempt + 4
    return call("store", invoked, returned, mark=mark, rank=rank, barrier=rank + 1, applied=applied)


def read(mark: str, invoked: float, returned: float, **details: Any) -> Operation:
    return call("load", invoked, returned, mark=mark, **details)


def forget(invoked: float, returned: float, **details: Any) -> Operation:
    return call("forget", invoked, returned, **details)


POSSIBLE: dict[str, list[Operation]] = {
    "nothing was called": [],
    "one after the other": [read("", 0, 1), end("x", 2, 3), read("x", 4, 5)],
    "a read beside a store sees either": [
        end("x", 0, 10),
        read("", 1, 2),
        read("x", 3, 4),
    ],
    "two ends at once, one wins": [end("x", 0, 5), end("y", 1, 6, applied=False), read("x", 7, 8)],
    "the later call wins": [end("x", 0, 5, applied=False), end("y", 1, 6), read("y", 7, 8)],
    "forgotten between two ends": [end("x", 0, 1), forget(2, 9), end("y", 3, 8), read("y", 10, 11)],
    "attempts follow each other": [
        begin("x", 1, 0, 1, applied=True),
        begin("y", 1, 2, 3, applied=False),
        begin("z", 2, 4, 5, applied=True),
        read("z", 6, 7),
    ],
    "touching times are at once": [end("x", 0, 1), read("", 1, 2)],
    "a store that failed took effect late": [
        end("x", 0, 1, outcome="unknown", applied=False),
        read("", 5, 6),
        read("x", 8, 9),
    ],
    "a store that failed never took effect": [
        end("x", 0, 1, outcome="unknown", applied=False),
        end("y", 2, 3),
        read("y", 4, 5),
    ],
    "a forgetting that failed took effect late": [
        end("x", 0, 1),
        forget(2, 3, outcome="unknown"),
        read("x", 4, 5),
        read("", 6, 7),
    ],
    "what was refused did nothing": [end("x", 0, 1, outcome="fail"), read("", 2, 3)],
}

IMPOSSIBLE: dict[str, tuple[list[Operation], str]] = {
    "an update is lost": ([end("x", 0, 1), read("", 2, 3)], "x would have been possible"),
    "a stale read": (
        [begin("x", 1, 0, 1, applied=True), end("y", 2, 3), read("y", 4, 5), read("x", 6, 7)],
        "y would have been possible",
    ),
    "a read from the future": ([read("x", 0, 1), end("x", 2, 3)], "nothing would have been"),
    "a read from nowhere": ([end("x", 0, 1), read("z", 2, 3)], "x would have been possible"),
    "a double winner": ([end("x", 0, 5), end("y", 1, 6)], "'not applied' would have been"),
    "no winner": (
        [end("x", 0, 5, applied=False), end("y", 1, 6, applied=False)],
        "'applied' would have been",
    ),
    "readers disagree": (
        [end("x", 0, 9, outcome="unknown"), end("y", 0, 8, outcome="unknown"),
         read("x", 10, 11), read("y", 12, 13)],
        "x would have been possible",
    ),
    "resurrection after forgetting": (
        [end("x", 0, 1), forget(2, 3), read("", 4, 5), read("x", 6, 7)],
        "nothing would have been possible",
    ),
    "an unknown outcome that was there before its call": (
        [read("x", 0, 1), end("x", 2, 3, outcome="unknown")],
        "nothing would have been possible",
    ),
    "an unknown outcome that took effect and was lost": (
        [end("x", 0, 1, outcome="unknown"), read("x", 2, 3), read("", 4, 5)],
        "x would have been possible",
    ),
    "an older attempt replaces a newer one": (
        [begin("x", 2, 0, 1, applied=True), begin("y", 1, 2, 3, applied=True)],
        "'not applied' would have been",
    ),
    "a start is given to two": (
        [begin("x", 1, 0, 5, applied=True), begin("y", 1, 1, 6, applied=True)],
        "'not applied' would have been",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", POSSIBLE)
def test_what_can_have_happened_is_left_alone(name: str) -> None:
    assert check(POSSIBLE[name]) == []


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_have_happened_is_found_and_explained(name: str) -> None:
    operations, said = IMPOSSIBLE[name]

    (violation,) = check(operations[::-1])  # in any order

    assert said in str(violation)
    assert str(violation.last) in str(violation)


def test_ids_are_judged_one_by_one() -> None:
    good = [replace(each, task_id="good") for each in POSSIBLE["the later call wins"]]

    (violation,) = check([*good, *IMPOSSIBLE["a double winner"][0]])

    assert violation.task_id == "a"


def test_an_explanation_leaves_out_what_does_not_matter() -> None:
    noise = [read("x", time, time + 0.5) for time in range(10, 40)]
    late = [end("z", 41, 42, applied=False), read("", 43, 44, by="two"), read("x", 45, 46)]

    (violation,) = check([end("x", 0, 1, by="writer"), *noise, *late])

    assert violation.operations == (violation.last,)
    assert [each.client for each in violation.earlier] == ["writer"]
    assert violation.last.client == "two"
    assert len(str(violation).splitlines()) == 5


@pytest.mark.parametrize(("visibility", "allowed"), [(0.0, False), (1.0, False), (5.0, True)])
def test_a_read_may_be_late_by_the_declared_visibility(visibility: float, allowed: bool) -> None:
    operations = [end("x", 10, 11), read("", 14, 14.5)]

    assert (check(operations, visibility=visibility) == []) is allowed


def brute_force(operations: Sequence[Operation]) -> bool:
    """Tell whether any order fits, by trying all of them."""
    known = [each for each in operations if each.outcome == "ok"]
    unknown = [each for each in operations if each.outcome == "unknown" and each.action != "load"]
    return any(
        fits(order)
        for count in range(len(unknown) + 1)
        for happened in itertools.combinations(unknown, count)
        for order in itertools.permutations([*known, *happened])
    )


def fits(order: Sequence[Operation]) -> bool:
    """Tell whether the answers are right in this order, and the times allow it."""
    state = NOTHING
    for index, each in enumerate(order):
        if any(later.outcome == "ok" and later.returned < each.invoked for later in order[index:]):
            return False
        applies = each.rank >= state.barrier
        if each.action == "load" and each.mark != state.mark:
            return False
        if each.action == "store" and each.outcome == "ok" and each.applied != applies:
            return False
        if each.action == "store" and applies:
            state = State(each.mark, each.barrier)
        if each.action == "forget":
            state = NOTHING
    return True


def tiny(draw: random.Random) -> list[Operation]:
    """Return a history of up to five operations, most of which nearly fit."""
    operations: list[Operation] = []
    for index in range(draw.randint(1, 5)):
        invoked = draw.randint(0, 8)
        outcome: Outcome = draw.choice(["ok", "ok", "ok", "unknown", "fail"])
        span = (invoked, invoked + draw.randint(1, 6))
        action: Action = draw.choice(["store", "store", "load", "load", "forget"])
        if action == "load":
            operations.append(read(draw.choice(["", "0", "1", "2"]), *span, outcome=outcome))
        elif action == "forget":
            operations.append(forget(*span, outcome=outcome))
        else:
            rank, barrier = draw.choice([(START, START + 1), (RETRY, RETRY), (END, NEVER)])
            applied = draw.random() < 0.6
            operations.append(
                call(
                    "store", *span, outcome=outcome, mark=str(index), rank=rank,
                    barrier=barrier, applied=applied,
                )
            )  # fmt: skip
    return operations


def test_the_search_agrees_with_trying_all_orders() -> None:
    draw = random.Random(4)
    found = {True: 0, False: 0}

    for _ in range(4000):
        operations = tiny(draw)
        possible = brute_force(operations)
        assert (check(operations) == []) is possible, operations
        found[possible] += 1

    assert min(found.values()) > 500, "the histories are too alike to tell anything"


def test_a_long_history_with_many_at_once_is_judged_in_no_time() -> None:
    draw = random.Random(1)
    operations: list[Operation] = []
    for turn in range(500):
        first = end(f"{turn}", 10 * turn, 10 * turn + 8)
        others = [
            end(f"{turn}/{n}", 10 * turn + draw.random(), 10 * turn + 7, applied=False)
            for n in range(6)
        ]
        operations += [first, *others, forget(10 * turn + 9, 10 * turn + 9.5)]

    assert check(operations) == []


def history(*operations: Operation) -> History:
    return History("some-backend", 7, 0.25, operations)


def test_a_saved_history_is_read_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "history.jsonl"
    saved = history(end("ü\n", 0.1, 1 / 3), read("", 2, 3, outcome="unknown", note="é"))

    saved.save(path)

    assert History.load(path) == saved


def damaged(lines: list[str]) -> dict[str, str]:
    """Return texts that are no whole history, by what is wrong with them."""
    return {
        "is no history": "\n".join(lines)[:-5],
        "has no footer": "\n".join(lines[:-1]),
        "has lost some": "\n".join([lines[0], *lines[2:]]),
        "does not begin": "\n".join(lines[1:]),
        "of another form": "\n".join([lines[0], '{"shape": "round"}', *lines[2:]]),
    }


@pytest.mark.parametrize("wrong", damaged(["{}"] * 4))
def test_a_file_that_is_not_whole_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    path = tmp_path / "history.jsonl"
    history(end("x", 0, 1), read("x", 2, 3)).save(path)
    path.write_text(damaged(path.read_text().splitlines())[wrong])

    with pytest.raises(HistoryError, match=wrong):
        History.load(path)
    assert histories.main([str(path)]) == 2
    assert wrong in capsys.readouterr().err


def test_a_file_that_is_not_there_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert histories.main([str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("operations", "code", "said"),
    [(POSSIBLE["one after the other"], 0, "0 of them impossible"),
     (IMPOSSIBLE["a double winner"][0], 1, "no order of these calls")],
)  # fmt: skip
def test_a_saved_history_can_be_checked_again(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    operations: list[Operation],
    code: int,
    said: str,
) -> None:
    path = tmp_path / "history.jsonl"
    history(*operations).save(path)

    assert histories.main([str(path)]) == code
    assert said in capsys.readouterr().out


def test_a_recorder_notes_what_was_called_and_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target("memory", "memory://recorded")
    with ResultClient(target.make, url=target.url) as client:
        recorder = Recorder(client, "one")
        first, second = success("a", 1), failure("a", ValueError("late"))
        recorder.store([first, second])
        recorder.load(["a"])
        recorder.load(["a", "unknown", "a"])
        recorder.load(["\0"])
        recorder.forget("a")

        def lost(self: ResultClient, records: object) -> list[bool]:
            raise ServiceUnavailableError("the answer was lost")

        monkeypatch.setattr(ResultClient, "store_many", lost)
        recorder.store([first])

    noted = [(each.action, each.outcome, each.applied, each.mark) for each in recorder.operations]
    mark, other = histories.mark_of(first), histories.mark_of(second)
    assert noted == [
        ("store", "ok", True, mark),
        ("store", "ok", False, other),
        *[("load", "ok", False, mark)] * 2,
        ("load", "ok", False, ""),
        ("load", "ok", False, mark),
        ("load", "fail", False, ""),
        ("forget", "ok", False, ""),
        ("store", "unknown", False, mark),
    ]
    assert check(recorder.operations) == []
    assert all(each.invoked <= each.returned for each in recorder.operations)
    assert json.loads(json.dumps([each.note for each in recorder.operations]))
