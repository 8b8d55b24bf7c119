"""Why a service could not do something, in one sentence, and what to change.

Drivers say the same in a hundred ways. What the operating system, TLS and the resolver of names
say is known here by the exceptions behind a driver's, or by their usual words; what a service
says, it explains itself (`upshot.backend.Diagnosing`).
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Final

from upshot.errors import UpshotError
from upshot.finding import Finding, Level
from upshot.record import printable
from upshot.url import Url

__all__ = ["Advise", "explain", "no_advice"]

Advise = Callable[[str], str]
"""Takes a driver's words, and returns what is to be changed about that; "" if unknown."""

_LONGEST: Final = 300  # characters of a driver's words; pymongo's may have a thousand
_NO_HOST: Final = re.compile(
    "name or service not known|could not translate host name|nodename nor servname"
    "|no address associated|name resolution|getaddrinfo|dns query name does not exist",
    re.IGNORECASE,
)
_NOBODY: Final = re.compile(
    r"connection refused|connect call failed|errno 111\b|error 111\b", re.IGNORECASE
)
_NO_TLS: Final = re.compile(
    r"wrong[ _]version[ _]number|unknown[ _]protocol|packet length too long|record layer failure"
    r"|does not support SSL|unexpected eof while reading|UNEXPECTED_EOF_WHILE_READING",
    re.IGNORECASE,
)
_CERTIFICATE: Final = re.compile("certificate", re.IGNORECASE)
_LOGIN: Final = re.compile(
    "wrongpass|noauth|invalid username-password|authentication|access_refused - login"
    "|password supplied"
    r"|access denied for user [^ ]+ \(using password",
    re.IGNORECASE,
)
_SILENT: Final = re.compile(
    r"timed? ?out|did not answer|no answer|not answered|time ran out", re.IGNORECASE
)
_CLOSED: Final = re.compile(
    "closed the connection|connection closed|connection reset|connection lost|lost connection"
    "|stream ?lost|end.of.file|protocol error|invalid frame|incompatible ?protocol"
    "|not an answer of",
    re.IGNORECASE,
)


def no_advice(said: str) -> str:
    """Know nothing; for a service that does not explain itself."""
    return ""


def explain(doing: str, error: Exception, url: Url, advise: Advise = no_advice) -> Finding:
    """Return the problem that an error is.

    Args:
        doing: what could not be done: "a record cannot be written".
        error: what a hook raised, translated or not.
        url: the service; its secrets are hidden.
        advise: what the service itself says about errors.
    """
    said = " ".join(url.scrub(str(_cause(error))).split()) or type(error).__name__
    if len(said) > _LONGEST:
        said = said[:_LONGEST] + "…"
    reason, change = _reason(error, said, url)
    if not isinstance(error, UpshotError):
        reason = f"the class that serves {url.scheme}:// failed: {type(error).__name__}: {said}"
        change = "report this defect to whoever wrote it"
    return Finding(
        Level.PROBLEM, printable(f"{doing}: {reason}"), change=printable(advise(said) or change)
    )


def _reason(error: Exception, said: str, url: Url) -> tuple[str, str]:
    """Return what is wrong, and what is usually to be done about it."""
    chain, where = list(_chain(error)), _where(url)
    text = " ".join(str(each) for each in chain)
    if any(isinstance(each, socket.gaierror) for each in chain) or _NO_HOST.search(text):
        return (
            f"the host name in {where} cannot be resolved",
            "correct the host in the URL, or the DNS",
        )
    if any(isinstance(each, ConnectionRefusedError) for each in chain) or _NOBODY.search(text):
        return (
            f"nothing listens at {where}",
            "start the service there, or correct host and port in the URL",
        )
    if any(isinstance(each, ssl.SSLError) for each in chain) or "SSL" in text:
        if _CERTIFICATE.search(text):
            return (
                f"the certificate of {where} does not pass: {said}",
                (
                    "name the authority that signed it in the URL, or the host as the certificate "
                    "has it"
                ),
            )
        if _NO_TLS.search(text):
            return (
                f"what listens at {where} does not speak TLS",
                "take the port for TLS, or leave TLS out of the URL",
            )
    if _LOGIN.search(text):
        return f"user or password are refused: {said}", "correct user and password in the URL"
    if _CLOSED.search(text):
        return (
            f"something answers at {where}, but not as {url.scheme}:// should: {said}",
            "correct the port; if it is one for TLS, the URL must ask for TLS",
        )
    if _SILENT.search(text):
        return (
            f"no answer in time from {where}",
            "see whether the service hangs, or a firewall drops what is sent to it",
        )
    return said, ""


def _where(url: Url) -> str:
    hosts = [f"{host}:{port}" if port else host for host, port in url.hosts]
    if len(hosts) > 1:
        return f"one of {', '.join(hosts)}"
    return hosts[0] if hosts else str(url)


def _cause(error: Exception) -> BaseException:
    """Return the driver's own error, which says more and does not repeat the URL."""
    cause = error.__cause__
    while cause is not None and isinstance(cause, UpshotError) and cause.__cause__ is not None:
        cause = cause.__cause__
    return cause if cause is not None and str(cause) else error


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that it was raised from, or after."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop(0)
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += (each.__cause__, each.__context__)
