"""Whether what concurrent clients were told can have happened in one order.

An operation happens at one moment between its call and its return; if nobody knows what became of
it, at any moment after its call, or never. A history is linearizable if such moments can be chosen
so that every answer is right. Each task id is a register of its own, so each is checked alone:
`store` writes if the guard of `upshot.backend.Backend.store` lets it and answers whether it did,
`load` answers with what is there, `forget` empties it.

The search is that of Wing and Gong with Lowe's memory of what was tried. Where no operation is
under way the history is cut, and only the states that are possible there are carried on, so that
long histories cost no more than their busiest part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

__all__ = ["NOTHING", "Action", "Operation", "Outcome", "State", "Violation", "check"]

Action = Literal["store", "load", "forget"]
Outcome = Literal["ok", "fail", "unknown"]
"""`fail` says that it certainly did not happen, `unknown` that it may have."""

_FOREVER: Final = float("inf")


class State(NamedTuple):
    """What is stored under an id.

    Attributes:
        mark: which record; "" for none.
        barrier: the rank that a write must reach to replace it.
    """

    mark: str
    barrier: int


NOTHING: Final = State("", -1)
"""No record: any write applies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call on one id, as its caller saw it.

    Attributes:
        client: who called.
        process, thread: where, as the system numbers them.
        action: what was called.
        task_id: on which id.
        invoked: when, in seconds on the monotonic clock; likewise `returned`, when the answer or
            the error came.
        outcome: what is known of it.
        mark: the record that was stored or read; "" for none. Equal marks mean equal records.
        rank, barrier: of the record that was stored, else 0; see `upshot.states`.
        applied: what a store answered.
        note: what else a person wants to know of it.
    """

    client: str
    process: int
    thread: int
    action: Action
    task_id: str
    invoked: float
    returned: float
    outcome: Outcome
    mark: str = ""
    rank: int = 0
    barrier: int = 0
    applied: bool = False
    note: str = ""

    @property
    def by(self) -> float:
        """The moment by which it has happened, if at all."""
        return self.returned if self.outcome == "ok" else _FOREVER

    @property
    def changes_nothing(self) -> bool:
        """Tell whether the history says as much about the others without it."""
        return self.action == "load" or (
            self.action == "store" and self.outcome == "ok" and not self.applied
        )

    def __str__(self) -> str:
        if self.action == "load":
            said = f"read {self.mark or 'nothing'}"
        elif self.action == "store":
            said = f"stored {self.mark}: {'applied' if self.applied else 'not applied'}"
        else:
            said = "forgot it"
        if self.outcome == "unknown":
            said = f"{said.partition(':')[0]}: nobody knows whether"
        return f"{self.client} {said}{self.note and f' ({self.note})'}"


@dataclass(frozen=True, slots=True)
class Violation:
    """Why the operations on an id cannot have happened in any order.

    Attributes:
        task_id: which id.
        before: what may have been stored before the first of `operations`.
        earlier: the calls that stored that, and what `last` speaks of, if they are earlier.
        operations: the fewest that were found to be impossible together, by the time of call.
        last: the one of them whose answer cannot be; all were possible until it returned.
        instead: answers of `last` that would have been possible.
    """

    task_id: str
    before: frozenset[State]
    earlier: tuple[Operation, ...]
    operations: tuple[Operation, ...]
    last: Operation
    instead: tuple[str, ...]

    def __str__(self) -> str:
        begin = self.operations[0].invoked
        stored = " or ".join(sorted(state.mark or "nothing" for state in self.before))
        lines = [f"{self.task_id!r}: no order of these calls gives these answers;"]
        lines.append(f"    before them, stored was {stored}; times in milliseconds")
        for operation in (*self.earlier, *self.operations):
            called, back = (1000 * (t - begin) for t in (operation.invoked, operation.returned))
            sign = "*" if operation == self.last else " "
            lines.append(f"  {sign} {called:9.3f} to {back:9.3f}  {operation}")
        possible = " or ".join(self.instead) or "no answer"
        lines.append(f"    at the call marked *, {possible} would have been possible")
        return "\n".join(lines)


def check(operations: Sequence[Operation], *, visibility: float = 0.0) -> list[Violation]:
    """Return for each id whose operations cannot have happened in one order why they cannot.

    Args:
        operations: a whole history, in any order.
        visibility: seconds for which a read may show what was there before; it relaxes what a
            client sees of its own writes as well.
    """
    by_id: dict[str, list[Operation]] = {}
    for operation in operations:
        known = operation.outcome == "ok"
        if known or (operation.outcome == "unknown" and operation.action != "load"):
            if operation.action == "load" and visibility:
                operation = replace(operation, invoked=operation.invoked - visibility)
            by_id.setdefault(operation.task_id, []).append(operation)
    found = (_violation(sorted(each, key=lambda o: o.invoked)) for each in by_id.values())
    return [violation for violation in found if violation is not None]


def _violation(operations: Sequence[Operation]) -> Violation | None:
    states = frozenset({NOTHING})
    for part in _parts(operations):
        after = _ends(part, states)
        if not after:
            return _explained(operations, part, states)
        states = after
    return None


def _parts(operations: Sequence[Operation]) -> Iterator[Sequence[Operation]]:
    """Cut where nothing is under way."""
    begin, busy_until = 0, -_FOREVER
    for index, operation in enumerate(operations):
        if operation.invoked > busy_until and index > begin:
            yield operations[begin:index]
            begin = index
        busy_until = max(busy_until, operation.by)
    yield operations[begin:]


def _ends(operations: Sequence[Operation], states: frozenset[State]) -> frozenset[State]:
    """Return the states in which the operations, sorted by call, may end; empty if in none."""
    required = sum(1 << i for i, each in enumerate(operations) if each.by < _FOREVER)
    tried: set[tuple[int, State]] = {(0, state) for state in states}
    left = list(tried)
    ends: set[State] = set()
    while left:
        done, state = left.pop()
        if done & required == required:
            ends.add(state)
        for index in _next(operations, done):
            for after in _after(state, operations[index]):
                step = (done | 1 << index, after)
                if step not in tried:
                    tried.add(step)
                    left.append(step)
    return frozenset(ends)


def _next(operations: Sequence[Operation], done: int) -> list[int]:
    """Return which operations may come next: called before any other's return."""
    first = (~done & (done + 1)).bit_length() - 1  # all before it are done
    bound, candidates = _FOREVER, list[int]()
    for index in range(first, len(operations)):
        if operations[index].invoked > bound:
            break
        if not done >> index & 1:
            candidates.append(index)
            bound = min(bound, operations[index].by)
    return [index for index in candidates if operations[index].invoked <= bound]


def _after(state: State, operation: Operation) -> tuple[State, ...]:
    """Return the state that follows, or nothing if the answer would be wrong."""
    if operation.action == "forget":
        return (NOTHING,)
    if operation.action == "load":
        return (state,) if operation.mark == state.mark else ()
    applies = state.barrier <= operation.rank
    if operation.outcome == "ok" and applies != operation.applied:
        return ()
    return (State(operation.mark, operation.barrier) if applies else state,)


def _explained(
    operations: Sequence[Operation], part: Sequence[Operation], before: frozenset[State]
) -> Violation:
    """Cut an impossible part down to what makes it so."""
    moments = sorted(each.by for each in part if each.by < _FOREVER)
    moment = next(m for m in moments if not _ends(_until(part, m), before))
    window = _until(part, moment)
    last = next(each for each in window if each.by == moment)
    for operation in [each for each in reversed(window) if each is not last]:
        rest = [each for each in window if each is not operation]
        others = [each for each in rest if each is not last]
        if _may_go(operation) and not _ends(rest, before) and _ends(others, before):
            window = rest
    marks = {state.mark for state in before} | {last.mark}
    stored = (each for each in operations if each.action == "store" and each.mark in marks)
    return Violation(
        task_id=last.task_id,
        before=before,
        earlier=tuple(each for each in stored if each.by < part[0].invoked),
        operations=tuple(window),
        last=last,
        instead=_instead(window, last, before),
    )


def _may_go(operation: Operation) -> bool:
    return operation.changes_nothing or operation.outcome == "unknown"


def _until(part: Sequence[Operation], moment: float) -> list[Operation]:
    """Return what was known at a moment: what had not returned may have happened, or not."""
    known: list[Operation] = []
    for operation in part:
        if operation.by <= moment:
            known.append(operation)
        elif operation.invoked <= moment and operation.action != "load":
            known.append(replace(operation, outcome="unknown"))
    return known


def _instead(
    window: Sequence[Operation], last: Operation, before: frozenset[State]
) -> tuple[str, ...]:
    """Return the other answers that the last operation could have had."""

    def possible(other: Operation) -> bool:
        return bool(_ends([other if each is last else each for each in window], before))

    if last.action == "store":
        return ("'not applied'" if last.applied else "'applied'",)
    marks = {state.mark for state in before} | {each.mark for each in window} | {""}
    others = sorted(mark for mark in marks if possible(replace(last, mark=mark)))
    return tuple(mark or "nothing" for mark in others)
