"""The outcome of a task, value or failure, to a payload and back."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Final

from upshot.errors import UpshotError
from upshot.failure import Failure, describe, rebuild
from upshot.failure.describing import MAX_TRACEBACK
from upshot.failure.texts import shorten
from upshot.record import Payload
from upshot.serializers import Codecs, shape

__all__ = [
    "decode_failure",
    "decode_value",
    "encode_failure",
    "encode_value",
    "failure_traceback",
]


_LARGEST_PART: Final = 65_536
"""Bytes: a larger argument of an exception, or attribute, leaves its `repr` only."""


def encode_value(
    codecs: Codecs, value: object, *, serializer: str | None = None, root: str = "result"
) -> Payload:
    """Return `value` encoded by the named serializer, None for the default one.

    Raises:
        EncodeError: some part of it cannot be encoded; its `path` begins with `root`.
        UntrustedContentError: the serializer is not accepted here.
    """
    return Payload(*codecs.encode(value, serializer=serializer, root=root))


def decode_value(codecs: Codecs, payload: Payload, annotation: object = None) -> Any:
    """Return the value in `payload`, with the dataclasses that `annotation` names; None names none.

    Raises:
        UntrustedContentError: its content type is not accepted here; it was not looked at.
        DecodeError: the bytes are not what their content type says, or do not fit `annotation`.
    """
    value = codecs.decode(payload.content_type, payload.body)
    return value if annotation is None else shape(value, annotation, root="result")


def encode_failure(codecs: Codecs, exc: BaseException, *, traceback: str | None = None) -> Payload:
    """Return a description of `exc`. Whatever the exception is or does, this succeeds.

    `traceback` is the text that is kept in place of the exception's own; None keeps that one.
    """
    failure = describe(exc, encodable=partial(codecs.can_encode, at_most=_LARGEST_PART))
    if traceback is not None:
        failure = replace(failure, traceback=shorten(traceback, MAX_TRACEBACK))
    return Payload(*codecs.encode(failure.to_data(), root="failure"))


def decode_failure(codecs: Codecs, payload: Payload) -> Exception:
    """Return a fresh exception for the failure in `payload`.

    A payload that cannot be read gives the error that says so: the task has failed all the same.
    """
    try:
        return rebuild(_failure(codecs, payload))
    except UpshotError as exc:
        return exc


def failure_traceback(codecs: Codecs, payload: Payload) -> str:
    """Return the remote traceback as text, "" if none was kept."""
    return _failure(codecs, payload).traceback


def _failure(codecs: Codecs, payload: Payload) -> Failure:
    return Failure.from_data(codecs.decode(payload.content_type, payload.body))
