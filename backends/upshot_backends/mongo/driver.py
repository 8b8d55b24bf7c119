"""Where upshot meets pymongo: what a URL means to it, and what its errors mean to us."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import pymongo
from bson.errors import BSONError
from dns.exception import DNSException
from pymongo.errors import ConfigurationError, ConnectionFailure, OperationFailure, PyMongoError
from pymongo.uri_parser import parse_uri, split_options

from upshot.errors import UrlError
from upshot.retrying import DriverErrors
from upshot.url import Url

__all__ = [
    "DRIVER_ERRORS",
    "Document",
    "MongoOptions",
    "RefusedError",
    "RefusedForNowError",
    "Settings",
    "bounded",
    "read_url",
    "refusal",
]

Document = dict[str, Any]
"""A BSON document: a command, its answer, or what a collection holds."""

_SCHEMES: Final = {
    "mongodb": "mongodb",
    "mongodb+srv": "mongodb+srv",
    "mongo": "mongodb",
    "mongo+srv": "mongodb+srv",
}
_COLLECTION: Final = re.compile(r"(?!system\.)[A-Za-z0-9_][A-Za-z0-9_.-]{0,119}")
_DATABASE: Final = "upshot"
_SEEN_BY_MAJORITY: Final = ("majority", "linearizable", "snapshot")
_LEAST: Final = 0.001  # seconds; to pymongo, a timeout of 0 is none at all

_FORCED: Final[dict[str, Any]] = {
    "retryReads": False,
    "retryWrites": False,
    # The longest silence of a change stream, whose server answers every half second. The other
    # calls get their own timeout.
    "socketTimeoutMS": 5000,
}
_DEFAULTS: Final[dict[str, Any]] = {
    "appname": "upshot",
    "connectTimeoutMS": 5000,  # pymongo's 20 s would keep a monitor from finding a server again
    # One connection and one thread less per server. A lost primary shows in the next call.
    "serverMonitoringMode": "poll",
}

# https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml
_FOR_NOW: Final = frozenset(
    {
        6,  # HostUnreachable
        7,  # HostNotFound
        24,  # LockTimeout
        43,  # CursorNotFound
        46,  # LockBusy
        50,  # MaxTimeMSExpired
        63,  # StaleShardVersion
        64,  # WriteConcernTimeout
        89,  # NetworkTimeout
        91,  # ShutdownInProgress
        112,  # WriteConflict
        117,  # ConflictingOperationInProgress
        133,  # FailedToSatisfyReadPreference
        134,  # ReadConcernMajorityNotAvailableYet
        136,  # CappedPositionLost
        146,  # ExceededMemoryLimit
        150,  # StaleEpoch
        175,  # QueryPlanKilled: an index was dropped, or the collection
        189,  # PrimarySteppedDown
        202,  # NetworkInterfaceExceededTimeLimit
        216,  # ElectionInProgress
        234,  # RetryChangeStream
        237,  # CursorKilled
        262,  # ExceededTimeLimit
        280,  # ChangeStreamFatalError
        286,  # ChangeStreamHistoryLost
        317,  # ConnectionPoolExpired
        391,  # ReauthenticationRequired
        402,  # ResourceExhausted
        462,  # IngressRequestRateLimitExceeded
        9001,  # SocketException
        10058,  # LegacyNotPrimary
        10107,  # NotWritablePrimary
        11000,  # DuplicateKey: two upserts of one key met; the loser finds the winner's next time
        11600,  # InterruptedAtShutdown
        11601,  # Interrupted
        11602,  # InterruptedDueToReplStateChange
        13388,  # StaleConfig
        13435,  # NotPrimaryNoSecondaryOk
        13436,  # NotPrimaryOrSecondary
        14031,  # OutOfDiskSpace
    }
)
_FOR_NOW_LABELS: Final = frozenset(
    {
        "ResumableChangeStreamError",
        "RetryableError",
        "RetryableWriteError",
        "SystemOverloadedError",
        "TransientTransactionError",
    }
)


class RefusedError(PyMongoError):
    """The server answered that it will not do it.

    Attributes:
        code: the server's number for the reason.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class RefusedForNowError(RefusedError):
    """The server will not do it at this moment: an election, a full disk, a time limit."""


DRIVER_ERRORS: Final = DriverErrors(
    transient=(ConnectionFailure, RefusedForNowError),
    permanent=(PyMongoError, BSONError),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MongoOptions:
    """The `upshot_…` parameters of a MongoDB URL.

    Attributes:
        collection: the collection's name: 1 to 120 ASCII letters, digits, "_", "-" and ".", not
            beginning with "system.".
    """

    collection: str = "results"

    def __post_init__(self) -> None:
        if not _COLLECTION.fullmatch(self.collection):
            raise ValueError(
                "upshot_collection is 1 to 120 ASCII letters, digits, '_', '-' and '.', not "
                f"beginning with 'system.'; not {self.collection!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is made of a URL; `address` holds the password.

    Attributes:
        address: the URL as pymongo takes it.
        keywords: what pymongo is given beside it.
        database: the database's name.
        collection: the collection's name.
        lasting: the write concern for what must not be lost: ends of tasks, deletions.
        passing: the write concern for progress, which something later will replace.
    """

    address: str
    keywords: Mapping[str, Any]
    database: str
    collection: str
    lasting: Mapping[str, Any]
    passing: Mapping[str, Any]


def read_url(url: Url) -> Settings:
    """Check a URL without any I/O, and tell what it means.

    Raises:
        UrlError: pymongo does not take it, or what it asks for would break the contract.
    """
    ours = url.read_options(MongoOptions)
    scheme = _SCHEMES.get(url.scheme)
    if scheme is None:
        raise UrlError(f"{url}: the schemes of MongoDB are {', '.join(_SCHEMES)}")
    database, theirs = _parsed(url, is_srv=scheme == "mongodb+srv")
    preference = theirs.get("readpreference", "primary")
    if preference != "primary":
        raise UrlError(
            f"{url}: results are read from the primary, as a secondary may not have them yet; "
            f"leave out readPreference={preference}"
        )
    lasting, passing = _concerns(url, theirs)
    defaults = {name: value for name, value in _DEFAULTS.items() if name.lower() not in theirs}
    return Settings(
        address=url.driver_url(scheme),
        keywords={"connect": False, **_FORCED, **defaults},
        database=database or _DATABASE,
        collection=ours.collection,
        lasting=lasting,
        passing=passing,
    )


@contextlib.contextmanager
def bounded(timeout: float) -> Generator[None]:
    """Give all calls of pymongo in the block `timeout` seconds together.

    Raises:
        RefusedError: the server answered with an error.
        ConnectionFailure: no server could be reached, or none answered in time.
    """
    try:
        with pymongo.timeout(max(timeout, _LEAST)):
            yield
    except OperationFailure as exc:
        raise refusal(exc.details or {"errmsg": str(exc), "code": exc.code}) from exc
    except ConfigurationError as exc:
        if isinstance(exc.__context__, DNSException):  # of mongodb+srv://; it may answer later
            raise ConnectionFailure(str(exc)) from exc
        raise


def refusal(error: Mapping[str, Any]) -> RefusedError:
    """Return the exception for an error that stands in a server's answer."""
    code = error.get("code") or 0
    labels = frozenset(error.get("errorLabels") or ())
    kind = RefusedForNowError if code in _FOR_NOW or labels & _FOR_NOW_LABELS else RefusedError
    return kind(f"{error.get('errmsg')} ({error.get('codeName') or code})", code)


def _parsed(url: Url, *, is_srv: bool) -> tuple[str | None, Mapping[str, Any]]:
    """Return the database and pymongo's parameters, checked; their names are in lower case."""
    if is_srv and (len(url.hosts) != 1 or url.hosts[0][1] is not None):
        raise UrlError(f"{url}: a mongodb+srv:// URL has one host and no port; DNS knows the rest")
    head, _, query = url.driver_url("mongodb").partition("?")
    pairs = [pair for pair in query.split("&") if pair]
    # pymongo would ask the DNS while it parses a URL of that scheme.
    of_srv = [pair for pair in pairs if is_srv and pair.lower().startswith("srv")]
    others = [pair for pair in pairs if pair not in of_srv]
    try:
        parsed = parse_uri(f"{head}?{'&'.join(others)}" if others else head)
        if of_srv:
            split_options("&".join(of_srv))
    except (PyMongoError, OSError, TypeError, ValueError) as exc:
        culprit = _culprit(url)
        named = f" ({culprit})" if culprit else ""
        reason = url.scrub(str(exc))
        raise UrlError(f"{url}: pymongo does not take this{named}: {reason}") from exc
    if parsed["collection"]:
        raise UrlError(
            f"{url}: the path is a database without a '.'; name the collection as "
            f"?upshot_collection={parsed['collection']}"
        )
    options = {name.lower(): value for name, value in parsed["options"].items()}
    return parsed["database"], options


def _culprit(url: Url) -> str | None:
    """Return the name of the first parameter that pymongo does not take even alone."""
    for name, value in url.query:
        try:
            split_options(urlencode({name: value}))
        except (PyMongoError, OSError, TypeError, ValueError):
            return name
    return None


def _concerns(url: Url, theirs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the write concerns for what must last, and for what passes.

    A change stream shows what a majority has. A write that does not wait for that leaves it to
    the next flush of the journal, 100 ms later; so ends of tasks wait, which makes the majority
    hurry, and waiters hear of them 1 ms after.
    """
    given: dict[str, Any] = {}
    for name, key in (("w", "w"), ("journal", "j"), ("wtimeoutms", "wtimeout")):
        if name in theirs:
            given[key] = theirs[name]
    if given.get("w") == 0:
        raise UrlError(f"{url}: with w=0 the server does not say what it stored; leave it out")
    level = theirs.get("readconcernlevel")
    if level in _SEEN_BY_MAJORITY and given.get("w", "majority") != "majority":
        raise UrlError(
            f"{url}: with readConcernLevel={level} nobody would see at once what was written with "
            f"w={given['w']}; leave one of them out"
        )
    lasting = {"w": "majority", **given}
    is_decided = "w" in given or level in _SEEN_BY_MAJORITY
    return lasting, lasting if is_decided else {"w": 1, **given}
