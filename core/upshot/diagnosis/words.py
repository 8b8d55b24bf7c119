"""Capabilities in plain words: what a service does here, and what it does not."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from upshot.backend import Capabilities
from upshot.broker import BrokerCapabilities
from upshot.finding import size

__all__ = ["Words", "broker_words", "results_words"]


class Words(NamedTuple):
    """Sentences without their full stop.

    Attributes:
        will: what the service does.
        will_not: what it does not do, and what follows from that.
    """

    will: tuple[str, ...]
    will_not: tuple[str, ...]


_RESULTS: Final[Mapping[str, tuple[str, str]]] = {
    "shared": (
        "every process that opens this URL can read every result",
        "only the process that sent a task can read its result; no other one, such as this shell",
    ),
    "reread": (
        "a result can be read any number of times",
        "each result is handed out once",
    ),
    "intermediate": (
        "QUEUED, STARTED, RETRY and progress can be read before a task ends",
        "only ends of tasks can be read: no progress, and nobody sees what runs",
    ),
    "atomic": (
        "of several writers of one record the one furthest in the task's life wins",
        "two writers of one record can overwrite each other",
    ),
    "persistent": (
        "results survive a restart of the service",
        "results are lost when the service restarts",
    ),
    "transactional": (
        "a batch of results is stored as a whole or not at all",
        "a batch of results that fails half-way leaves its first part stored",
    ),
    "batch": (
        "a thousand results take a few round trips",
        "each result of a batch takes a round trip",
    ),
    "scan": (
        "results can be listed, so `upshot status` shows running tasks",
        "results cannot be listed, only asked for by id: `upshot status` shows no running tasks",
    ),
    "streams": (
        "what a task yields can be read while it runs",
        "a task that yields is refused: only its return value comes home",
    ),
}

_BROKER: Final[Mapping[str, tuple[str, str]]] = {
    "shared": (
        "workers in other processes get the messages",
        "messages stay within this process: only app.running() runs tasks",
    ),
    "persistent": (
        "messages survive a restart of the service",
        "messages that wait are lost when the service restarts",
    ),
    "deduplicates": (
        "a message that is sent again after a lost answer is there once",
        (
            "a message that is sent again after a lost answer may be there twice; the record of "
            "its task lets one of them run"
        ),
    ),
    "ranks_queues": (
        "priorities count across the queues of a worker",
        "priorities count within each queue; several queues of a worker are served in turn",
    ),
    "counts_leased": (
        "it tells how many messages are at workers",
        "it does not tell how many messages are at workers, nor which workers are there",
    ),
}


def results_words(capabilities: Capabilities, *, without: Collection[str] = ()) -> Words:
    """Say what a result backend does.

    Args:
        capabilities: of the backend as it is here.
        without: the names of those that were spoken of already.
    """
    will, will_not = _sentences(_RESULTS, capabilities, without)
    pause = f"{capabilities.poll_interval * 1000:g} ms"
    if "push" not in without:
        if capabilities.push:
            will.append("whoever waits is woken when a result comes")
        else:
            will_not.append(
                f"it wakes nobody: whoever waits looks again and again, at most {pause} apart, and "
                "does not hear that a result was forgotten"
            )
    if capabilities.expiry_resolution is None:
        will_not.append("records do not expire: what nobody forgets stays for ever")
    else:
        will.append("records expire by themselves")
    if capabilities.visibility > 0:
        will_not.append(
            f"readers see a finished write up to {capabilities.visibility:g} seconds later"
        )
    will.append(f"a record may have up to {size(capabilities.max_record_bytes)}")
    return Words(tuple(will), tuple(will_not))


def broker_words(capabilities: BrokerCapabilities, *, without: Collection[str] = ()) -> Words:
    """Say what a broker does; arguments as for `results_words`."""
    will, will_not = _sentences(_BROKER, capabilities, without)
    if capabilities.longest_lease is not None:
        will_not.append(
            "it leaves no message with a worker for longer than "
            f"{capabilities.longest_lease / 60:g} minutes, unless configured: a task that runs "
            "longer is delivered again"
        )
    will.append(f"a message may have up to {size(capabilities.max_message_bytes)}")
    return Words(tuple(will), tuple(will_not))


def _sentences(
    table: Mapping[str, tuple[str, str]], capabilities: object, without: Collection[str]
) -> tuple[list[str], list[str]]:
    will: list[str] = []
    will_not: list[str] = []
    for name, (yes, no) in table.items():
        if name not in without:
            is_declared = bool(getattr(capabilities, name))
            (will if is_declared else will_not).append(yes if is_declared else no)
    return will, will_not
