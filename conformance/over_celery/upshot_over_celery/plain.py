"""What `docs/celery-backends.md` says about Celery, in a few lines of Celery each, without upshot.

Whoever doubts a cell of the matrix finds here what an application would see. Each function takes
Celery's URL of a private service and returns a sentence; `CLAIMS` says on which backends.

python -m upshot_over_celery.plain late_start redis://localhost:6379/0     to see it yourself
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from upshot_over_celery.driver import Celery, CeleryTimeoutError, Context

__all__ = ["CLAIMS", "Claim", "celery_url"]

_RPC: Final = "amqp://"
_STORES: Final = ("celery+redis", "celery+mongodb", "celery+db+sqlite", "celery+cache+memcached")


class Claim(NamedTuple):
    """Something that was said about Celery.

    Attributes:
        clause: the clause of upshot's contract that it is about.
        done: what is done, in words.
        look: does it; takes Celery's URL and returns what was seen.
        backends: the labels of the backends on which it is done.
    """

    clause: str
    done: str
    look: Callable[[str], str]
    backends: tuple[str, ...]


def celery_url(text: str) -> str:
    """Return what Celery calls the service of a `celery+…` URL; for `celery+rpc`, the broker's."""
    scheme, _, rest = text.removeprefix("celery+").partition("://")
    if scheme == "rpc":
        return _RPC + rest
    if scheme == "cache+memcached":
        return f"{scheme}://{rest.replace(',', ';')}/"
    return f"{scheme}://{rest}"


def late_start(url: str) -> str:
    """Tell which state remains when STARTED is stored after each of the ends."""
    backend = _app(url).backend
    seen: list[str] = []
    for end in ("SUCCESS", "FAILURE", "REVOKED"):
        task_id = _new_id()
        _end(backend, task_id, end)
        backend.mark_as_started(task_id, pid=1)
        seen.append(f"{end} reads {backend.get_task_meta(task_id, cache=False)['status']}")
    return "; ".join(seen)


def second_end(url: str) -> str:
    """Tell which state remains when another end is stored after the first."""
    backend = _app(url).backend
    seen: list[str] = []
    for first, second in (("SUCCESS", "FAILURE"), ("FAILURE", "SUCCESS"), ("REVOKED", "SUCCESS")):
        task_id = _new_id()
        _end(backend, task_id, first)
        _end(backend, task_id, second)
        status = backend.get_task_meta(task_id, cache=False)["status"]
        seen.append(f"{first} and then {second} reads {status}")
    return "; ".join(seen)


def given_up(url: str) -> str:
    """Count the subscriptions of gets that timed out, after their handles were collected."""
    app = _app(url)
    before = len(app.backend.client.pubsub_channels())
    for _ in range(3):
        _times_out(app.AsyncResult(_new_id()), timeout=0.01)
    gc.collect()
    left = len(app.backend.client.pubsub_channels()) - before
    return f"3 gets on unknown ids timed out: {left} subscriptions are left"


def short_timeout(url: str) -> str:
    """Tell how long a get takes that has a tenth of a second: the shortest of three."""
    app = _app(url)
    taken: list[float] = []
    for _ in range(3):
        began = time.monotonic()
        _times_out(app.AsyncResult(_new_id()), timeout=0.1)
        taken.append(time.monotonic() - began)
    return f"it takes {'a second' if min(taken) >= 0.9 else 'less than a second'}"


def get_after_forget(url: str) -> str:
    """Tell what a handle gives that was read, then forgotten, then read again."""
    app, task_id = _app(url), _new_id()
    app.backend.mark_as_done(task_id, 7)
    result = app.AsyncResult(task_id)
    first = result.get(timeout=5)
    result.forget()
    try:
        return f"get() gave {first}; after forget() it gives {result.get(timeout=2)!r}"
    except CeleryTimeoutError:
        return f"get() gave {first}; after forget() it raises TimeoutError"


def open_after_close(url: str) -> str:
    """Tell what becomes of the connection that a backend has opened, at each step of leaving."""
    watch, app = _app(url), _app(url)
    watch.backend.client.ping()
    before = len(watch.backend.client.client_list())
    gc.collect()
    gc.disable()
    app.backend.client.ping()
    left = [len(watch.backend.client.client_list()) - before]
    app.close()
    left.append(len(watch.backend.client.client_list()) - before)
    del app
    left.append(len(watch.backend.client.client_list()) - before)
    gc.collect()
    time.sleep(0.5)  # Redis hears of it
    left.append(len(watch.backend.client.client_list()) - before)
    opened, closed, dropped, collected = left
    return (
        f"of {opened} connection {closed} is open after app.close(), {dropped} when the app is "
        f"dropped, {collected} after the next garbage collection"
    )


def exception_with_a_constructor(url: str) -> str:
    """Tell what becomes of an exception whose constructor takes other things than its args."""
    app, task_id = _app(url), _new_id()
    app.backend.mark_as_failure(task_id, OrderError("x1", 3))
    found = app.AsyncResult(task_id).get(timeout=5, propagate=False)
    return f"OrderError('x1', 3) comes back as {type(found).__name__}"


class OrderError(Exception):
    """Has a constructor of its own, as many have."""

    def __init__(self, order: str, line: int) -> None:
        super().__init__(f"order {order}, line {line}")
        self.order = order
        self.line = line


def a_month_and_a_day(url: str) -> str:
    """Tell what is there at once of results that are to be kept for 30 and for 31 days."""
    seen: list[str] = []
    for days in (30, 31):
        app, task_id = _app(url, result_expires=days * 86_400), _new_id()
        app.backend.mark_as_done(task_id, 7)
        status = app.backend.get_task_meta(task_id, cache=False)["status"]
        seen.append(f"{days} days: {status}")
    return ", ".join(seen)


def id_with_a_space(url: str) -> str:
    """Tell what storing under an id with a space in it does."""
    try:
        _app(url).backend.mark_as_done("two words", 7)
    except Exception as exc:  # the driver's
        return f"storing raises {type(exc).__name__}"
    return "it is stored"


def second_handle(url: str) -> str:
    """Tell what another handle of an id gives that was read by `get()`."""
    app, task_id = _app("rpc://", broker=url), _new_id()
    _send(app, task_id, 7)
    first = app.AsyncResult(task_id).get(timeout=5)
    try:
        second = repr(app.AsyncResult(task_id).get(timeout=2))
    except CeleryTimeoutError:
        second = "TimeoutError"
    return f"get() gives {first}; get() of another handle: {second}"


def ready_after_get(url: str) -> str:
    """Tell what `ready()` says of a result that has come, in a process that has called get()."""
    app, first, second = _app("rpc://", broker=url), _new_id(), _new_id()
    _send(app, first, 1)
    app.AsyncResult(first).get(timeout=5)
    _send(app, second, 2)
    result = app.AsyncResult(second)
    deadline = time.monotonic() + 2
    while not (ready := result.ready()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return f"for two seconds ready() is {ready}; get() then gives {result.get(timeout=5)}"


def never_read(url: str) -> str:
    """Tell what is left on the broker of a process that sends a task and reads no result."""
    app, task_id = _app("rpc://", broker=url), _new_id()
    _send(app, task_id, 7)
    name = app.backend.oid
    app.close()
    with _app("rpc://", broker=url).connection() as connection:
        found = connection.default_channel.queue_declare(name, passive=True)
    return f"the reply queue is there, with {found.message_count} message"


def fork_while_waiting(url: str) -> str:
    """Let parent and child of a fork wait for ten results each, and count those that came."""
    app = _app(url)
    app.backend.mark_as_done("warm", 1)
    app.AsyncResult("warm").get(timeout=5)
    ids = {who: [_new_id() for _ in range(10)] for who in ("parent", "child")}
    _times_out(app.AsyncResult(_new_id()), timeout=0.01)  # leaves a socket that is subscribed
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, bytes([_came(app, ids["child"])]))
        os._exit(0)
    storing = threading.Thread(target=_store_slowly, args=(_app(url), ids), daemon=True)
    storing.start()
    parent = _came(app, ids["parent"])
    found = os.read(reading, 1)
    os.waitpid(child, 0)
    storing.join()
    total = parent + (found[0] if found else 0)
    return "some get() timed out" if total < 20 else "all 20 results came"


def threads_in_turn(url: str) -> str:
    """Tell when the last of four threads is back that ask a server which is not there."""
    app = _app("mongodb://127.0.0.1:9/", mongodb_backend_settings={"options": {"timeoutMS": 1000}})
    threads = [threading.Thread(target=_asks_in_vain, args=(app,)) for _ in range(4)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return f"the last one is back after {time.monotonic() - began:.0f} s"


CLAIMS: Final = (
    Claim("ST-2", "STARTED is stored after an end", late_start, _STORES),
    Claim("ST-3", "another end is stored after the first", second_end, _STORES),
    Claim("RL-1", "`get(timeout=0.01)` on ids that nobody stores", given_up, ("celery+redis",)),
    Claim("WT-2", "`get(timeout=0.1)` on an id that nobody stores", short_timeout, _STORES),
    Claim("RL-4", "`get()`, `forget()` and `get()` of one handle", get_after_forget, _STORES),
    Claim("RL-5", "`app.close()` after one command", open_after_close, ("celery+redis",)),
    Claim("RD-4", "parent and child of an `os.fork` wait", fork_while_waiting, ("celery+redis",)),
    Claim("FL-1", "an exception with a constructor", exception_with_a_constructor, _STORES),
    Claim("EX-3", "`result_expires` of a month", a_month_and_a_day, ("celery+cache+memcached",)),
    Claim("ID-2", "a task id with a space", id_with_a_space, _STORES),
    Claim(
        "FT-5",
        "four threads read from a server that is not there, with `timeoutMS` of 1 s",
        threads_in_turn,
        ("celery+mongodb",),
    ),
    Claim("RD-1", "two handles of one id", second_handle, ("celery+rpc",)),
    Claim("RD-1", "`ready()` after a `get()`", ready_after_get, ("celery+rpc",)),
    Claim("RL-8", "a result that nobody reads", never_read, ("celery+rpc",)),
)
"""All of them, in the order of the page."""


def _app(backend: str, **settings: Any) -> Any:
    broker = settings.pop("broker", "memory://")
    app = Celery("plain", broker=broker, backend=backend, set_as_current=False, fixups=[])
    app.conf.update(settings)
    return app


def _new_id() -> str:
    return str(uuid.uuid4())


def _end(backend: Any, task_id: str, state: str) -> None:
    if state == "SUCCESS":
        backend.mark_as_done(task_id, 7)
    elif state == "FAILURE":
        backend.mark_as_failure(task_id, ValueError("no"))
    else:
        backend.mark_as_revoked(task_id)


def _send(app: Any, task_id: str, value: object) -> None:
    """Do what sending a task does for the backend, and what a worker does with its result."""
    with app.producer_or_acquire() as producer:
        app.backend.on_task_call(producer, task_id)
    request = Context(id=task_id, correlation_id=task_id, reply_to=app.thread_oid)
    app.backend.store_result(task_id, value, "SUCCESS", request=request)


def _times_out(result: Any, timeout: float) -> None:
    try:
        result.get(timeout=timeout)
    except CeleryTimeoutError:
        return
    raise AssertionError("a result that nobody stored has come")


def _asks_in_vain(app: Any) -> None:
    try:
        app.backend.get_task_meta(_new_id())
    except Exception:  # of pymongo, which has a class for each place where time runs out
        return
    raise AssertionError("a server that is not there has answered")


def _came(app: Any, ids: list[str]) -> int:
    """Return how many of some results came in time."""
    count = 0
    for task_id in ids:
        try:
            app.AsyncResult(task_id).get(timeout=2)
        except Exception:  # whatever comes of two processes on one socket
            continue
        count += 1
    return count


def _store_slowly(app: Any, ids: dict[str, list[str]]) -> None:
    """Store the results of both, each a while after somebody began to wait for it."""
    for pair in zip(*ids.values(), strict=True):
        time.sleep(0.2)
        for task_id in pair:
            app.backend.mark_as_done(task_id, 7)


if __name__ == "__main__":
    _, _name, _url = sys.argv
    sys.stdout.write(f"{globals()[_name](_url)}\n")
