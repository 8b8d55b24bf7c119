"""What experiments share: how large they are, where chance begins, what they count.

Two environment variables choose. `FAULTS_SIZE` is `slice`, small experiments on the services that
differ most, which is what CI runs; or `wide`, the same on every service; or `full`, as large as
the figures ask for that they are about. `FAULTS_SEED` repeats the random choices of an earlier run.
"""

from __future__ import annotations

import os
import random
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import pytest
from _pytest.mark import ParameterSet

from tests.endtoend.services import SERVICES, Service
from upshot import App, clock

from .ledger import Ledger
from .scoreboard import Score

JOBS = Path(__file__).parent / "programs" / "jobs.py"
_SIZES: Final = ("slice", "wide", "full")
SIZE: Final = os.environ.get("FAULTS_SIZE") or "slice"
WIDE: Final = SIZE in {"wide", "full"}
FULL: Final = SIZE == "full"
SEED = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().randrange(2**32))
os.environ["FAULTS_SEED"] = str(SEED)  # the processes of a run that has several share it

Sized = Callable[[int, int], int]

BROKERS: Final = [pytest.param(each, id=each.broker) for each in SERVICES if each.broker]
"""Every service that carries messages, as parameters."""

_BRIEF: Final = frozenset({"sqlite", "redis", "rpc"})


def every(services: Iterable[Service]) -> list[ParameterSet]:
    """Return services as parameters: in the slice those that differ most."""
    return [
        pytest.param(each, id=each.name, marks=() if each.name in _BRIEF else pytest.mark.wide)
        for each in services
    ]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if SIZE not in _SIZES:
        raise pytest.UsageError(f"FAULTS_SIZE is one of {', '.join(_SIZES)}, not {SIZE!r}")
    marks = [] if FULL else ["full"] if WIDE else ["full", "wide"]
    spared = [item for item in items if any(map(item.get_closest_marker, marks))]
    config.hook.pytest_deselected(items=spared)
    items[:] = [item for item in items if item not in spared]


def pytest_itemcollected(item: pytest.Item) -> None:
    """Group experiments by their service: several processes need not each start all of them."""
    chosen = getattr(item, "callspec", None)
    named = [each for each in chosen.params.values() if isinstance(each, Service)] if chosen else []
    item.add_marker(pytest.mark.xdist_group(named[0].name) if named else pytest.mark.apart)


@pytest.fixture(params=every(SERVICES))
def service(request: pytest.FixtureRequest) -> Service:
    """Each service in turn."""
    chosen: Service = request.param
    return chosen


@pytest.fixture
def sized() -> Sized:
    """Choose a size: `sized(10_000, 300)` is the first one in full, the second one in CI."""
    return lambda full, short: full if FULL else short


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    """The experiment's random numbers, others for each experiment of one seed."""
    return random.Random(SEED ^ zlib.crc32(_own_name(request.node).encode()))


def _own_name(item: pytest.Item) -> str:
    return f"{item.path.name}::{item.name}"  # in a run of several processes, its id is another


@pytest.fixture
def score(request: pytest.FixtureRequest) -> Iterator[Score]:
    """What the experiment counts; shown in the table, whether it fails or not."""
    marker = request.node.get_closest_marker("experiment")
    assert marker is not None, "an experiment says which acceptance line it is about"
    name = request.node.name.removeprefix("test_").replace("_", " ")
    score = Score(line=marker.args[0], name=name, seed=SEED)
    print(f"seed {SEED}: FAULTS_SEED={SEED} repeats this")
    began = clock.monotonic()
    yield score
    score.seconds = clock.monotonic() - began
    request.node.user_properties.append(("score", score.row()))


@pytest.fixture
def new_score(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Score]]:
    """Make a score for each of several things that are tried at the same time."""
    marker = request.node.get_closest_marker("experiment")
    name = request.node.name.removeprefix("test_").replace("_", " ")
    made: list[Score] = []

    def new(which: str) -> Score:
        made.append(Score(line=marker.args[0], name=f"{name}[{which}]", seed=SEED))
        return made[-1]

    began = clock.monotonic()
    yield new
    for score in made:
        score.seconds = score.seconds or clock.monotonic() - began
        request.node.user_properties.append(("score", score.row()))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """What the tasks write down."""
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def project(
    tmp_path: Path, ledger: Ledger, service_url: str, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with the tasks, and an environment that points at `service_url`.

    An experiment that has results elsewhere sets UPSHOT_RESULT_BACKEND after it.
    """
    shutil.copy(JOBS, tmp_path)
    monkeypatch.setenv("LEDGER", str(ledger.path))
    monkeypatch.setenv("UPSHOT_BROKER_URL", service_url)
    monkeypatch.setenv("UPSHOT_NAMESPACE", f"test-{os.urandom(4).hex()}")
    return tmp_path


@pytest.fixture
def app(project: Path) -> Iterator[App]:
    """The caller's side: an app that knows the tasks by name only."""
    with App() as app:
        yield app
