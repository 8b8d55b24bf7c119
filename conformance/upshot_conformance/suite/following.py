"""Calls on two clients, each answer of which is compared with the model's."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NoReturn, TypeVar, cast

from upshot import clock
from upshot.backend import Capabilities
from upshot.client import ResultClient
from upshot.errors import ResultTimeoutError, UpshotError
from upshot.outcome import encode_failure, encode_value
from upshot.record import Payload, Record
from upshot.states import State, is_terminal
from upshot_conformance.harness import Harness
from upshot_conformance.records import CODECS
from upshot_conformance.suite.model import Model
from upshot_conformance.timing import Timing

__all__ = ["NAMES", "SHORT", "BreachError", "Follower", "Setting", "breach_of", "resolution_of"]

T = TypeVar("T")

NAMES: Final = ("a", "ab", "b", "c")
"""The ids of a program: few, so that calls meet; one begins with another."""

SHORT: Final = 0.01
"""Seconds that a record is kept which is to expire while we look."""

_PATIENCE: Final = 20.0
"""Seconds for which programs are made shorter after the first breach."""


class BreachError(AssertionError):
    """A call showed what the contract forbids; see `breach_of`."""

    clause_id: str = ""


@functools.cache
def breach_of(clause_id: str) -> type[BreachError]:
    """Return the exception for one clause: hypothesis tells failures apart by their types."""
    return type(f"BreachOf{clause_id}", (BreachError,), {"clause_id": clause_id})


@dataclass(slots=True)
class Setting:
    """Where programs run, and what they have found.

    Attributes:
        open: opens a client on the backend under test.
        capabilities: what it declares.
        timing: the time knobs.
        namespace: in which the clients are.
        harness: looks behind the backend's back; None if nobody wrote one.
        programs: how many have been run.
        deadline: when to be content with the programs that were found; there is none before.
        found: per clause that was broken, the shortest program that showed it.
    """

    open: Callable[[], ResultClient]
    capabilities: Capabilities
    timing: Timing
    namespace: str
    harness: Harness | None
    programs: int = 0
    deadline: clock.Deadline = field(default_factory=partial(clock.Deadline, None))
    found: dict[str, list[str]] = field(default_factory=dict[str, list[str]])


class Follower:
    """Makes the calls of one program, and follows them in the model.

    Every method that makes a call raises the breach of a clause where the answer is not the
    model's, and leaves the program so far, as text, in `setting.found`.

    Attributes:
        model: what a backend that keeps the contract would hold.
        last: the record that was stored last, per id.
        broken: a breach was found.
    """

    def __init__(self, setting: Setting) -> None:
        setting.programs += 1
        self._setting = setting
        self._prefix = f"{setting.programs}-"
        self._clients = {"one": setting.open(), "two": setting.open()}
        self._lines: list[str] = []
        self._stored = 0
        self.model = Model()
        self.last: dict[str, Record] = {}
        self.broken = False

    def id_of(self, name: str) -> str:
        """Return the task id that a name stands for: no other program has it."""
        return self._prefix + name

    def name_of(self, task_id: str) -> str:
        """Return the name of a task id."""
        return task_id.removeprefix(self._prefix)

    def record(self, name: str, state: str, attempt: int) -> Record:
        """Return a record that differs from every other of this program."""
        self._stored += 1
        outcome: Payload | None = None
        if state == State.SUCCESS:
            outcome = encode_value(CODECS, self._stored)
        elif state == State.FAILURE:
            outcome = encode_failure(CODECS, ValueError(self._stored))
        return Record(
            task_id=self.id_of(name),
            state=state,
            attempt=attempt,
            token=str(self._stored),
            outcome=outcome,
        )

    def is_decided(self, record: Record) -> bool:
        """Tell whether the contract says what becomes of a record, given what is declared."""
        kept, declared = self.model.get(record.task_id), self._setting.capabilities
        ordered = declared.intermediate and declared.atomic
        return ordered or record.is_terminal or (kept is not None and kept.is_terminal)

    # -- calls --------------------------------------------------------------------------------

    def store(self, number: str, record: Record, *, expires: float | None = None) -> bool:
        """Store one record; `expires` as usual if None. Return whether it was applied."""
        if not self.is_decided(record):
            return False
        client = self._clients[number]
        options = "" if expires is None else f", expires={expires}"
        if not self.model.applies(record):
            # A record that is lost already is the matter of another clause than what replaced it.
            self.load(number, record.task_id)
        keep = client.expires if expires is None else expires
        call = f"{number}.store({self._shown(record)}{options})"
        applied = self._ask("FT-3", call, partial(client.store, record, expires=keep))
        right, clause_id = self.model.store(record)
        self.last[record.task_id] = record
        if applied is not right:
            self._fail(clause_id, f"the model says {right}")
        return applied

    def store_many(self, number: str, records: Sequence[Record]) -> None:
        """Store a batch."""
        call = f"{number}.store_many([{'; '.join(map(self._shown, records))}])"
        applied = self._ask("FT-3", call, partial(self._clients[number].store_many, records))
        if len(applied) != len(records):
            self._fail("BT-3", f"{len(records)} answers were expected")
        before: set[str] = set()
        for record, answer in zip(records, applied, strict=True):
            right, clause_id = self.model.store(record)
            self.last[record.task_id] = record
            if answer is not right:
                clause_id = "BT-3" if record.task_id in before else clause_id
                self._fail(clause_id, f"{self._shown(record)}: the model says {right}")
            before.add(record.task_id)
            if right:
                self.model.suspect(record.task_id, "BT-3")

    def load(self, number: str, task_id: str) -> None:
        """Read one record."""
        right = self.model.get(task_id)
        call = f"{number}.load('{self.name_of(task_id)}')"
        seen = self._read("ID-1", call, partial(self._clients[number].load, task_id), right)
        if seen != right:
            self._differs("", number, task_id, seen)
        self.model.suspect(task_id, "RD-1")

    def load_many(self, number: str, ids: Sequence[str]) -> None:
        """Read a batch."""
        right: list[Record | UpshotError | None] = [self.model.get(task_id) for task_id in ids]
        call = f"{number}.load_many({list(map(self.name_of, ids))})"
        seen = self._read("ID-1", call, partial(self._clients[number].load_many, ids), right)
        if len(seen) != len(ids):
            self._fail("BT-1", f"{len(ids)} answers were expected")
        for task_id, record, expected in zip(ids, seen, right, strict=True):
            if record != expected:
                self._differs("BT-1", number, task_id, record)
            self.model.suspect(task_id, "RD-1")

    def wait(self, number: str, task_id: str) -> None:
        """Look once whether a task has ended."""
        client, kept = self._clients[number], self.model.get(task_id)

        def look() -> Record | None:
            try:
                return client.wait(task_id, timeout=0)
            except ResultTimeoutError:
                return None

        right = kept if kept and kept.is_terminal else None
        call = f"{number}.wait('{self.name_of(task_id)}', timeout=0)"
        seen = self._read("ID-1", call, look, right)
        if seen is not None and not is_terminal(seen.state):
            self._fail("WT-7", "which is no end")
        if seen != right:
            self._differs("WT-2", number, task_id, seen)

    def scan(self, number: str) -> None:
        """Enumerate all records."""
        client, live = self._clients[number], self.model.live()

        def ours() -> dict[str, Record]:
            return {r.task_id: r for r in client.scan() if r.task_id.startswith(self._prefix)}

        seen = self._read("CP-3", f"{number}.scan()", ours, live)
        for task_id in sorted(live.keys() | seen.keys()):
            if seen.get(task_id) != live.get(task_id):
                self._differs("CP-3", number, task_id, seen.get(task_id))

    def forget(self, number: str, ids: Sequence[str]) -> None:
        """Forget tasks."""
        call = f"{number}.forget({list(map(self.name_of, ids))})"
        self._ask("RL-3", call, partial(self._clients[number].forget, ids))
        for task_id in ids:
            self.model.remove(task_id, "forgotten")
        for task_id in self.model.live():
            self.model.suspect(task_id, "ID-2")

    def expire(self, number: str, record: Record) -> None:
        """Store with a short expiry, and look until it is over, or that it means nothing."""
        task_id, name = record.task_id, self.name_of(record.task_id)
        timing, resolution = self._setting.timing, resolution_of(self._setting.capabilities)
        if not self.store(number, record, expires=SHORT):
            over = clock.Deadline(2 * SHORT + resolution)
            while not over.expired:
                seen = self._clients[number].load(task_id)
                if seen != self.model.get(task_id):
                    self._fail("EX-2", f"later, the record of '{name}' is {self._shown(seen)}")
            return
        again = "EX-1" in self._setting.found  # then this only makes the program shorter
        within = resolution + (timing.jitter if again else timing.within)
        self.model.remove(task_id, "expired")
        self._lines.append(f"… until '{name}' has expired")
        for client in self._clients.values():
            if not timing.eventually(partial(_is_gone, client, task_id), within=within):
                self._fail("EX-1", f"it is still there after {within:.1f} seconds")

    def reopen(self, number: str) -> None:
        """Close a client and open another in its place."""
        self._ask("RL-5", f"{number}.close()", self._clients[number].close)
        self._clients[number] = self._setting.open()
        self._lines.append(f"{number} = another client")
        for task_id in self.model.live():
            self.model.suspect(task_id, "FT-3")

    def compare_everything(self, *, singly: bool) -> None:
        """Read everything in batches, through both clients.

        Args:
            singly: also read each id alone; otherwise one of them, which one changes.
        """
        length = len(self._lines)
        ids = [self.id_of(name) for name in (*NAMES, "unknown", *NAMES)]
        for number in self._clients:
            self.load_many(number, ids)
        for name in NAMES if singly else [NAMES[length % len(NAMES)]]:
            self.load("one", self.id_of(name))
            self.wait("two", self.id_of(name))
        del self._lines[length:]  # what is as it should be is not shown

    def leave(self) -> None:
        """Forget everything, and see that nothing is left behind."""
        timing = self._setting.timing
        for number, client in self._clients.items():
            if not timing.eventually(partial(_holds_nothing, client)):
                self._fail("RL-1", f"after its waits, {number} holds {client.stats()}")
        if not self.last:
            self._expect_nothing("ID-4")
        self.forget("one", [self.id_of(name) for name in NAMES])
        self._expect_nothing("RL-2")

    def close(self) -> None:
        """Close the clients; after a breach, remove what the program has left."""
        if self.broken and self._setting.harness:
            self._setting.harness.purge(self._setting.namespace)
        for client in self._clients.values():
            client.close()

    # -- how calls are made and judged --------------------------------------------------------

    def _ask(self, clause_id: str, call: str, action: Callable[[], T]) -> T:
        """Make a call and note its answer; an exception is none, and breaks `clause_id`."""
        try:
            answer = action()
        except Exception as exc:  # whatever the backend raises, it is no answer
            self._lines.append(f"{call} → {type(exc).__name__}: {exc}")
            self._fail(clause_id, "no such error is allowed here", exc)
        self._lines.append(f"{call} → {self._shown(answer)}")
        return answer

    def _read(self, clause_id: str, call: str, read: Callable[[], T], right: T) -> T:
        """Read until the answer is right, as long as the declared visibility allows others."""

        def settle() -> T:
            visibility = self._setting.capabilities.visibility
            over = clock.Deadline(visibility and visibility + self._setting.timing.jitter)
            seen = read()
            while seen != right and not over.expired:
                clock.sleep(self._setting.timing.poll)
                seen = read()
            return seen

        return self._ask(clause_id, call, settle)

    def _expect_nothing(self, clause_id: str) -> None:
        """Fail if the service has anything of this namespace, as far as it can be seen."""
        harness = self._setting.harness
        found = harness.raw_objects(self._setting.namespace) if harness else set[str]()
        if found:
            self._fail(clause_id, f"the service has {', '.join(sorted(found))}")

    def _differs(
        self, path: str, number: str, task_id: str, seen: Record | UpshotError | None
    ) -> NoReturn:
        """Fail for a record that is not the model's; blame `path` if a plain load is right."""
        right = self.model.get(task_id)
        clause_id = self.model.blame(task_id, seen if isinstance(seen, Record) else None)
        if path and self._clients[number].load(task_id) == right:
            clause_id = path
        name = self.name_of(task_id)
        self._fail(clause_id, f"'{name}': {self._shown(seen)}; the model: {self._shown(right)}")

    def _fail(self, clause_id: str, why: str, cause: Exception | None = None) -> NoReturn:
        self.broken = True
        program = [*self._lines, f"    {why}"]
        found = self._setting.found
        if not found:
            self._setting.deadline = clock.Deadline(_PATIENCE)
        if clause_id not in found or len(program) <= len(found[clause_id]):
            found[clause_id] = program
        raise breach_of(clause_id)("\n".join(program)) from cause

    def _shown(self, answer: object) -> str:
        """Return an argument or an answer in a few words."""
        if isinstance(answer, Record):
            name = self.name_of(answer.task_id)
            return f"'{name}' {answer.state} of attempt {answer.attempt}, no. {answer.token}"
        if isinstance(answer, dict):
            return self._shown(list(cast("dict[str, object]", answer).values()))
        if isinstance(answer, list):
            return f"[{'; '.join(map(self._shown, cast('list[object]', answer)))}]"
        return str(answer)


def resolution_of(capabilities: Capabilities) -> float:
    """Return how exact expiry is, in seconds; infinite if nothing expires."""
    resolution = capabilities.expiry_resolution
    return float("inf") if resolution is None else resolution


def _is_gone(client: ResultClient, task_id: str) -> bool:
    return client.load(task_id) is None and client.load_many([task_id]) == [None]


def _holds_nothing(client: ResultClient) -> bool:
    stats = client.stats()
    return not stats["keys"] and not stats["waiters"]
