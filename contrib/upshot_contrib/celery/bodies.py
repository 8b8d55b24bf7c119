"""Sends the body of a chord when its header is complete, or lets it fail with the header."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from upshot.errors import ServiceUnavailableError
from upshot.record import printable
from upshot.states import State
from upshot_contrib.celery.chords import Chords, Part
from upshot_contrib.celery.driver import (
    ChordError,
    GroupResult,
    allow_join_result,
    maybe_signature,
)
from upshot_contrib.celery.patience import insisting, until_stored
from upshot_contrib.celery.records import Metas

__all__ = ["Bodies"]

logger = logging.getLogger(__name__)

_LEAST_CLAIM: Final = 60.0  # seconds that a worker may take to send a body


class Bodies:
    """The bodies of one backend's chords.

    Args:
        backend: Celery's side of it.
        chords: what returned of each header.
        metas: writes and reads what the parts return.
    """

    def __init__(self, backend: Any, chords: Chords, metas: Metas) -> None:
        self._backend = backend
        self._chords = chords
        self._metas = metas

    def part_returned(self, request: Any, state: str, result: Any, *, patient: bool) -> None:
        """Keep what a part of a chord returned; with the last one, send the body.

        Args:
            request: the part's; it holds the chord's id and the body.
            state: how the part ended.
            result: its value, or its exception.
            patient: whether to try on while the service is away.
        """
        group_id, task_id = request.group, request.id
        if not group_id or not task_id:
            return
        if isinstance(result, BaseException):
            outcome = self._metas.failure(result)
        else:
            outcome = self._metas.value(self._backend.prepare_value(result))
        join_timeout: float = self._backend.app.conf.result_chord_join_timeout or 0.0
        add = partial(
            self._chords.add,
            group_id,
            Part(task_id, request.group_index, state, outcome),
            token=uuid.uuid4().hex,
            claim_for=max(_LEAST_CLAIM, 2 * join_timeout),
        )
        parts = until_stored(add, task_id=task_id, patient=patient)
        if parts is None:
            return
        body = maybe_signature(request.chord, app=self._backend.app)
        join = partial(self._joined, group_id, parts)
        try:
            self._send(body, self._when_there(join, task_id=task_id, patient=patient))
        except ChordError as exc:
            logger.exception("chord %s failed", printable(group_id))
            with insisting():
                self._backend.chord_error_from_stack(body, exc)
        finish = partial(self._chords.finish, group_id)
        until_stored(finish, task_id=task_id, patient=patient)

    def _when_there(
        self, join: Callable[[], list[Any]], *, task_id: str, patient: bool
    ) -> list[Any]:
        """Return the values of a header; a store that is away for a while makes no chord fail.

        Raises:
            ChordError: as `_joined`; or the store is away, and nobody is patient.
        """
        try:
            return until_stored(join, task_id=task_id, patient=patient)
        except ServiceUnavailableError as exc:
            raise ChordError(f"Join error: {exc!r}") from exc

    def _joined(self, group_id: str, parts: list[Part]) -> list[Any]:
        """Return the values of a header, in its order.

        Raises:
            ChordError: a part failed, or could not be read.
            ServiceUnavailableError: the store is away.
        """
        app = self._backend.app
        try:
            header = GroupResult.restore(group_id, backend=self._backend, app=app)
            if header is None:  # no groups in the header
                return [self._value(part) for part in parts]
            with allow_join_result():
                values: list[Any] = header.join_native(
                    timeout=app.conf.result_chord_join_timeout, propagate=True
                )
                return values
        except (ChordError, ServiceUnavailableError):
            raise
        except Exception as exc:
            raise ChordError(f"Join error: {exc!r}") from exc

    def _value(self, part: Part) -> Any:
        value = self._metas.outcome(part.outcome)
        if part.state in (State.FAILURE, State.REVOKED):
            cause = self._backend.exception_to_python(value)
            raise ChordError(f"Dependency {part.task_id} raised {cause!r}") from cause
        return value

    def _send(self, body: Any, values: list[Any]) -> None:
        # Since Celery 5.7, with pauses between its attempts.
        publish = getattr(self._backend.app.amqp, "_retry_publish", _called)
        try:
            publish(body.delay, values)
        except Exception as exc:
            raise ChordError(f"Callback error: {exc!r}") from exc


def _called(function: Callable[[Any], Any], argument: Any) -> Any:
    return function(argument)
