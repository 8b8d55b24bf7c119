"""Puts a message away that can never be run, and lets its task fail if it names one."""

from __future__ import annotations

import logging
import threading

from upshot import clock
from upshot.broker import Action, Delivery
from upshot.engine.host import Host
from upshot.engine.recorder import Recorder
from upshot.engine.settling import Settling, shown
from upshot.engine.telling import tell_end
from upshot.engine.unreadable import owner_of
from upshot.errors import ServiceError, UpshotError
from upshot.outcome import encode_failure
from upshot.record import Record
from upshot.states import MAX_ATTEMPT, State

__all__ = ["bury"]

logger = logging.getLogger("upshot.task")


def bury(
    host: Host,
    delivery: Delivery,
    settling: Settling,
    error: UpshotError,
    *,
    worker: str,
    stopping: threading.Event,
    cold: threading.Event,
) -> None:
    """Record the failure, then move the message to the dead letters with its reason.

    Nothing is decoded here: the message may be of any size and make. Where messages are signed, one
    that is not is not believed, or whoever can write to the broker could let any task fail. It ends
    only a task that is on record as waiting: to take its message away would have done no less.

    Args:
        host: the app's side.
        delivery: the leased message.
        settling: its end.
        error: what the waiter gets, and the dead letter's reason.
        worker: this worker's name.
        stopping: set when the worker stops, and `worker_lease` bounds it as well: a store that is
            away is waited for so long, and then the message goes back.
        cold: set when the process is about to end.
    """
    reason = shown(str(error))
    owner = owner_of(delivery)
    whose = f"task {shown(owner.task_id)}" if owner else "no task that can be told"
    message_id = shown(delivery.message_id)
    logger.error(
        "message %s of %s in queue %r is put away: %s", message_id, whose, delivery.queue, reason
    )
    try:
        if owner is not None and not owner.ignore_result:
            recorder = Recorder(
                host.client,
                task_id=owner.task_id,
                label=shown(owner.task_id),
                reply_to=owner.reply_to,
                expires=host.settings.result_expires,
                patience=host.settings.worker_lease,
                stopping=stopping,
                cold=cold,
            )
            begun = recorder.recall() or Record(
                task_id=owner.task_id,
                state=State.PENDING,
                # Who is sent the record may have heard of any attempt, and would not take it for
                # the end of an earlier one.
                attempt=MAX_ATTEMPT if owner.reply_to else 1,
                name=owner.name,
                queue=delivery.queue,
                worker=worker,
            )
            is_waiting = begun.state == State.QUEUED
            if is_waiting or (_is_believed(host, delivery) and not begun.is_terminal):
                recorder.refuse(_failed(host, begun, error))
    except ServiceError as exc:
        settling.settle(Action.RELEASE, note=f"a message of {whose} is given back: {exc}")
        return
    except Exception:  # there is no record to be had; the dead letter is left to look at
        logger.exception("the failure of %s cannot be recorded", whose)
    whose_end = Record(task_id="", state=State.FAILURE, queue=delivery.queue, worker=worker)
    tell_end(host, None, whose_end, error)
    settling.settle(Action.BURY, reason=reason)


def _is_believed(host: Host, delivery: Delivery) -> bool:
    """Tell whether the message comes from somebody with a key, or need not."""
    return host.sealing is None or host.sealing.has_sealed(delivery.body, delivery.queue)


def _failed(host: Host, begun: Record, error: UpshotError) -> Record:
    outcome = encode_failure(host.codecs, error)
    return begun._replace(state=State.FAILURE, finished_at=clock.now(), outcome=outcome)
