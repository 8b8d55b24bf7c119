"""Workers that are told to stop: in time, with the right exit code, and nothing half-way."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.endtoend.patience import PATIENCE, comes_to
from tests.endtoend.services import Service
from upshot import App, State, clock
from upshot_conformance.proxy import Proxy
from upshot_conformance.servers import RedisServer

from .conftest import BROKERS, FULL, JOBS, Sized
from .ledger import Ledger
from .scoreboard import Score

StartWorker = Callable[..., Any]

GRACE: Final = 1.0  # seconds
SPARE: Final = 1.0  # seconds beyond the grace, on a machine that is not busy itself
CLEAN: Final = 0
CUT_SHORT: Final = 1
USAGE: Final = 2
LONG: Final = 600.0  # seconds that no task here comes to its end in


@dataclass
class Stop:
    """How one worker ended.

    Attributes:
        code: its exit code; None if it goes on.
        seconds: from the first signal to the end of the main process.
        spare: by how much it may have been late for want of a processor.
        orphans: processes of its group that live on.
    """

    code: int | None
    seconds: float
    spare: float
    orphans: list[int]


def group(leader: int) -> list[int]:
    """Return the live processes of a process group."""
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = entry.read_text().rpartition(")")[2].split()
        except OSError:  # it has just gone
            continue
        if int(after_name[2]) == leader and after_name[0] != "Z":
            found.append(int(entry.parent.name))
    return found


def stopped(worker: Any, *signals: signal.Signals) -> Stop:
    """Signal a worker, and wait for its end."""
    began = clock.monotonic()
    late = 0.0
    for number in signals:
        worker.process.send_signal(number)
        clock.sleep(0.05)
    deadline = clock.Deadline(PATIENCE)
    while worker.process.poll() is None and not deadline.expired:
        asleep = clock.monotonic()
        clock.sleep(0.01)
        late += clock.monotonic() - asleep - 0.01  # others had the processor then
    seconds = clock.monotonic() - began
    # A killed child is gone from the group once its parent, or whoever adopted it, has looked.
    deadline = clock.Deadline(SPARE)
    while (left := group(worker.process.pid)) and not deadline.expired:
        clock.sleep(0.01)
    return Stop(worker.process.poll(), seconds, late, left)


def judge(score: Score, stop: Stop, codes: set[int], what: str, *, grace: float = GRACE) -> None:
    """Count what a stop did wrong. The time is judged where the machine is ours."""
    score.executed += 1
    if stop.code is None or (FULL and stop.seconds > grace + SPARE + 2 * stop.spare):
        score.hung += 1
        score.surprise(f"{what}: {stop}")
    if stop.code not in codes or stop.orphans:
        score.surprise(f"{what}: {stop}, and not {sorted(codes)}")


def unaccounted(app: App, handles: list[Any]) -> str:
    """Tell how many tasks have not ended and how many wait for another worker, if those are fewer.

    More may wait: one whose outcome arrives just as it is given back is not run again.
    """
    status = app.broker.call(lambda broker, seconds: broker.survey(["default"], seconds))
    still = sum(handle.state not in (State.SUCCESS, State.FAILURE) for handle in handles)
    return "" if (status["default"].ready or 0) >= still else f"{still} have not ended, {status}"


@pytest.fixture(params=BROKERS)
def service_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The broker, which keeps the results too where it can."""
    broker: Service = request.param
    return broker.find(request, tmp_path)


@pytest.fixture
def app(project: Path, service_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    """The caller's side, with results in a file where the broker only carries them."""
    kept = f"sqlite:///{project}/results.db" if service_url.startswith("amqp:") else service_url
    monkeypatch.setenv("UPSHOT_RESULT_BACKEND", kept)
    monkeypatch.setenv("UPSHOT_WORKER_SHUTDOWN_TIMEOUT", str(GRACE))
    with App() as app:
        yield app


@pytest.mark.experiment(8)
@pytest.mark.timeout(300)
def test_stops_at_random_moments(
    app: App,
    score: Score,
    start_worker: StartWorker,
    project: Path,
    sized: Sized,
    dice: random.Random,
) -> None:
    """From the first moment of a worker on, idle and busy, by each signal, once and twice."""

    def stop(number: int) -> tuple[Stop, str]:
        signals = [chosen[number], *([chosen[number]] if twice[number] else [])]
        worker = start_worker("-c", str(1 + number % 2), "--threads", str(1 + number % 3))
        if listens[number]:
            comes_to(lambda: bool(worker.children()), True)
        clock.sleep(pauses[number])
        return stopped(worker, *signals), f"{signals} after {pauses[number]:.2f} s"

    count = sized(25, 2)  # on each of four brokers
    kinds = [signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP]
    chosen = [dice.choice(kinds) for _ in range(count)]
    twice = [dice.random() < 0.3 for _ in range(count)]
    listens = [dice.random() < 0.8 for _ in range(count)]
    pauses = [dice.uniform(0, 1.0) for _ in range(count)]
    lengths = [dice.choice([0.0, 0.0, 0.05, 0.3, 2.0]) for _ in range(10 * count)]
    handles = [app.send_task("jobs.echo", [n, each]) for n, each in enumerate(lengths)]

    with ThreadPoolExecutor(4) as pool:
        stops = list(pool.map(stop, range(count)))

    for (each, what), heard in zip(stops, listens, strict=True):
        early = set[int]() if heard else {-number for number in kinds} | {130}
        judge(score, each, {CLEAN, CUT_SHORT} | early, what)
    score.submitted = count
    comes_to(lambda: unaccounted(app, handles), "")
    start_worker("-c", "2", "--threads", "8")
    for number, handle in enumerate(handles):
        score.lost += handle.get(timeout=PATIENCE) != number
    score.recorded = count
    score.remark(f"{max(each.seconds - GRACE for each, _ in stops):.2f} s after the grace at most")
    score.judge()


def _begun(ledger: Ledger) -> int:
    return len(ledger.runs())


@pytest.mark.experiment(8)
@pytest.mark.parametrize("service_url", BROKERS, indirect=True)
def test_a_cold_stop_gives_back_at_once(
    app: App, score: Score, start_worker: StartWorker, ledger: Ledger, sized: Sized
) -> None:
    """What runs is in the queue again, visible to others, when the worker has gone."""
    for number in range(sized(5, 1)):
        # Threads to spare: what is given back must not go to one of them, which ends as well.
        worker = start_worker("-c", "2", "--threads", "3", "--grace", "60")
        handles = [app.send_task("jobs.echo", [n, LONG]) for n in range(3)]
        comes_to(partial(_begun, ledger), 3 * (number + 1))
        judge(score, stopped(worker, signal.SIGTERM, signal.SIGTERM), {CUT_SHORT}, "a cold stop")
        status = app.broker.call(lambda broker, seconds: broker.survey(["default"], seconds))
        score.recorded += status["default"].ready == len(handles)
        score.lost += len(handles) - status["default"].ready
        app.broker.call(lambda broker, seconds: broker.purge(["default"], seconds))
    score.submitted = score.executed
    score.judge()


@pytest.fixture
def private(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[RedisServer, Proxy, App]]:
    """A server to be frozen and killed, a proxy before it, and an app that goes round the proxy."""
    with RedisServer() as server, Proxy("127.0.0.1", server.port) as proxy:
        monkeypatch.setenv(
            "UPSHOT_BROKER_URL", server.url.replace(str(server.port), str(proxy.port))
        )
        monkeypatch.delenv("UPSHOT_RESULT_BACKEND", raising=False)
        monkeypatch.setenv("UPSHOT_WORKER_SHUTDOWN_TIMEOUT", str(GRACE))
        with App(broker=server.url) as app:
            yield server, proxy, app


TROUBLES: Final = ["frozen", "dead", "blackholed"]


@pytest.mark.experiment(8)
@pytest.mark.parametrize("service_url", ["private"])
@pytest.mark.parametrize("is_busy", [True, False], ids=["busy", "idle"])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_stops_without_a_server(
    private: tuple[RedisServer, Proxy, App],
    score: Score,
    start_worker: StartWorker,
    ledger: Ledger,
    trouble: str,
    is_busy: bool,
) -> None:
    """Broker and store do not answer, and the worker does not wait for them."""
    server, proxy, app = private
    worker = start_worker("-c", "1")
    first = app.send_task("jobs.echo", ["first"])
    assert first.get(timeout=PATIENCE) == "first"
    handles = [app.send_task("jobs.echo", ["second", GRACE / 2])] if is_busy else []
    comes_to(lambda: len(ledger.runs()), 1 + len(handles))

    if trouble == "frozen":
        server.pause()
    elif trouble == "dead":
        server.kill()
    else:
        proxy.drop_replies()
    judge(score, stopped(worker, signal.SIGTERM), {CLEAN, CUT_SHORT}, trouble)

    score.submitted = 1
    if trouble != "dead":  # nothing of it is on a disk
        if trouble == "frozen":
            server.resume()
        proxy.heal()
        start_worker("-c", "1")
        score.lost += sum(handle.get(timeout=PATIENCE) != "second" for handle in handles)
    score.recorded = 1
    score.judge()


@pytest.mark.experiment(8)
@pytest.mark.parametrize("service_url", ["private"])
def test_what_is_left_without_its_parent_stops(
    private: tuple[RedisServer, Proxy, App],
    score: Score,
    start_worker: StartWorker,
    ledger: Ledger,
    sized: Sized,
) -> None:
    """The main process is killed: its processes stop warm, then cold, and give back what runs."""
    _, _, app = private
    for number in range(sized(3, 1)):
        worker = start_worker("-c", "2")
        handle = app.send_task("jobs.echo", ["late", LONG])
        comes_to(partial(_begun, ledger), number + 1)
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
        comes_to(partial(group, worker.process.pid), [])
        status = app.broker.call(lambda broker, seconds: broker.survey(["default"], seconds))
        score.lost += status["default"].ready != 1
        handle.revoke()
        app.broker.call(lambda broker, seconds: broker.purge(["default"], seconds))
        score.executed += 1
    score.submitted = score.recorded = score.executed
    score.judge()


@pytest.mark.experiment(8)
@pytest.mark.parametrize("service_url", ["sqlite"])
def test_exit_codes(
    service_url: str,
    project: Path,
    score: Score,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those that `upshot worker --help` names."""
    monkeypatch.setenv("UPSHOT_BROKER_URL", f"sqlite:///{project}/db")
    shutil.copy(JOBS.with_name("poison.py"), project)
    (project / "broken.py").write_text("import nothing_of_this_name")
    codes = {
        ("--burst",): CLEAN,
        ("-c", "0"): USAGE,
        ("-A", "missing"): USAGE,
        ("-A", "broken"): USAGE,
        ("--grace", "soon"): USAGE,
    }
    workers = {options: start_worker(*options) for options in codes}
    for options, worker in workers.items():
        code = worker.process.wait(PATIENCE)
        score.executed += 1
        if code == codes[options]:
            score.recorded += 1
        else:
            score.surprise(f"{options}: {code} is not {codes[options]}: {worker.output()[-300:]}")
    with App() as app:
        app.send_task("poison.leave", [0])
        lost = start_worker("-A", "poison", "--burst", "-c", "1")
        app.send_task("jobs.echo", ["neighbour"])
        code = lost.process.wait(PATIENCE)
        if code != CUT_SHORT:
            score.surprise(f"a lost process in burst mode: {code}: {lost.output()[-300:]}")
    monkeypatch.setenv("UPSHOT_BROKER_URL", "redis://:unique-word@127.0.0.1:1/0")
    monkeypatch.setenv("UPSHOT_OPERATION_TIMEOUT", "0.2")
    away = start_worker("--burst", "-c", "1")
    if away.process.wait(PATIENCE) != CUT_SHORT or "unique-word" in away.output():
        score.surprise(away.output())
    score.submitted = score.executed
    score.judge()
