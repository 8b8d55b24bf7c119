"""One service, examined in the roles that it has: as result backend, as broker, or as both."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from typing import Final, Protocol, final

from upshot import registry, retrying
from upshot.backend import Backend, Diagnosing, Rehearsing
from upshot.broker import Broker
from upshot.client import ResultClient
from upshot.diagnosis.examination import Examination
from upshot.diagnosis.messages import MessagesTrial
from upshot.diagnosis.reasons import Advise, explain, no_advice
from upshot.diagnosis.results import ResultsTrial
from upshot.diagnosis.words import broker_words, results_words
from upshot.errors import ConfigError, UnknownSchemeError
from upshot.finding import Finding, Level
from upshot.service import OpenService
from upshot.url import Url

__all__ = ["BROKER", "RESULTS", "UNUSED", "examine", "roles_of"]

BROKER: Final = "broker"
RESULTS: Final = "result backend"

_TRIAL: Final = "upshot-doctor-"  # and 16 hex digits

UNUSED: Final = Finding(
    Level.NOTE,
    "upshot was not used here before",
    "what it needs here is made when it is first used; all below was tried on a throw-away copy",
)
"""Of a service where backend or broker would make something on first use."""

_UNTRIED: Final = Finding(
    Level.NOTE, "what else works was not tried, as this has to be put right first"
)


class _Trial(Protocol):
    def steps(self) -> Iterator[tuple[str, Callable[[], Finding]]]: ...
    def tidy(self) -> None: ...


def roles_of(url: Url) -> tuple[str, ...]:
    """Return what the service of a URL can be.

    Raises:
        UnknownSchemeError: neither broker nor result backend; near schemes are named.
        DriverMissingError, SchemeConflictError: as `registry.backend_class`.
        ConfigError: the URL means another one, such as `rpc://` without a host.
    """
    roles: list[str] = []
    for role, find in ((RESULTS, registry.backend_class), (BROKER, registry.broker_class)):
        with contextlib.suppress(UnknownSchemeError):
            find(url)
            roles.append(role)
    if not roles:
        registry.backend_class(url)  # says which schemes there are
    if RESULTS in roles and not url.hosts and registry.backend_class(url).over_broker:
        raise ConfigError(f"{url} means the broker's connection: give the broker's URL")
    return tuple(roles)


def examine(url: Url, *, roles: tuple[str, ...], namespace: str, timeout: float) -> Examination:
    """Ask a service what it is, and try what upshot needs of it; leave nothing there.

    Args:
        url: the service.
        roles: `RESULTS`, `BROKER`, or both.
        namespace: what begins the names of all that is written. Rights may end at a namespace, so
            it is the one that is used in earnest.
        timeout: seconds that one operation may take, its retries included.

    Raises:
        ConfigError: the URL lacks something, or has what the service does not know.
    """
    examiner = _Examiner(url, roles, namespace, timeout)
    with contextlib.closing(_Opened(url, roles, namespace, timeout)) as opened:
        if examiner.ask(opened):
            examiner.rehearse(opened)
    return examiner.examination()


@final
class _Opened:
    """A service, open in its roles.

    Args:
        url, roles, namespace, timeout: as for `examine`.
    """

    def __init__(self, url: Url, roles: tuple[str, ...], namespace: str, timeout: float) -> None:
        self.results: ResultClient | None = None
        self.broker: OpenService[Broker] | None = None
        if RESULTS in roles:
            backend = registry.backend_class(url)
            self.results = ResultClient(
                lambda: backend(url), url=url, namespace=namespace, timeout=timeout
            )
        if BROKER in roles:
            broker = registry.broker_class(url)
            self.broker = OpenService(lambda: broker(url, namespace), url=url, timeout=timeout)

    @property
    def services(self) -> list[Backend | Broker]:
        """The authors' objects."""
        found: list[Backend | Broker] = []
        if self.results is not None:
            found.append(self.results.backend)
        if self.broker is not None:
            found.append(self.broker.current)
        return found

    def close(self) -> None:
        """Close what is open."""
        if self.results is not None:
            self.results.close()
        if self.broker is not None:
            self.broker.close()


@final
class _Examiner:
    """Examines one service; the arguments are those of `examine`."""

    def __init__(self, url: Url, roles: tuple[str, ...], namespace: str, timeout: float) -> None:
        self._url = url
        self._roles = roles
        self._namespace = namespace
        self._timeout = timeout
        self._advise: Advise = no_advice
        self._findings: dict[Finding, None] = {}  # broker and backend of one service say the same
        self._will: list[str] = []
        self._will_not: list[str] = []

    def examination(self) -> Examination:
        """Return what was found."""
        return Examination(
            subject=str(self._url),
            roles=self._roles,
            findings=tuple(self._findings),
            will=tuple(dict.fromkeys(self._will)),
            will_not=tuple(dict.fromkeys(self._will_not)),
        )

    def ask(self, opened: _Opened) -> bool:
        """Let the service tell of itself; False if that is reason enough to try nothing."""
        for service in opened.services:
            if isinstance(service, Diagnosing):
                self._advise = service.advise
                try:
                    self._add(*service.diagnose(self._timeout))
                except Exception as exc:  # a driver may raise whatever it likes
                    self._fail("it cannot be used", exc, service)
                    return False
        if any(finding.level == Level.PROBLEM for finding in self._findings):
            self._add(_UNTRIED)
            return False
        return True

    def rehearse(self, opened: _Opened) -> None:
        """Try everything where that leaves nothing, and say what the service does."""
        hesitant = next((each for each in opened.services if isinstance(each, Rehearsing)), None)
        if hesitant is None:
            self._try_all(opened)
            return
        with contextlib.ExitStack() as stack:
            try:
                url = stack.enter_context(hesitant.rehearsal(self._timeout))
            except Exception as exc:  # as above
                self._fail("it cannot be looked at", exc, hesitant)
                return
            if url is None:
                self._try_all(opened)
            else:
                self._add(UNUSED)
                other = _Opened(url, self._roles, self._namespace, self._timeout)
                with contextlib.closing(other):
                    self._try_all(other)
            try:
                stack.close()
            except Exception as exc:  # as above
                self._fail("what was made to try it cannot be removed", exc, hesitant)

    def _try_all(self, opened: _Opened) -> None:
        trial = _TRIAL + secrets.token_hex(8)
        results, broker = opened.results, opened.broker
        spoken_of = {finding.capability for finding in self._findings}
        if results is not None and self._try(ResultsTrial(results, trial, timeout=self._timeout)):
            spoken_of.update(finding.capability for finding in self._findings)
            words = results_words(results.capabilities, without=spoken_of)
            self._will += words.will
            self._will_not += words.will_not
        if broker is not None and self._try(MessagesTrial(broker, trial)):
            words = broker_words(broker.current.capabilities, without=spoken_of)
            self._will += words.will
            self._will_not += words.will_not

    def _try(self, trial: _Trial) -> bool:
        """Try until something does not work; False if something did not.

        Who may not write, say, is told what to change, and not what this would do if he could.
        """
        try:
            for doing, step in trial.steps():
                try:
                    finding = step()
                except Exception as exc:  # an error of ours, or a defect of what serves the URL
                    finding = self._explained(doing, exc)
                self._add(finding)
                if finding.level == Level.PROBLEM:
                    self._add(_UNTRIED)
                    return False
        finally:
            with contextlib.suppress(Exception):  # what can be said of it has been said
                trial.tidy()
        return True

    def _fail(self, doing: str, exc: Exception, service: Backend | Broker) -> None:
        error = retrying.translate(exc, service.driver_errors, self._url) or exc
        if error is not exc:
            error.__cause__ = exc
        self._add(self._explained(doing, error))

    def _explained(self, doing: str, error: Exception) -> Finding:
        return explain(doing, error, self._url, self._advise)

    def _add(self, *findings: Finding) -> None:
        self._findings.update(dict.fromkeys(findings))
