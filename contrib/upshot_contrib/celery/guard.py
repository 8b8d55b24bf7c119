"""What may follow what: Celery's states under upshot's guard.

Within one attempt (`retries` + 1) the last state that is no end counts, but RETRY stays; a later
attempt outranks an earlier one. After an end there is only an end:

    strict    the first one stays, whatever it is
    default   SUCCESS stays; a FAILURE or REVOKED stays until there is a SUCCESS

The default is needed where a task runs again that has failed: redelivered by the broker after its
worker was lost, or sent again under its id.
"""

from __future__ import annotations

from typing import Final

from upshot import states
from upshot.client import ResultClient
from upshot.record import Record
from upshot.states import State

__all__ = ["Guard"]

_PROGRESS: Final = "PROGRESS"  # any state that is neither RETRY nor an end
_FAILED: Final = frozenset({State.FAILURE, State.REVOKED})


class Guard:
    """Stores records of tasks.

    Args:
        client: where.
        strict: whether every end is final.
    """

    def __init__(self, client: ResultClient, *, strict: bool) -> None:
        self._client = client
        self._strict = strict

    def store(self, record: Record, *, attempt_known: bool, expires: float | None) -> bool:
        """Store a record if it may follow what is there; tell whether it did.

        Args:
            record: what to store.
            attempt_known: False for a writer that is not the task itself and does not know which
                attempt runs: its record applies whichever it is.
            expires: seconds to keep it; None for ever.

        Raises:
            UpshotError: as `ResultClient.store`.
        """
        stored = self._client.encode(record, expires=expires)
        if record.is_terminal:
            if not attempt_known or (record.state == State.SUCCESS and not self._strict):
                stored = stored._replace(rank=states.REVOKE_RANK)
        elif attempt_known:
            word = State.RETRY if record.state == State.RETRY else _PROGRESS
            rank = states.rank_of(word, record.attempt)
            stored = stored._replace(rank=rank, barrier=rank)
        else:
            stored = stored._replace(rank=states.rank_of(_PROGRESS, states.MAX_ATTEMPT), barrier=0)
        (applied,) = self._client.store_encoded([stored])
        if applied or self._strict or record.state != State.SUCCESS:
            return applied
        found = self._client.load(record.task_id)
        if found is None or found.state not in _FAILED:
            return False
        # Ends have the highest barrier, so that whoever waits is told of them. The highest rank
        # reaches it. Should another run succeed between our look and this, its value is replaced
        # by ours: a success either way.
        (applied,) = self._client.store_encoded([stored._replace(rank=states.NEVER)])
        return applied
