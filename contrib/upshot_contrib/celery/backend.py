"""Celery's result backend over any backend of upshot."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any

from upshot.backend import Sweeping
from upshot.client import ResultClient
from upshot.envelope import unfinished
from upshot.errors import (
    PayloadTooLargeError,
    ServiceUnavailableError,
)
from upshot.states import State
from upshot_contrib.celery.bodies import Bodies
from upshot_contrib.celery.chords import Chords
from upshot_contrib.celery.driver import (
    BaseBackend,
    EncodeError,
    GroupResult,
    ImproperlyConfigured,
    LazyList,
    backend_by_url,
    current_app,
    promise,
    result_from_tuple,
    task_join_will_block,
)
from upshot_contrib.celery.groups import Groups
from upshot_contrib.celery.guard import Guard
from upshot_contrib.celery.opening import ALIAS, open_client, parse_url
from upshot_contrib.celery.options import read_options
from upshot_contrib.celery.patience import is_insisting, until_stored
from upshot_contrib.celery.records import Metas, exception_of
from upshot_contrib.celery.waiting import Callbacks, Waits

__all__ = ["UpshotBackend"]

logger = logging.getLogger(__name__)


_Meta = dict[str, Any]


class UpshotBackend(BaseBackend):  # type: ignore[misc]  # Celery has no types
    """What `backend="upshot+redis://…"` makes: one for each app, for all its threads.

    Args:
        app: Celery's app.
        url: what follows `upshot+`: a URL of upshot.
        options: Celery's own.

    Attributes:
        client: upshot's side of it, with the records of tasks.

    Raises:
        ImproperlyConfigured: the URL is wrong, or an option in `result_backend_transport_options`.
    """

    supports_native_join = True
    supports_result_compression = True
    supports_failure_expires = True

    def __init__(self, app: Any, url: str | None = None, **options: Any) -> None:
        BaseBackend.__init__(self, app=app, url=url, **options)
        self.thread_safe = True  # so Celery makes one of it, not one for each thread
        conf = app.conf
        self._options = read_options(conf.result_backend_transport_options or {})
        # Unless told otherwise, a worker stores the outcome of a task it has run, however long
        # that takes: Celery would make a failure of it.
        self._is_patient = not conf.value_set_for("result_backend_always_retry")
        self.expires: float | None = self._seconds(options.get("expires"))
        self._failure_expires = self._seconds(self._setting("result_failure_expires", self.expires))
        self._url = parse_url(url)
        self.client = self._opened(self._options.namespace)
        self._metas = Metas(self)
        self._guard = Guard(self.client, strict=self._options.strict)
        self._callbacks = Callbacks(self.client, read=self._metas.meta)
        self._waits = Waits(
            self.client,
            read=self._metas.meta,
            elsewhere=self._ended_before if self._options.earlier_backend else None,
        )
        # Apart from tasks, as ids of both may be the same.
        self._group_client = self._opened(f"{self._options.namespace}-groups")
        self._groups = Groups(
            self._group_client,
            encode=self._metas.value,
            decode=self._metas.outcome,
            expires=self.expires,
        )
        chord_expires = self._seconds(self._setting("result_chord_expires", self.expires))
        self._chords = Chords(self._group_client, expires=chord_expires)
        self._bodies = Bodies(self, self._chords, self._metas)

    def _opened(self, namespace: str) -> ResultClient:
        return open_client(
            self._url, namespace=namespace, expires=self.expires, timeout=self._options.timeout
        )

    @cached_property
    def _earlier(self) -> Any:
        """The backend that the application had before."""
        kind, url = backend_by_url(self._options.earlier_backend, self.app.loader)
        return kind(app=self.app, url=url)

    def _setting(self, name: str, default: Any) -> Any:
        """Return a setting that only later versions of Celery have."""
        value = self.app.conf.get(name)
        return default if value is None else value

    def _seconds(self, value: Any) -> float | None:
        """Return an expiry as upshot has it; None takes `result_expires`, where 0 is for ever."""
        seconds = self.prepare_expires(value)
        return float(seconds) if seconds else None

    # -- what it is ---------------------------------------------------------------------------

    @property
    def is_async(self) -> bool:
        """True: callbacks of results run without anybody waiting."""
        return True

    @property
    def supports_autoexpire(self) -> bool:
        """False where Celery's beat has to remove what has expired, once a day."""
        return not isinstance(self.client.backend, Sweeping)

    def as_uri(self, include_password: bool = False) -> str:
        """Return the URL as the application wrote it; with *** for a password unless asked."""
        return f"{ALIAS}+{self.url if include_password else self._url.masked}"

    def close(self) -> None:
        """Free sockets, threads and descriptors; end the waits of other threads; idempotent."""
        self.client.close()
        self._group_client.close()

    def cleanup(self) -> None:
        """Remove what has expired, where the service does not."""
        self.client.prune()
        self._group_client.prune()

    def __reduce__(self, args: Any = (), kwargs: Any = None) -> Any:
        return _unpickled, (type(self), self.as_uri())

    # -- one task -----------------------------------------------------------------------------

    def encode_result(self, result: Any, state: str) -> Any:
        """Leave an exception as it is: it is described where its record is made."""
        if state in self.EXCEPTION_STATES and isinstance(result, BaseException):
            return result
        return self.prepare_value(result)

    def exception_to_python(self, exc: Any) -> BaseException | None:
        """Return an exception for what an application wrote in place of one."""
        return exception_of(exc)

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """Tell whether it may help to try again."""
        return isinstance(exc, ServiceUnavailableError)

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        is_own = request is not None and request.id == task_id
        retries = getattr(request, "retries", None) if is_own else None
        record = self._metas.record(
            str(task_id),
            result,
            state,
            traceback=None if traceback is None else str(traceback),
            request=request,
            attempt=(retries or 0) + 1,
        )
        if state not in self.READY_STATES:
            expires = unfinished(self.expires)
        else:
            expires = self._failure_expires if state == State.FAILURE else self.expires
        try:
            until_stored(
                lambda: self._guard.store(
                    record, attempt_known=retries is not None, expires=expires
                ),
                task_id=record.task_id,
                patient=self._is_patient and (is_own or is_insisting()),
            )
        except PayloadTooLargeError as exc:
            raise EncodeError(str(exc)) from exc  # of which Celery makes a failure
        return result

    def _get_task_meta_for(self, task_id: str) -> _Meta:
        found = self.client.load(str(task_id))
        if found is not None:
            return self._metas.meta(found)
        if self._options.earlier_backend:
            earlier: _Meta = self._earlier._get_task_meta_for(task_id)
            return earlier
        return {"status": str(State.PENDING), "result": None}

    def _ended_before(self, task_id: str) -> _Meta | None:
        """Return the meta of a task that ended in the backend before this one; else None."""
        meta: _Meta = self._earlier._get_task_meta_for(task_id)
        return meta if meta["status"] in self.READY_STATES else None

    def _forget(self, task_id: str) -> None:
        self.client.forget([str(task_id)], plain=True)
        if self._options.earlier_backend:
            self._earlier._forget(task_id)

    # -- waiting ------------------------------------------------------------------------------

    def add_pending_result(self, result: Any, weak: bool | None = None) -> Any:
        """Fulfil `result` when its task ends, if it was given a callback.

        Only `then` says whether the reference is to be weak. `get` does not: it waits by itself.
        Neither does a task, which must not wait for others.
        """
        if weak is not None and not task_join_will_block():
            self._callbacks.add(result, weak=weak)
        return result

    def remove_pending_result(self, result: Any) -> Any:
        """Leave `result` alone from now on."""
        self._callbacks.drop(result)
        return result

    def wait_for_pending(
        self,
        result: Any,
        timeout: float | None = None,
        propagate: bool = True,
        callback: Callable[[str, Any], object] | None = None,
        **options: Any,
    ) -> Any:
        """Wait for the task of `result`, and return its value.

        Raises:
            celery.exceptions.TimeoutError: it did not end in time.
            ResultForgottenError: it was forgotten meanwhile.
        """
        meta = self.wait_for(result.id, timeout=timeout, **options)
        result._maybe_set_cache(meta)
        return result.maybe_throw(propagate=propagate, callback=callback)

    def wait_for(self, task_id: str, timeout: float | None = None, **options: Any) -> _Meta:
        """Wait for a task and return its meta; otherwise like `wait_for_pending`."""
        for _, meta in self.get_many([task_id], timeout=timeout, **options):
            return meta
        raise AssertionError("a wait ends with a meta or an error")

    def get_many(
        self,
        task_ids: Iterable[str],
        timeout: float | None = None,
        interval: float | None = None,
        no_ack: bool = True,
        on_message: Callable[[_Meta], object] | None = None,
        on_interval: Any = None,
        max_iterations: int | None = None,
        **_: Any,
    ) -> Iterator[tuple[str, _Meta]]:
        """Yield the id and the meta of each task as it ends; with `max_iterations`, look once.

        `interval` and `no_ack` mean nothing here.
        """
        self._ensure_not_eager()
        ids = [str(task_id) for task_id in task_ids]
        if max_iterations:
            return self._waits.ready(ids)
        return self._waits.many(
            ids,
            timeout=timeout,
            on_interval=None if _does_nothing(on_interval) else on_interval,
            on_message=on_message,
        )

    def iter_native(self, result: Any, **options: Any) -> Iterator[tuple[str, Any]]:
        """Yield the id and the meta of each result in a set as it ends.

        Of a group in it, when all in that have ended: its id and its results.
        """
        self._ensure_not_eager()
        direct: list[Any] = list(result.results)
        single = {id(each) for each in direct if not hasattr(each, "results")}
        waiting: dict[str, list[Any]] = {}
        on_message = options.get("on_message")
        for leaf in _leaves(direct):
            if leaf._cache is None:
                waiting.setdefault(leaf.id, []).append(leaf)
                continue
            if on_message is not None:  # a callback may have brought it a moment ago
                on_message(dict(leaf._cache))
            if id(leaf) in single:
                yield leaf.id, leaf._cache
        for task_id, meta in self.get_many(list(waiting), **options):
            for leaf in waiting[task_id]:
                leaf._maybe_set_cache(dict(meta))
                if id(leaf) in single:
                    yield task_id, leaf._cache
        for each in direct:
            if id(each) not in single:
                yield each.id, each.results

    # -- groups and chords --------------------------------------------------------------------

    def _save_group(self, group_id: str, result: Any) -> Any:
        self._groups.save(group_id, result.as_tuple())
        return result

    def _restore_group(self, group_id: str) -> _Meta | None:
        tree = self._groups.restore(group_id)
        if tree is not None:
            return {"task_id": group_id, "result": result_from_tuple(tree, self.app)}
        if self._options.earlier_backend:
            earlier: _Meta | None = self._earlier._restore_group(group_id)
            return earlier
        return None

    def _delete_group(self, group_id: str) -> None:
        self._groups.delete(group_id)
        if self._options.earlier_backend:
            self._earlier._delete_group(group_id)

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        """Prepare for a chord, before its header is sent."""
        self.ensure_chords_allowed()
        group_id, results = header_result_args[:2]
        self._chords.begin(group_id)
        # The parts return one by one; what groups there are among them is known only here. Lazy
        # ones, made of a generator, are sent as they are, and have none.
        if isinstance(results, list | tuple) and not isinstance(results, LazyList):
            header = self.app.GroupResult(*header_result_args)
            if any(isinstance(each, GroupResult) for each in header.results):
                self.save_group(group_id, header)

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Say how many parts a chord has; Celery does so before it sends the last one."""
        self._chords.set_size(group_id, chord_size)

    def add_to_chord(self, chord_id: str, result: Any) -> None:
        """Say that a chord has one part more."""
        self._chords.add_extra(chord_id, result.id)

    def on_chord_part_return(self, request: Any, state: str, result: Any, **_: Any) -> None:
        """Keep what a part of a chord returned; with the last one, send the body."""
        self._bodies.part_returned(request, state, result, patient=self._is_patient)


def _unpickled(kind: type[UpshotBackend], uri: str) -> UpshotBackend:
    """Return the backend that a pickled result had: the one of this process's app.

    Raises:
        ImproperlyConfigured: that is another one. What was pickled has no password in it.
    """
    backend = current_app.backend
    if isinstance(backend, kind) and backend.as_uri() == uri:
        return backend
    raise ImproperlyConfigured(
        f"a result of {uri} was unpickled, and the backend of the current app is {backend.as_uri()}"
    )


def _leaves(results: Iterable[Any]) -> Iterator[Any]:
    """Yield the single results in sets of results, however deep."""
    waiting = deque(results)
    while waiting:
        each = waiting.popleft()
        if hasattr(each, "results"):
            waiting.extend(each.results)
        else:
            yield each


def _does_nothing(on_interval: Any) -> bool:
    """Tell whether it is the promise that Celery hands over when nobody gave a function."""
    return on_interval is None or (
        isinstance(on_interval, promise)
        and on_interval.fun is None
        and on_interval._svpending is None
        and not on_interval._lvpending
    )
