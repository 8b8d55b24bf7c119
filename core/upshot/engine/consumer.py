"""Fetches messages for one process, runs them in its threads, keeps their leases alive."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, final

from upshot import clock
from upshot.broker import Delivery
from upshot.engine.host import Host
from upshot.engine.job import Job
from upshot.errors import ServiceClosedError, ServiceError, UpshotError
from upshot.retrying import jitter

__all__ = ["Consumer"]

logger = logging.getLogger("upshot.worker")

_FETCH_WAIT: Final = 1.0  # seconds that one fetch waits, and so the longest delay of a warm stop
_LONGEST_BACKOFF: Final = 5.0  # seconds between attempts to reach a broker that is down
_TICK: Final = 0.5  # seconds between two looks at hard limits and at the parent process


@final
class Consumer:
    """Takes messages from queues and runs them until it is stopped.

    With one thread, tasks run in the thread that calls `run`: in a process's main thread a soft
    time limit can then interrupt a blocking call.

    Args:
        host: the app's side.
        queues: names, served fairly.
        threads: tasks at once, 1 or more.
        name: the worker's name; by default `host:pid`.
        burst: stop when nothing is due, instead of waiting.
        max_tasks: stop after so many; None for no limit.
        end_process: called when tasks have to be cut short, after a hard limit or a cold stop;
            it does not return. None: their threads run on, and what they return is void.
        is_orphaned: asked now and then; True stops the consumer.
    """

    def __init__(
        self,
        host: Host,
        *,
        queues: Sequence[str],
        threads: int = 1,
        name: str | None = None,
        burst: bool = False,
        max_tasks: int | None = None,
        end_process: Callable[[], object] | None = None,
        is_orphaned: Callable[[], bool] | None = None,
    ) -> None:
        self.name = name or f"{socket.gethostname()}:{os.getpid()}"
        self._host = host
        self._queues = list(queues)
        self._threads = threads
        self._burst = burst
        self._left = max_tasks
        self._end_process = end_process
        self._is_orphaned = is_orphaned
        # Plain flags, so that a signal handler may set them: one handler may interrupt another in
        # the same thread, and an Event's lock would then be waited for by its own holder.
        self._stop_asked = False
        self._cold_asked = False
        self._stopping = threading.Event()
        self._cold = threading.Event()
        self._done = threading.Event()
        self._slots = threading.Semaphore(threads)
        self._lock = threading.Lock()
        self._jobs: set[Job] = set()
        self._local = threading.local()
        self._runners: list[asyncio.Runner] = []

    # -- from outside -----------------------------------------------------------------------------

    def stop(self) -> None:
        """Ask for a warm stop: fetch no more, finish what runs. Safe in a signal handler."""
        self._stop_asked = True

    def stop_cold(self) -> None:
        """Ask for a cold stop: give back what runs, at the next tick. Safe in a signal handler."""
        self._stop_asked = self._cold_asked = True

    def run(self) -> None:
        """Consume until stopped; returns when everything that was taken is settled.

        Raises:
            ServiceError: in burst mode only, where nobody waits for a broker to come back.
        """
        keeper = threading.Thread(target=self._keep_leases, name="upshot-leases", daemon=True)
        keeper.start()
        try:
            if self._threads == 1:
                self._consume(self._run_job)
            else:
                with ThreadPoolExecutor(self._threads, "upshot-task") as pool:
                    self._consume(lambda job: pool.submit(self._run_job, job))
        finally:
            self._done.set()
            keeper.join()
            for runner in self._runners:
                runner.close()
            self._sign_off()

    # -- fetching ---------------------------------------------------------------------------------

    def _consume(self, start: Callable[[Job], object]) -> None:
        pause = 0.0
        while not self._stop_asked and self._left != 0:
            if not self._slots.acquire(timeout=_TICK):
                continue
            try:
                deliveries = self._fetch()
                pause = 0.0
            except ServiceClosedError:
                self._slots.release()
                return
            except UpshotError as exc:
                self._slots.release()
                if self._burst:
                    raise
                pause = min(max(0.1, pause * 2), _LONGEST_BACKOFF)
                logger.warning("no messages for now: %s", exc)
                self._stopping.wait(jitter(pause / 2, pause))
                continue
            if not deliveries:
                self._slots.release()
                if self._burst and not self._jobs:
                    return
            for delivery in deliveries:
                self._start(delivery, start)

    def _fetch(self) -> Sequence[Delivery]:
        """Fetch one message for the free slot; waits unless in burst mode."""
        # One at a time: a message that is not running yet is better off with another worker,
        # and a task that takes its process down must not count against its neighbours.
        wait = 0.05 if self._burst and self._jobs else 0.0 if self._burst else _FETCH_WAIT
        lease = self._host.settings.worker_lease
        return self._host.broker.call(
            lambda broker, _: broker.fetch(
                self._queues, limit=1, wait=wait, lease=lease, worker=self.name
            )
        )

    def _start(self, delivery: Delivery, start: Callable[[Job], object]) -> None:
        job = Job(self._host, delivery, worker=self.name, stopping=self._cold)
        with self._lock:
            self._jobs.add(job)
        if self._left is not None:
            self._left -= 1
        if self._stop_asked:  # stopped while the fetch was on its way
            self._end(job)
            job.release()
        else:
            start(job)

    def _run_job(self, job: Job) -> None:
        try:
            job.run(self._run_coroutine)
        except Exception:  # a defect of ours must not end the worker; the lease returns the task
            logger.exception("running a message failed")
        finally:
            self._end(job)

    def _end(self, job: Job) -> None:
        with self._lock:
            self._jobs.discard(job)
        self._slots.release()

    def _run_coroutine(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on this thread's event loop, which lives as long as the thread."""
        runner: asyncio.Runner | None = getattr(self._local, "runner", None)
        if runner is None:
            runner = self._local.runner = asyncio.Runner()
            with self._lock:
                self._runners.append(runner)
        return runner.run(coroutine)

    # -- the keeper's thread ----------------------------------------------------------------------

    def _keep_leases(self) -> None:
        """Renew leases, strike at hard limits, notice a cold stop and a lost parent."""
        lease = self._host.settings.worker_lease
        next_beat = 0.0
        while not self._done.wait(self._until(next_beat)):
            try:
                if self._stop_asked:
                    self._stopping.set()
                if self._cold_asked:
                    self._cold.set()
                    self._give_back()
                    return
                if self._is_orphaned is not None and self._is_orphaned():
                    self.stop()
                self._strike()
                if clock.monotonic() >= next_beat:
                    next_beat = clock.monotonic() + lease / 3
                    self._beat(lease)
            except ServiceError as exc:
                logger.warning("leases not renewed: %s", exc)
            except Exception:  # without this thread every lease would run out
                logger.exception("keeping leases failed")

    def _until(self, next_beat: float) -> float:
        deadlines = [job.deadline for job in self._snapshot() if job.deadline is not None]
        soonest = min([next_beat, *deadlines])
        return max(0.0, min(_TICK, soonest - clock.monotonic()))

    def _beat(self, lease: float) -> None:
        jobs = self._snapshot()
        held = self._host.broker.call(
            lambda broker, seconds: broker.beat(
                self.name,
                self._queues,
                [job.delivery for job in jobs],
                lease=lease,
                timeout=seconds,
            )
        )
        for job, ours in zip(jobs, held, strict=True):
            if not ours and not job.is_settled:
                logger.warning("lost the lease of message %s", job.delivery.message_id)

    def _strike(self) -> None:
        now = clock.monotonic()
        late = [job for job in self._snapshot() if job.deadline is not None and job.deadline <= now]
        for job in late:
            job.end_by_time_limit()
        if late and self._end_process is not None:
            for job in self._snapshot():
                job.release()
            self._end_process()

    def _give_back(self) -> None:
        for job in self._snapshot():
            job.release()
        if self._end_process is not None:
            self._end_process()

    def _snapshot(self) -> list[Job]:
        with self._lock:
            return list(self._jobs)

    def _sign_off(self) -> None:
        try:
            self._host.broker.call(
                lambda broker, seconds: broker.beat(
                    self.name, [], [], lease=self._host.settings.worker_lease, timeout=seconds
                )
            )
        except UpshotError as exc:
            logger.debug("could not sign off: %s", exc)
