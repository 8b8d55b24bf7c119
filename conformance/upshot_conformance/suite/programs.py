"""Programs: random sequences of calls on two clients, followed in a model.

hypothesis draws them and makes the ones that show a breach as short as it can. What a report shows
is the program as it was run, one call a line, with the answer of the backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from upshot.states import State
from upshot_conformance.suite.following import (
    NAMES,
    BreachError,
    Follower,
    Setting,
    resolution_of,
)

__all__ = ["BLAMED", "Program", "explore"]

BLAMED: Final = (
    "ID-1", "ID-2", "ID-4", "ST-1", "ST-2", "ST-3", "ST-5", "ST-6", "ST-8", "WT-2", "WT-7", "RD-1",
    "RL-1", "RL-2", "RL-3", "RL-5", "EX-1", "EX-2", "EX-4", "BT-1", "BT-3", "FT-3", "CP-3",
)  # fmt: skip
"""The clauses whose breach a program can show."""

_PROGRAMS: Final = 40
"""How many are drawn; with `_CALLS` it takes a few seconds on a service with quick answers."""

_CALLS: Final = 15
"""How many calls one has at most."""

_COARSE: Final = 0.1
"""Seconds; where expiry is less exact than this, waiting for it in programs would take minutes."""

_names: Final = st.sampled_from(NAMES)
_few_names: Final = st.sampled_from(NAMES[-2:])
_numbers: Final = st.sampled_from(["one", "two"])
_ends: Final = st.sampled_from([State.SUCCESS, State.FAILURE])
_states: Final = st.sampled_from(
    [State.QUEUED, State.STARTED, State.RETRY, "PROGRESS", State.SUCCESS, State.FAILURE]
)
_attempts: Final = st.integers(1, 3)


class _EnoughError(BaseException):
    """The time is up in which programs are made shorter; hypothesis lets it pass."""


def explore(setting: Setting, seed: int) -> dict[str, str]:
    """Run programs; return per clause that was broken the shortest one that showed it."""

    def program() -> Program:
        return Program(setting)

    settings = hypothesis.settings(
        max_examples=_PROGRAMS,
        stateful_step_count=_CALLS,
        database=None,
        deadline=None,
        derandomize=False,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow],  # a service may be
        verbosity=Verbosity.quiet,
    )
    factory: Any = hypothesis.seed(seed)(program)  # a function will do, whatever its types say
    try:
        run_state_machine_as_test(factory, settings=settings)
    except (BreachError, BaseExceptionGroup, Flaky, _EnoughError):
        # Whether it could be shown again or not, once was once too often.
        if not setting.found:
            raise
    return {clause_id: "\n".join(program) for clause_id, program in setting.found.items()}


class Program(RuleBasedStateMachine):
    """One sequence of calls; every rule is a call, or a few that belong together."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        if setting.deadline.expired:
            raise _EnoughError
        self._calls = Follower(setting)
        self._scans = setting.capabilities.scan
        self._may_expire = resolution_of(setting.capabilities) <= _COARSE
        self._may_reopen = True
        self._watches = False
        self._divided = False

    @initialize(watches=st.booleans(), divided=st.booleans())
    def begin(self, watches: bool, divided: bool) -> None:
        """Half of the programs look at everything after each call: reading must not matter.

        Half of them have one client that stores and one that does everything else, as workers and
        applications do: what one of them knows, the other must not need.
        """
        self._watches = watches
        self._divided = divided

    def _stores(self, number: str) -> str:
        return "one" if self._divided else number

    def _asks(self, number: str) -> str:
        return "two" if self._divided else number

    @rule(number=_numbers, name=_names, state=_states, attempt=_attempts)
    def store(self, number: str, name: str, state: str, attempt: int) -> None:
        """Store a record of any kind."""
        self._calls.store(self._stores(number), self._calls.record(name, state, attempt))

    @precondition(lambda self: self._calls.model.live())
    @rule(number=_numbers, data=st.data(), state=_states, attempt=_attempts)
    def store_late(self, number: str, data: st.DataObject, state: str, attempt: int) -> None:
        """Store something about a task that has a record already."""
        live = map(self._calls.name_of, self._calls.model.live())
        name = data.draw(st.sampled_from(sorted(live)))
        self._calls.store(self._stores(number), self._calls.record(name, state, attempt))

    @precondition(lambda self: self._calls.last)
    @rule(number=_numbers, data=st.data())
    def store_again(self, number: str, data: st.DataObject) -> None:
        """Store what was stored before, as a redelivery does."""
        names = sorted(map(self._calls.name_of, self._calls.last))
        name = data.draw(st.sampled_from(names))
        self._calls.store(self._stores(number), self._calls.last[self._calls.id_of(name)])

    @rule(number=_numbers, name=_names, attempt=st.integers(1, 2))
    def retry(self, number: str, name: str, attempt: int) -> None:
        """End an attempt with RETRY, and start the next."""
        self._calls.store(self._stores(number), self._calls.record(name, State.RETRY, attempt))
        self._calls.store(
            self._stores(number), self._calls.record(name, State.STARTED, attempt + 1)
        )

    @rule(number=_numbers, name=_names)
    def revoke(self, number: str, name: str) -> None:
        """Revoke a task."""
        self._calls.store(self._stores(number), self._calls.record(name, State.REVOKED, 1))

    @rule(
        number=_numbers,
        kinds=st.lists(st.tuples(_few_names, _states, _attempts), min_size=2, max_size=4),
    )
    def store_many(self, number: str, kinds: Sequence[tuple[str, str, int]]) -> None:
        """Store a batch, most often with several records of one task."""
        records = [self._calls.record(*kind) for kind in kinds]
        self._calls.store_many(self._stores(number), list(filter(self._calls.is_decided, records)))

    @rule(number=_numbers, name=_names)
    def load(self, number: str, name: str) -> None:
        """Read one record."""
        self._calls.load(self._asks(number), self._calls.id_of(name))

    @rule(number=_numbers, names=st.lists(_names, max_size=5))
    def load_many(self, number: str, names: Sequence[str]) -> None:
        """Read several, repetitions among them."""
        self._calls.load_many(self._asks(number), list(map(self._calls.id_of, names)))

    @rule(number=_numbers, name=_names)
    def wait(self, number: str, name: str) -> None:
        """Look for an end, once."""
        self._calls.wait(self._asks(number), self._calls.id_of(name))

    @precondition(lambda self: self._scans)
    @rule(number=_numbers)
    def scan(self, number: str) -> None:
        """Enumerate all records."""
        self._calls.scan(self._asks(number))

    @rule(number=_numbers, name=_names)
    def forget(self, number: str, name: str) -> None:
        """Forget a task, known or not."""
        self._calls.forget(self._asks(number), [self._calls.id_of(name)])

    @rule(number=_numbers, names=st.lists(_names, min_size=1, max_size=4))
    def forget_many(self, number: str, names: Sequence[str]) -> None:
        """Forget tasks, known or not, perhaps twice."""
        self._calls.forget(self._asks(number), list(map(self._calls.id_of, names)))

    @precondition(lambda self: self._may_expire)
    @rule(number=_numbers, name=_names, state=_ends)
    def expire(self, number: str, name: str, state: str) -> None:
        """Let a record expire; once in a program."""
        self._may_expire = False
        self._calls.expire(self._stores(number), self._calls.record(name, state, 3))

    @precondition(lambda self: self._may_reopen)
    @rule(number=_numbers)
    def reopen(self, number: str) -> None:
        """Close a client, and open another in its place; once in a program."""
        self._may_reopen = False
        self._calls.reopen(number)

    @invariant()
    def everybody_sees_the_model(self) -> None:
        """Compare all records, through both clients."""
        if self._watches and not self._calls.broken:
            self._calls.compare_everything(singly=False)

    def teardown(self) -> None:
        """Compare everything once more, forget it, and see that nothing is left."""
        try:
            if not self._calls.broken:
                self._calls.compare_everything(singly=True)
                self._calls.leave()
        finally:
            self._calls.close()
