"""Between Celery's meta of a task, a dict, and upshot's record.

A value is written by the application's `result_serializer`, as everywhere in Celery. An exception
is not: upshot describes it, so that it comes home with its class, its attributes, its notes, its
causes and its traceback, and rebuilds it without running its code.

    outcome   the value ("<content type>;<encoding>"), or the failure ("json", "pickle")
    info      what else the meta has: children, date_done, group_id, the fields of result_extended
"""

from __future__ import annotations

import sys
from typing import Any, Final, cast

from upshot import clock, registry
from upshot.failure import Failure, rebuild
from upshot.outcome import decode_failure, encode_failure, failure_traceback
from upshot.record import Payload, Record
from upshot.serializers import Codecs
from upshot_contrib.celery.driver import UnpickleableExceptionWrapper, decompress_payload, loads
from upshot_contrib.celery.unpicklable import as_wrapper_too

__all__ = ["Metas", "exception_of"]

_PICKLE: Final = "application/x-python-serialize"
_WRAPPED: Final = "wrapped"  # in the extras: Celery had put a wrapper in the exception's place
_SEPARATOR: Final = ";"  # it is in the content type of what kombu encoded, and in no other


class Metas:
    """Writes and reads the metas of one backend.

    Args:
        backend: Celery's side of it, which knows serializer, compression and accepted content.
    """

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        # Arguments of exceptions go the way of the results: pickled only where those are.
        accepted = ("json", "pickle") if _PICKLE in (backend.accept or ()) else ("json",)
        pickles = backend.serializer == "pickle" and "pickle" in accepted
        self._codecs = Codecs(
            registry.serializers(accepted),
            accept=accepted,
            default="pickle" if pickles else "json",
        )

    def record(
        self,
        task_id: str,
        result: Any,
        state: str,
        *,
        traceback: str | None = None,
        request: Any = None,
        attempt: int = 1,
    ) -> Record:
        """Return the record of a task in `state`.

        Args:
            task_id: which task.
            result: its value, its exception, or what `update_state` was given.
            state: Celery's word, or a custom one.
            traceback: Celery's text, None if there is none.
            request: the task's request, None if unknown.
            attempt: 1 for the first run.

        Raises:
            EncodeError: kombu's; the serializer does not take the value.
        """
        extras: dict[str, Any] = self._backend._get_result_meta(
            result=None, state=state, traceback=traceback, request=request
        )
        del extras["result"], extras["status"]
        if state in self._backend.EXCEPTION_STATES and isinstance(result, BaseException):
            outcome = self.failure(result, traceback)
            del extras["traceback"]  # the failure has it
            if isinstance(result, UnpickleableExceptionWrapper):
                extras[_WRAPPED] = True
        else:
            outcome = self.value(result)
        ended = state in self._backend.READY_STATES
        delivery: dict[str, Any] = getattr(request, "delivery_info", None) or {}
        return Record(
            task_id=task_id,
            state=state,
            attempt=attempt,
            name=getattr(request, "task", None) or "",
            queue=delivery.get("routing_key") or "",
            worker=getattr(request, "hostname", None) or "",
            finished_at=clock.now() if ended else None,
            info=self.value(extras),
            outcome=outcome,
        )

    def meta(self, record: Record) -> dict[str, Any]:
        """Return the meta in a record; an exception in it is a new one with every call.

        Raises:
            ContentDisallowed: kombu's; the content is of a type that is not accepted.
            DecodeError: kombu's; the bytes are not what their content type says.
        """
        meta: dict[str, Any] = {"status": record.state, "result": None, "traceback": None}
        if record.info is not None:
            meta |= self._decoded(record.info)
        if record.outcome is None:
            pass
        elif _is_failure(record.outcome):
            exc = decode_failure(self._codecs, record.outcome)
            meta["result"] = as_wrapper_too(exc) if meta.pop(_WRAPPED, False) else exc
            meta["traceback"] = failure_traceback(self._codecs, record.outcome) or None
        else:
            meta["result"] = self._decoded(record.outcome)
            if record.state in self._backend.EXCEPTION_STATES:
                meta["result"] = self._backend.exception_to_python(meta["result"])
        meta["task_id"] = record.task_id
        return meta

    def value(self, value: Any) -> Payload:
        """Return a value as the application's serializer writes it."""
        encoded: str | bytes = self._backend.encode(value)
        body = encoded.encode() if isinstance(encoded, str) else bytes(encoded)
        backend = self._backend
        return Payload(f"{backend.content_type}{_SEPARATOR}{backend.content_encoding}", body)

    def failure(self, exc: BaseException, traceback: str | None = None) -> Payload:
        """Return a description of an exception; with Celery's text, if that is not None."""
        original = _original(exc)
        text = traceback if original is exc else None  # Celery's is that of the other one
        return encode_failure(self._codecs, original, traceback=text)

    def outcome(self, payload: Payload) -> Any:
        """Return the value or the exception in a payload."""
        if _is_failure(payload):
            return decode_failure(self._codecs, payload)
        return self._decoded(payload)

    def _decoded(self, payload: Payload) -> Any:
        content_type, _, encoding = payload.content_type.partition(_SEPARATOR)
        return loads(
            decompress_payload(payload.body),
            content_type=content_type,
            content_encoding=encoding,
            accept=self._backend.accept,
        )


def exception_of(data: Any) -> BaseException | None:
    """Return the exception that Celery's own form of one describes; None for no result.

    That form is `{"exc_type": …, "exc_message": …, "exc_module": …}`. Applications write it too,
    with `update_state(state="FAILURE", meta=…)`; what they write instead of it is shown as the
    argument of a plain `Exception`, where Celery's own backends fail to read the record.
    """
    if not data or isinstance(data, BaseException):
        return data or None
    described = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    name, module = described.get("exc_type"), described.get("exc_module")
    if not isinstance(name, str):
        return Exception(cast("object", data))
    message: Any = described.get("exc_message", "")
    args = (*cast("list[Any]", message),) if isinstance(message, list | tuple) else (message,)
    return rebuild(
        Failure(
            module=module if isinstance(module, str) else "celery.exceptions",
            qualname=name,
            args=args,
            message=" ".join(map(str, args)),
        )
    )


def _is_failure(payload: Payload) -> bool:
    return _SEPARATOR not in payload.content_type


def _original(exc: BaseException) -> BaseException:
    """Return the exception that was raised, if Celery gave us another in its place.

    It does so for one that cannot be pickled: a wrapper, or an instance of a base class, with the
    traceback of the original, which it handles at this moment.
    """
    raised = sys.exception()
    if raised is None or raised is exc or raised.__traceback__ is not exc.__traceback__:
        return exc
    if isinstance(exc, UnpickleableExceptionWrapper) or isinstance(raised, type(exc)):
        return raised
    return exc
