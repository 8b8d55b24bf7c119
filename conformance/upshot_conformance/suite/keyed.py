"""Calls with idempotency keys, as an application makes them, without a broker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from upshot import clock
from upshot.claims import Claim
from upshot.client import ResultClient
from upshot_conformance.harness import NotApplicableError
from upshot_conformance.records import new_id

__all__ = ["LONG", "NAME", "assert_keeps_keys", "claim_of", "send", "send_all", "take"]

NAME: Final = "shop.charge"
"""The task that the keys are for, unless another is named."""

LONG: Final = 300.0
"""Seconds to be held for keys that no test waits for."""


def claim_of(
    key: str,
    task_id: str | None = None,
    *,
    name: str = NAME,
    expires: float | None = LONG,
    age: float = 0.0,
) -> Claim:
    """Return a claim, of a new id if none is named, that was made `age` seconds ago."""
    return Claim(name, key, task_id or new_id(), expires, clock.now() - age)


def take(client: ResultClient, *wanted: Claim) -> list[Claim]:
    """Claim keys, and send and mark nothing; return, in order, who holds each."""
    held: dict[int, Claim] = {}
    for settled in client.claims.take(wanted):
        held.update(settled)
    return [held[place] for place in range(len(wanted))]


def send_all(client: ResultClient, wanted: Sequence[Claim]) -> list[Claim]:
    """Claim keys, and mark what is ours as sent; return, in order, who holds each."""
    held: dict[int, Claim] = {}
    for settled in client.claims.take(wanted):
        held.update(settled)
        client.claims.mark_sent([claim for _, claim in settled if claim.is_ours])
    return [held[place] for place in range(len(wanted))]


def send(client: ResultClient, claim: Claim) -> str:
    """Claim a key, and mark it as sent if it is ours; return the id that holds it."""
    return send_all(client, [claim])[0].task_id


def assert_keeps_keys(client: ResultClient) -> None:
    """Go on only where results are stored.

    Raises:
        NotApplicableError: they are carried, so there is nothing for a second call to find. That
            keys are refused there has a test of its own.
    """
    if client.backend.reply_to:
        raise NotApplicableError("it keeps nothing that another call could find, and says so")
