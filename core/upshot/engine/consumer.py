"""Fetches messages for one process, runs them in its threads, keeps their leases alive."""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, final

from upshot import clock
from upshot.broker import Delivery
from upshot.engine.coroutines import Loops
from upshot.engine.host import Host
from upshot.engine.intake import Intake
from upshot.engine.job import Job
from upshot.engine.pulse import Pulse
from upshot.engine.returning import give_back
from upshot.engine.settling import shown
from upshot.errors import ServiceClosedError, ServiceError, UpshotError
from upshot.retrying import jitter

__all__ = ["Consumer"]

logger = logging.getLogger("upshot.worker")

_LONGEST_BACKOFF: Final = 5.0  # seconds between attempts to reach a broker that is down
_TICK: Final = 0.5  # seconds between two looks at hard limits and at the parent process
_FAREWELL: Final = 0.5  # seconds that a service has to hear of the end of this consumer
_LAST_FETCH: Final = 0.2  # seconds of those for a fetch that waits: what is there comes in a few ms


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
        tidy: called in a task's thread when its function has ended, before its outcome is stored.
        limited: told the moment, on the monotonic clock, when the soonest hard limit strikes; a
            near one, again and again, while a task is being ended; None if there is neither.
        pulse: gives signs of life for whoever looks for them; None if nobody does.
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
        tidy: Callable[[], object] = lambda: None,
        limited: Callable[[float | None], object] = lambda moment: None,
        pulse: Pulse | None = None,
    ) -> None:
        self.name = name or f"{socket.gethostname()}:{os.getpid()}"
        self._host = host
        self._queues = list(queues)
        self._threads = threads
        self._intake = Intake(
            host,
            queues=self._queues,
            worker=self.name,
            is_alone=threads == 1,
            may_go_on=lambda: not self._stop_asked and self._left != 0,
        )
        self._burst = burst
        self._left = max_tasks
        self._end_process = end_process
        self._is_orphaned = is_orphaned
        self._tidy = tidy
        self._tell_limit = limited
        self._pulse = pulse or Pulse(host.settings)
        self._pid = os.getpid()
        # Plain flags, so that a signal handler may set them: one handler may interrupt another in
        # the same thread, and an Event's lock would then be waited for by its own holder.
        self._stop_asked = False
        self._cold_asked = False
        self._stopping = threading.Event()
        self._cold = threading.Event()
        self._done = threading.Event()
        self._trouble: ServiceError | None = None
        self._slots = threading.Semaphore(threads)
        self._lock = threading.Lock()
        self._cutting = threading.Lock()
        self._is_cut = threading.Event()
        self._noting = threading.Lock()
        self._jobs: set[Job] = set()
        self._ending: set[Job] = set()
        self._loops = Loops()

    # -- from outside -----------------------------------------------------------------------------

    def stop(self) -> None:
        """Ask for a warm stop: fetch no more, finish what runs. Safe in a signal handler."""
        self._stop_asked = True

    def stop_cold(self) -> None:
        """Ask for a cold stop: give back what runs, at the next tick. Safe in a signal handler."""
        self._stop_asked = self._cold_asked = True

    def cut_short(self) -> None:
        """Stop cold at once, in the calling thread: give back what runs, and end the process."""
        self.stop_cold()
        self._cold.set()
        self._cut("the worker stops without waiting for it")

    @property
    def is_idle(self) -> bool:
        """Whether no task runs and nothing that was taken is unsettled.

        What the broker has given, but is still on its way, cannot be known.
        """
        return not (self._jobs or self._intake.has_taken)

    def run(self) -> None:
        """Consume until stopped; returns when everything that was taken is settled.

        Raises:
            ServiceError: in burst mode only, where nobody waits for a broker to come back, nor
                longer than `worker_lease` for a result store that lacks nothing that was run.
        """
        keepers = [
            threading.Thread(target=target, name=name, daemon=True)
            for target, name in (
                (self._keep_leases, "upshot-leases"),
                (self._keep_watch, "upshot-watch"),
            )
        ]
        for keeper in keepers:
            keeper.start()
        try:
            if self._threads == 1:
                self._consume(self._run_job)
            else:
                with ThreadPoolExecutor(self._threads, "upshot-task") as pool:
                    self._consume(lambda job: pool.submit(self._run_job, job))
        finally:
            if self._cutting.locked():  # which needs the broker, and ends the process if it can
                self._is_cut.wait(2 * _FAREWELL)
            self._done.set()
            self._host.broker.stop()
            for keeper in keepers:
                keeper.join()
            self._loops.close()
            self._sign_off()
            self._host.close()
        if self._trouble is not None:
            raise self._trouble

    # -- fetching ---------------------------------------------------------------------------------

    def _consume(self, start: Callable[[Job], object]) -> None:
        pause = 0.0
        # What an exchange has brought along before a stop is still to be given back.
        while (not self._stop_asked and self._left != 0) or self._intake.has_taken:
            self._pulse.fetching()
            if not self._slots.acquire(timeout=_TICK):
                continue
            try:
                found = self._take(start)
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
            except Exception:  # a defect of ours, or of a broker's: others may be served yet
                self._slots.release()
                logger.exception("fetching messages failed")
                self._stopping.wait(_LONGEST_BACKOFF)
                continue
            if not found:
                self._slots.release()
                if self._burst and not self._jobs:
                    return

    def _take(self, start: Callable[[Job], object]) -> bool:
        """Fetch a message for the free slot and start its task; tell whether there was one."""
        intake = self._intake
        intake.nothing_on_its_way.clear()
        try:
            if self._stop_asked and not intake.has_taken:
                return False  # asked for afterwards, it waits for what is on its way
            deliveries = intake.fetch(is_burst=self._burst, is_busy=bool(self._jobs))
            self._pulse.consumes()
            found = bool(deliveries)
            while deliveries:  # taken out: a large message must not stay while the next is awaited
                self._start(deliveries.pop(0), start)
            return found
        finally:
            intake.handed_over()

    def _start(self, delivery: Delivery, start: Callable[[Job], object]) -> None:
        job = Job(
            self._host,
            delivery,
            worker=self.name,
            stopping=self._stopping,
            cold=self._cold,
            intake=self._intake,
            limited=self._note_limits,
            after_body=self._after_body,
        )
        with self._lock:
            self._jobs.add(job)
        self._intake.handed_over()
        if self._left is not None:
            self._left -= 1
        if self._stop_asked:  # stopped while the fetch was on its way
            try:
                job.release("the worker stops")
            finally:
                self._end(job)
        else:
            start(job)

    def _run_job(self, job: Job) -> None:
        try:
            job.run(self._loops.run)
            if self._burst and job.trouble is not None:
                self._trouble = job.trouble
                self.stop()
        except Exception:  # a defect of ours must not end the worker; the lease returns the task
            logger.exception("running a message failed")
        finally:
            self._end(job)

    def _end(self, job: Job) -> None:
        with self._lock:
            self._jobs.discard(job)
        self._slots.release()

    def _after_body(self) -> None:
        if os.getpid() != self._pid:
            # The task forked, and let the child return from its function too. The parent has the
            # task and the connections; of the child nobody knows.
            os._exit(0)
        self._tidy()

    def _note_limits(self) -> None:
        with self._noting:  # or an older limit would be told after a newer one
            moments = self._deadlines()
            if self._ending:  # unless a task stops the other threads, a later moment is told soon
                moments.append(clock.monotonic() + _TICK)
            self._tell_limit(min(moments, default=None))

    def _deadlines(self) -> list[float]:
        return [job.deadline for job in self._snapshot() if job.deadline is not None]

    # -- the keepers' threads: one may have to wait for the broker, the other never does ----------

    def _keep_leases(self) -> None:
        """Renew leases, and show that this worker lives."""
        lease = self._host.settings.worker_lease
        pause = 0.0
        while not (self._done.wait(pause) or self._cold.is_set()):
            began = clock.monotonic()
            self._pulse.renewing()
            try:
                self._beat(lease)
            except UpshotError as exc:
                logger.warning("leases not renewed: %s", exc)
            except Exception:  # without this thread every lease would run out
                logger.exception("keeping leases failed")
            pause = max(0.0, began + lease / 3 - clock.monotonic())

    def _keep_watch(self) -> None:
        """Strike at hard limits, notice a cold stop and a lost parent."""
        while not self._done.wait(self._until_limit()):
            try:
                self._pulse.look(is_busy=bool(self._jobs))
                if self._stop_asked:
                    self._stopping.set()
                if self._cold_asked:
                    self.cut_short()
                    return
                if self._is_orphaned is not None and self._is_orphaned():
                    self.stop()
                self._strike()
            except Exception:  # without this thread no limit would be kept
                logger.exception("watching over tasks failed")

    def _until_limit(self) -> float:
        soonest = min(self._deadlines(), default=math.inf)
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
            if not ours and not job.settling.is_begun:
                logger.warning("lost the lease of message %s", shown(job.delivery.message_id))

    def _strike(self) -> None:
        now = clock.monotonic()
        late = [job for job in self._snapshot() if job.deadline is not None and job.deadline <= now]
        if late:  # not here: while the store is away it takes long
            threading.Thread(target=self._end_late, args=(late,), daemon=True).start()
            self._ending.update(late)
            for job in late:
                job.deadline = None
        if self._ending:
            self._ending &= set(self._snapshot())
            self._note_limits()

    def _end_late(self, late: Sequence[Job]) -> None:
        for job in late:
            try:
                job.end_by_time_limit()
            except Exception:  # the process has to end all the same
                logger.exception("a task that ran too long cannot be recorded")
        if self._end_process is None or set(late).isdisjoint(self._snapshot()):
            return  # they have come to their end meanwhile
        self._cut("the process ends with a task that ran too long")

    def _cut(self, why: str) -> None:
        """Give back what runs, and end the process, whatever goes wrong with that."""
        if not self._cutting.acquire(blocking=False):  # another thread is at it
            return
        self._stop_asked = True
        deadline = clock.Deadline(_FAREWELL)
        try:
            give_back(self._host, self._snapshot(), why, deadline)
            # What was given back, here or by another process that stops, may be what a fetch of
            # this very process has waited for.
            self._intake.nothing_on_its_way.wait(deadline.left(_LAST_FETCH))
            give_back(self._host, self._snapshot(), why, deadline)
        except Exception:
            logger.exception("giving tasks back failed")
        finally:
            if self._end_process is not None:
                self._end_process()
            self._is_cut.set()

    def _snapshot(self) -> list[Job]:
        with self._lock:
            return list(self._jobs)

    def _sign_off(self) -> None:
        try:
            self._host.broker.call(
                lambda broker, seconds: broker.beat(
                    self.name, [], [], lease=self._host.settings.worker_lease, timeout=seconds
                ),
                deadline=clock.Deadline(_FAREWELL),
            )
        except UpshotError as exc:
            logger.debug("could not sign off: %s", exc)
