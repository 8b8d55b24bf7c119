"""Giving back in one step what a consumer has not finished, so that others may begin it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from upshot.broker import Settlement
from upshot.clock import Deadline
from upshot.engine.host import Host
from upshot.engine.job import Job
from upshot.errors import UpshotError

__all__ = ["give_back"]

logger = logging.getLogger("upshot.worker")


def give_back(host: Host, jobs: Sequence[Job], why: str, deadline: Deadline) -> None:
    """Give back all of `jobs` that is not settled, and wait for what others are settling.

    A broker that cannot be told by then gives the tasks to others when their leases end.

    Args:
        host: whose broker to tell.
        jobs: what runs.
        why: for the log.
        deadline: for all of it.
    """
    taken = list[Settlement]()
    for job in jobs:
        try:
            settlement = job.take_back(why)
        except Exception:  # the others are not to stay for it
            logger.exception("a task cannot be given back")
            continue
        if settlement is not None:
            taken.append(settlement)
    try:
        if taken:
            host.broker.call(
                lambda broker, seconds: broker.settle(taken, seconds), deadline=deadline
            )
    except UpshotError as exc:
        logger.warning("tasks come back when their lease ends: %s", exc)
    mine = {settlement.delivery.token for settlement in taken}
    for job in jobs:
        if job.delivery.token not in mine:  # its own thread is telling the broker
            job.settling.await_told(deadline.left() or 0.0)
