"""The table of results.

It is written and read by `upshot_contrib.django.backend`, on connections of its own and with the
guard of the contract: do not save or delete through the model. For whoever only looks, as the admin
does, it is an ordinary model.
"""

from __future__ import annotations

from typing import ClassVar, final

from django.db import models
from django.utils.functional import cached_property

from upshot import clock
from upshot.keys import Keyspace
from upshot.record import Record
from upshot.sealing import stripped
from upshot_contrib.django.backend import DjangoBackend
from upshot_contrib.django.fields import KeyField, WordsField

__all__ = ["Result", "ResultQuerySet"]


class ResultQuerySet(models.QuerySet["Result"]):
    """Results, some of which may have expired and not been removed yet."""

    def of(self, namespace: str) -> ResultQuerySet:
        """Leave out what belongs to other namespaces."""
        spaces = Keyspace(namespace, max_bytes=DjangoBackend.capabilities.max_key_bytes, text=True)
        mine = models.Q()
        for prefix in spaces.prefixes:  # a range, because LIKE ignores case on SQLite
            after = prefix[:-1] + chr(ord(prefix[-1]) + 1)
            mine |= models.Q(key__gte=prefix, key__lt=after)
        return self.filter(mine)

    def alive(self) -> ResultQuerySet:
        """Leave out what has expired, by this machine's clock."""
        never = models.Q(expires_at__isnull=True)
        return self.filter(never | models.Q(expires_at__gt=clock.now()))


@final
class Result(models.Model):
    """The record of one task id in one namespace.

    Attributes:
        key: namespace and task id, see `upshot.keys`.
        task_id, name, state: repeated from the record, for people.
        barrier: what a later record must reach to replace this one, see `upshot.states`.
        stored_at, expires_at: seconds since the epoch on the database's clock; None: never.
        body: the encoded record, see `upshot.record`.
    """

    key = KeyField(primary_key=True)
    task_id = WordsField()
    name = WordsField()
    state = WordsField()
    barrier: models.BigIntegerField[int, int] = models.BigIntegerField()
    stored_at: models.FloatField[float, float] = models.FloatField(db_index=True)
    expires_at: models.FloatField[float | None, float | None] = models.FloatField(
        null=True, db_index=True
    )
    body: models.BinaryField[bytes, bytes] = models.BinaryField()

    objects = ResultQuerySet.as_manager()

    class Meta:
        """The table's name is not that of `upshot_backends.sql`: both may lie in one database."""

        app_label = "upshot"
        db_table = "upshot_result"
        ordering: ClassVar = ["-stored_at"]

    def __str__(self) -> str:
        return str(self.task_id)

    @cached_property
    def record(self) -> Record:
        """What `body` holds; nobody has verified a signature of it.

        Raises:
            CorruptRecordError: it is no record.
        """
        body = bytes(self.body)
        return Record.decode(stripped(body) or body)
