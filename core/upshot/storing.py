"""Storing encoded records in batches, and telling the truth about which were applied."""

from __future__ import annotations

from collections.abc import Sequence

from upshot.backend import Backend, StoredRecord
from upshot.reading import Reader, batches
from upshot.service import OpenService

__all__ = ["store"]


def store(
    service: OpenService[Backend], reader: Reader, records: Sequence[StoredRecord]
) -> list[bool]:
    """Store records in order and tell for each whether it was applied.

    An answer may be lost, and the next try be refused because of the one before: then what is
    stored is compared.

    Raises:
        ServiceError: the service could not do it in time; any of them may have been stored.
    """
    applied: list[bool] = []
    for batch in batches(records):
        tries = 0

        def attempt(
            backend: Backend, seconds: float, batch: Sequence[StoredRecord] = batch
        ) -> Sequence[bool]:
            nonlocal tries
            tries += 1
            return backend.store(batch, seconds)

        answers = list(service.call(attempt))
        if tries > 1 and not all(answers):
            answers = reader.recheck(batch, answers)
        applied.extend(answers)
    return applied
