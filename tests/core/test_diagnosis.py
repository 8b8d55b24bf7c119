"""What is asked of every service: it finds what each of these broken ones does wrong."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import pytest

from upshot import App
from upshot.backend import Backend, StoredRecord
from upshot.broker import Broker, Delivery, QueuedMessage
from upshot.client import ResultClient
from upshot.diagnosis import Examination, examine, examine_app, roles_of
from upshot.diagnosis.messages import MessagesTrial
from upshot.diagnosis.reasons import explain
from upshot.diagnosis.results import ResultsTrial
from upshot.diagnosis.service import BROKER, RESULTS
from upshot.diagnosis.words import broker_words, results_words
from upshot.errors import ConfigError, ServiceRejectedError, UnknownSchemeError
from upshot.finding import Finding, Level, advice_for, clock_finding, size
from upshot.listening import Hint, Listener
from upshot.service import OpenService
from upshot.url import Url
from upshot_backends.memory.broker import MemoryBroker
from upshot_backends.memory.results import MemoryBackend


class Forgetful(MemoryBackend):
    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | None]:
        return [None for _ in keys]


class Careless(MemoryBackend):
    """It lets any record replace any other."""

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        self.delete([record.key for record in records], timeout)
        return super().store(records, timeout)


class Eternal(MemoryBackend):
    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        return super().store([record._replace(expires=None) for record in records], timeout)


class Hasty(MemoryBackend):
    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        short = [each._replace(expires=min(each.expires or 1.0, 60.0) / 100) for each in records]
        return super().store(short, timeout)


class _Deaf(Listener):
    def subscribe(self, keys: Sequence[str]) -> None: ...
    def unsubscribe(self, keys: Sequence[str]) -> None: ...
    def interrupt(self) -> None: ...
    def close(self) -> None: ...
    def wait(self, timeout: float) -> Sequence[Hint]:
        return []


class Deaf(MemoryBackend):
    def listen(self, timeout: float) -> Listener:
        return _Deaf()


class Clinging(MemoryBackend):
    def delete(self, keys: Sequence[str], timeout: float) -> None: ...


class Defective(MemoryBackend):
    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        raise TypeError("a slip of its author's")


class Swallowing(MemoryBroker):
    def publish(
        self, messages: Sequence[QueuedMessage], records: Sequence[StoredRecord], timeout: float
    ) -> None: ...


class Impatient(MemoryBroker):
    """Its clock is ahead by an hour."""

    def publish(
        self, messages: Sequence[QueuedMessage], records: Sequence[StoredRecord], timeout: float
    ) -> None:
        early = [
            QueuedMessage(message_id=m.message_id, queue=m.queue, body=m.body) for m in messages
        ]
        super().publish(early, records, timeout)


class Lapsing(MemoryBroker):
    """Every lease is over at once."""

    def fetch(
        self, queues: Sequence[str], *, limit: int, wait: float, lease: float, worker: str
    ) -> Sequence[Delivery]:
        return super().fetch(queues, limit=limit, wait=wait, lease=0.0, worker=worker)

    def beat(
        self,
        worker: str,
        queues: Sequence[str],
        deliveries: Sequence[Delivery],
        *,
        lease: float,
        timeout: float,
    ) -> Sequence[bool]:
        return [False for _ in deliveries]


KEY = f"a:{'0a' * 32}"


@pytest.fixture
def url() -> Url:
    return Url.parse(f"memory://{uuid.uuid4().hex}")


def findings(steps: Iterator[tuple[str, Callable[[], Finding]]]) -> list[Finding]:
    """Do all steps until one finds a problem."""
    found: list[Finding] = []
    for _, step in steps:
        found.append(step())
        if found[-1].level == Level.PROBLEM:
            break
    return found


def of_results(kind: Callable[[Url], Backend], url: Url) -> list[Finding]:
    with closing(ResultClient(lambda: kind(url), url=url)) as client:
        trial = ResultsTrial(client, "trial", timeout=1.0)
        found = findings(trial.steps())
        trial.tidy()
    return found


def of_messages(kind: type[Broker], url: Url) -> list[Finding]:
    service = OpenService(lambda: kind(url, "upshot"), url=url, timeout=1.0)
    with closing(service):
        trial = MessagesTrial(service, "trial")
        found = findings(trial.steps())
        trial.tidy()
        left = service.call(lambda broker, seconds: broker.survey(["trial"], seconds))["trial"]
        assert (left.ready, left.delayed, left.leased) == (0, 0, 0)
    return found


def test_nothing_is_wrong_with_what_works(url: Url) -> None:
    found = [*of_results(MemoryBackend, url), *of_messages(MemoryBroker, url)]

    assert {finding.level for finding in found} == {Level.OK}
    assert any("woken" in finding.what for finding in found)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Forgetful, "cannot be read"),
        (Careless, "an older record has replaced a newer one"),
        (Eternal, "is there 2 seconds later"),
        (Hasty, "was gone after"),
        (Deaf, "no notification came"),
        (Clinging, "was deleted can still be read"),
    ],
)
def test_what_a_backend_does_wrong_is_found(
    kind: Callable[[Url], Backend], words: str, url: Url
) -> None:
    last = of_results(kind, url)[-1]

    assert last.level == Level.PROBLEM
    assert words in last.what


@pytest.mark.parametrize(
    ("kind", "level", "words"),
    [
        (Swallowing, Level.PROBLEM, "did not come out of its queue"),
        (Impatient, Level.WARNING, "before its moment"),
        (Lapsing, Level.PROBLEM, "a lease that has just begun is over"),
    ],
)
def test_what_a_broker_does_wrong_is_found(
    kind: type[Broker], level: Level, words: str, url: Url
) -> None:
    last = of_messages(kind, url)[-1]

    assert last.level == level
    assert words in last.what


def test_a_trial_removes_its_records_whatever_happened(url: Url) -> None:
    with closing(ResultClient(lambda: Deaf(url), url=url)) as client:
        trial = ResultsTrial(client, "trial", timeout=1.0)
        steps = trial.steps()
        next(steps)[1]()
        next(steps)[1]()
        assert [record.task_id for record in client.scan()] == ["trial-kept"]

        trial.tidy()

        assert list(client.scan()) == []


def test_a_service_in_memory_is_examined_in_both_roles(url: Url) -> None:
    found = examine(url, roles=roles_of(url), namespace="upshot", timeout=1.0)

    assert found.roles == (RESULTS, BROKER)
    assert found.worst == Level.OK
    assert "whoever waits is woken when a result comes" in found.will
    assert any("lost when the service restarts" in each for each in found.will_not)


def test_a_scheme_that_nobody_serves_is_refused_with_near_ones() -> None:
    with pytest.raises(UnknownSchemeError, match="redis"):
        roles_of(Url.parse("redsi://h"))


def test_a_url_that_means_the_brokers_is_refused() -> None:
    with pytest.raises(ConfigError, match="give the broker's URL"):
        roles_of(Url.parse("rpc://"))


def test_a_defect_of_a_class_is_told_from_a_refusal_of_the_service(url: Url) -> None:
    defect = explain("a record cannot be written", TypeError("a slip"), url)
    refusal = explain("a record cannot be written", ServiceRejectedError("no rights"), url)

    assert "the class that serves memory:// failed: TypeError: a slip" in defect.what
    assert refusal.what == "a record cannot be written: no rights"


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\u202e"])
def test_what_a_service_says_cannot_drive_a_terminal(text: str, url: Url) -> None:
    found = explain("doing", ServiceRejectedError(f"no {text}"), url)

    assert found.what.isprintable()


def test_a_secret_in_an_error_is_hidden() -> None:
    url = Url.parse("redis://:s3cr3t@h")
    found = explain(
        "doing", ServiceRejectedError("bad password s3cr3t for redis://u:s3cr3t@h"), url
    )

    assert "s3cr3t" not in found.what


@pytest.mark.parametrize(
    ("ahead", "doubt", "level"),
    [
        (0.05, 0.0, Level.OK),
        (0.5, 0.0, Level.NOTE),
        (-5.0, 0.0, Level.WARNING),
        (5.0, 5.0, Level.OK),
    ],
)
def test_a_clock_is_off_only_beyond_doubt(ahead: float, doubt: float, level: Level) -> None:
    found = clock_finding(ahead, doubt)

    assert found.level == level
    assert ("behind" in found.what) == (level != Level.OK and ahead < 0)


def test_the_first_advice_that_fits_is_given() -> None:
    advice = ((("wrong",), "correct it"), (("rights", "denied"), "grant them"))

    assert advice_for("Access DENIED, wrong user", advice) == "correct it"
    assert advice_for("Access DENIED", advice) == "grant them"
    assert advice_for("else", advice) == ""


def test_every_capability_has_words() -> None:
    numbers = {"visibility", "poll_interval", "expiry_resolution", "max_record_bytes"}
    keys = {"max_key_bytes", "text_keys"}  # the core maps what is no key
    all_of_it = set(MemoryBackend.capabilities.__slots__) - numbers - keys
    some = results_words(MemoryBackend.capabilities)
    none = results_words(MemoryBackend.capabilities, without=all_of_it)

    assert len(some.will) + len(some.will_not) == len(all_of_it) + 2
    assert len(none.will) + len(none.will_not) == 2
    assert len(broker_words(MemoryBroker.capabilities).will) == 4


@pytest.mark.parametrize(
    ("number", "text"), [(9, "9 bytes"), (2**20 + 1, "1 MiB"), (2**30, "1 GiB")]
)
def test_sizes_are_for_people(number: int, text: str) -> None:
    assert size(number) == text


# -- apps ------------------------------------------------------------------------------------------


def app_findings(app: App) -> list[Finding]:
    first: Examination = next(examine_app(app, "jobs"))
    return list(first.findings)


def said(app: App) -> dict[str, Level]:
    return {finding.what: finding.level for finding in app_findings(app)}


@pytest.mark.parametrize(
    ("settings", "level", "words"),
    [
        ({"accept_content": ("json", "pickle")}, Level.WARNING, "'pickle'"),
        ({"result_expires": None}, Level.WARNING, "stay for ever"),
        ({"result_expires": 5}, Level.WARNING, "result_expires is 5 seconds"),
        ({"worker_lease": 6}, Level.WARNING, "worker_lease is 6 seconds, and operation_timeout 5"),
        ({"worker_lease": 3, "operation_timeout": 1}, Level.WARNING, "worker_lease is 3 seconds"),
        ({"task_time_limit": 90}, Level.NOTE, "may run for longer than the 25 seconds"),
        ({"task_ignore_result": True}, Level.NOTE, "task_ignore_result"),
        ({"task_track_queued": False}, Level.NOTE, "task_track_queued"),
        ({"backend": "memory://x"}, Level.PROBLEM, "keeps results in the process"),
        ({"broker": "memory://x"}, Level.WARNING, "keeps messages in this process"),
        ({}, Level.NOTE, "is a file below the current folder"),
        ({"signing_keys": [KEY], "accept_unsealed": True}, Level.WARNING, "accept_unsealed is on"),
        (
            {"signing_keys": ["file:/none"]},
            Level.PROBLEM,
            "values cannot be read or written: signing_keys",
        ),
        ({"encryption_keys": [KEY]}, Level.NOTE, "nothing is signed"),
        ({"broker": "redis://h"}, Level.OK, "no setting is dangerous"),
        ({"broker": "amqp://h", "backend": "redis://h"}, Level.NOTE, "after 1800 seconds"),
        ({"broker": "amqp://h", "task_time_limit": 7200}, Level.WARNING, "1800 seconds"),
    ],
)
def test_a_setting_that_is_dangerous_is_found(
    settings: dict[str, object], level: Level, words: str
) -> None:
    with App("jobs", **settings) as app:  # type: ignore[arg-type]  # names of many types

        @app.task
        def work() -> None: ...

        found = [each for what, each in said(app).items() if words in what]

    assert found == [level]


def test_an_app_without_tasks_is_warned_of() -> None:
    with App("jobs", broker="redis://h") as app:
        assert said(app)["it has no tasks"] == Level.WARNING
