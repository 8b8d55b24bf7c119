"""Secrets: a password is nowhere to be seen, whatever goes wrong."""

from __future__ import annotations

import logging
import pickle
import secrets
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, Final
from urllib.parse import quote

import pytest

from upshot import registry
from upshot.backend import Backend, StoredRecord
from upshot.client import ResultClient
from upshot.errors import ServiceError, UrlError
from upshot.origin import Origin
from upshot.result import AsyncResult
from upshot.retrying import DriverErrors
from upshot.url import Url
from upshot_conformance.clauses import clause
from upshot_conformance.layer import Layer
from upshot_conformance.records import CODECS, new_id, success
from upshot_conformance.selection import Target

NOBODY: Final = "127.0.0.1:1"
"""An address where no service answers."""

SECONDS: Final = 0.2
"""How long an operation on a service that does not answer is tried."""


class Told:
    """All that somebody got to see or could write to a log, and the secret in it.

    Attributes:
        secret: a word that occurs nowhere else.
        password: the same among characters that URLs, texts and patterns write otherwise.
    """

    def __init__(self) -> None:
        self.secret = secrets.token_hex(8)
        self.password = f"p@:/?#'\\{self.secret}%"
        self._texts: list[tuple[str, str]] = []

    def see(self, where: str, text: object) -> None:
        """Note what was shown."""
        self._texts.append((where, str(text)))

    def catch(self, where: str, call: Callable[[], object]) -> BaseException | None:
        """Call, and note what it returns, or everything about what it raises; return that."""
        try:
            self.see(where, repr(call()))
        except Exception as exc:  # whatever is raised can come into a log
            for line in everything_about(exc):
                self.see(f"{where}: {type(exc).__name__}", line)
            return exc
        return None

    def assert_nothing_of_it(self) -> None:
        """Assert that the secret is nowhere in what was noted."""
        shown = [
            f"{where}: {text.replace(self.secret, '<PASSWORD>')}"
            for where, text in self._texts
            if self.secret in text.lower()
        ]
        assert not shown, f"the password was shown {len(shown)} times, first by {shown[0]}"


def everything_about(exc: BaseException) -> Iterator[str]:
    """Yield what a log can show of an exception and of all that it is chained to."""
    yield "".join(traceback.format_exception(exc))
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [exc]
    while waiting:
        each = waiting.pop()
        if each is None or any(each is other for other in seen):
            continue
        seen.append(each)
        yield from (str(each), repr(each), repr(each.args), repr(vars(each)))
        waiting += [each.__cause__, each.__context__]  # a suppressed context is there all the same


class Log(logging.Handler):
    """Notes all that is logged, with its exceptions."""

    def __init__(self, told: Told) -> None:
        super().__init__(logging.DEBUG)
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        self._told.see(f"the log of {record.name}", self.format(record))


@pytest.fixture
def told() -> Iterator[Told]:
    """Collects what is shown, logs and warnings of everybody included."""
    noted = Told()
    root, log = logging.getLogger(), Log(noted)
    level = root.level
    root.addHandler(log)
    root.setLevel(logging.DEBUG)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield noted
    finally:
        root.setLevel(level)
        root.removeHandler(log)
    for warning in warned:
        noted.see("a warning", warning.message)
    noted.assert_nothing_of_it()


def with_password(target: Target, password: str, hosts: str | None = None) -> str:
    """Return the target's URL with a user and a password, and perhaps other hosts."""
    url = target.url
    if hosts is None:
        listed = [f"[{host}]" if ":" in host else host for host, _ in url.hosts]
        ports = [f":{port}" if port else "" for _, port in url.hosts]
        hosts = ",".join(map(str.__add__, listed, ports))
    query = target.text.partition("?")[2]
    credentials = f"somebody:{quote(password, safe='')}@"
    return f"{url.scheme}://{credentials}{hosts}{url.path}{query and '?' + query}"


def use(client: ResultClient, told: Told) -> None:
    """Use a client in ways that fail each in its own way, and note what is shown."""
    asked: AsyncResult[object] = AsyncResult(new_id(), Origin(client, CODECS))
    told.see("repr of the client", repr(client))
    told.see("vars of the client's URL", f"{client.url} {client.url!r} {client.url:}")
    told.see("repr of the backend", repr(client.backend))
    told.see("repr of the handle", repr(asked))
    told.see("a pickled handle", pickle.dumps(asked).decode("latin-1"))
    told.see("what it can do", repr(client.capabilities))
    calls: dict[str, Callable[[], object]] = {
        "load": lambda: client.load(asked.id),
        "store": lambda: client.store(success(asked.id, 1)),
        "wait": lambda: client.wait(asked.id, timeout=SECONDS),
        "get": lambda: asked.get(timeout=SECONDS),
        "prune": client.prune,
    }
    for name, call in calls.items():
        told.catch(name, call)
    told.see("stats", client.stats())
    told.see("what it can do now", repr(client.capabilities))


def open_and_use(target: Target, namespace: str, text: str, told: Told) -> None:
    """Open a client at a URL and use it, if a backend takes the URL; note what is shown."""

    def opened() -> None:
        url = Url.parse(text)
        backend = registry.backend_class(url)
        with ResultClient(
            lambda: backend(url), url=url, namespace=namespace, timeout=SECONDS
        ) as client:
            use(client, told)
        told.catch("load after closing", lambda: client.load(new_id()))

    refused = told.catch("opening", opened)
    assert refused is None or isinstance(refused, UrlError), "an error that is no UrlError"


@clause("SE-3")
def test_a_password_is_not_shown_where_no_service_answers(
    target: Target, namespace: str, told: Told
) -> None:
    open_and_use(target, namespace, with_password(target, told.password, NOBODY), told)


@clause("SE-3")
def test_a_password_is_not_shown_where_the_service_refuses_it(
    target: Target, namespace: str, told: Told
) -> None:
    open_and_use(target, namespace, with_password(target, told.password), told)


@clause("SE-3")
def test_a_password_is_not_shown_by_a_url_with_a_mistake(
    target: Target, namespace: str, told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a backend of files may read a mistake as a relative name
    scheme, plain = target.url.scheme, told.secret
    for text in (
        f"{scheme}://somebody:{plain}",
        f"{scheme}://:{plain}",
        f"{scheme}://:{plain}@",
        f"{scheme}://somebody:{plain}@/0",
        f"{scheme}://somebody:{plain}@127.0.0.1:port",
        f"{scheme}://somebody:%zz{plain}@127.0.0.1:1/0",
        f"{scheme}://somebody:{plain}%@127.0.0.1:1/0",
        f"{scheme}://somebody:{plain}%00@127.0.0.1:1/0",
        f"{scheme}://somebody:{plain}@[::1",
        f"{scheme}://somebody:{plain}/@127.0.0.1:1",
        f"{scheme}://somebody:{plain}#@127.0.0.1:1",
        f"{scheme}://somebody:{plain} @127.0.0.1:1",
        f"{scheme}://somebody:p@{plain}@127.0.0.1:1/",
        f"{scheme}://127.0.0.1:1/?password={plain}",
        f"{scheme}://127.0.0.1:1/?upshot_nonsense=1&auth_token={plain}",
        f"{scheme}://127.0.0.1:1/?upshot_password={plain}",
        f"{scheme}://somebody:{plain}@127.0.0.1:1;{scheme}://somebody:{plain}@127.0.0.1:99999",
        f"{scheme}://somebody:{plain}@127.0.0.1:1/?upshot_nonsense={plain}x://u:{plain}@h",
        f"{scheme}s://somebody:{plain}@127.0.0.1:1/",
        f"no+{scheme}://somebody:{plain}@127.0.0.1:1/",
    ):

        def read(text: str = text) -> None:
            url = Url.parse(text)
            told.see("repr of the URL", f"{url} {url!r} {url:}")
            backend = registry.backend_class(url)
            with ResultClient(
                lambda: backend(url), url=url, namespace=namespace, timeout=SECONDS
            ) as client:
                told.see("repr of the backend", repr(client.backend))
                told.catch("load", lambda: client.load(new_id()))

        told.catch("reading a URL", read)


class DriverError(Exception):
    """What a driver raises."""


class QuotingDriver(Layer):
    """Stands above a backend whose driver tells the whole connection string in its errors."""

    says: ClassVar[str]

    def load(self, keys: Sequence[str], timeout: float) -> Sequence[bytes | Exception | None]:
        raise self._failure()

    def store(self, records: Sequence[StoredRecord], timeout: float) -> Sequence[bool]:
        raise self._failure()

    def delete(self, keys: Sequence[str], timeout: float) -> None:
        raise self._failure()

    def _failure(self) -> Exception:
        failure = DriverError(f"cannot log in with {self.says}", {"dsn": self.says})
        failure.__cause__ = ValueError(f"bad connection string: {self.says}")
        return failure


def quoting(target: Target, says: str, kind: str) -> Backend:
    """Return the target's backend under a driver that says something, as an error of a kind."""
    listed = DriverErrors(**{kind: (DriverError,)})
    driver = type("Driver", (QuotingDriver,), {"says": says, "driver_errors": listed})
    made = driver(target.make())
    assert isinstance(made, QuotingDriver)
    return made


@clause("SE-3")
@pytest.mark.parametrize("kind", ["transient", "permanent"])
def test_what_a_driver_says_is_passed_on_without_the_password(
    target: Target, namespace: str, told: Told, kind: str
) -> None:
    url = Url.parse(with_password(target, told.password, NOBODY))
    forms = (told.password, quote(told.password, safe=""), repr(told.password), url.driver_url())
    for form in forms:
        make = partial(quoting, target, form, kind)
        with ResultClient(make, url=url, namespace=namespace, timeout=SECONDS / 10) as client:
            failed = told.catch("load", partial(client.load, new_id()))
            assert isinstance(failed, ServiceError)
            assert "cannot log in with" in str(failed), "what the driver says is of use"
            told.catch("store", partial(client.store, success(new_id(), 1)))
            told.catch("forget", partial(client.forget, [new_id()]))
            told.catch("wait", partial(client.wait, new_id(), timeout=0))
