"""The tasks that experiments send; workers import this module as `jobs`."""

from __future__ import annotations

import itertools
import os
import time

from upshot import App, current_task

app = App("jobs")


def note(what: str = "begins") -> float:
    """Write into the ledger that the running task does something; return the moment."""
    moment = time.monotonic()
    line = f"{current_task().task_id} {what} {os.getpid()} {moment!r}\n".encode()
    ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(ledger, line)
    finally:
        os.close(ledger)
    return moment


@app.task
def echo(value: object, seconds: float = 0.0) -> object:
    """Return the argument after some time."""
    note()
    time.sleep(seconds)
    return value


@app.task
def run(number: int, seconds: float = 0.0) -> list[float]:
    """Return the argument, and what tells this run from all others: its process and moment."""
    moment = note()
    time.sleep(seconds)
    return [number, os.getpid(), moment]


@app.task(max_retries=1)
def behind(gate: str, value: object, how: str = "return") -> object:
    """Wait until the file `gate` is there, and end then as `how` says."""
    note()
    while not os.path.exists(gate):
        time.sleep(0.05)
    context = current_task()
    if how == "report":
        context.progress(1, 2)
    if how == "retry" and not context.retries:
        context.retry(countdown=0)
    if how == "raise":
        raise RuntimeError(value)
    return value


@app.task
def report_for_ever() -> None:
    """Do nothing but call a service, so that whatever strikes does so in a call."""
    note()
    for number in itertools.count():
        current_task().progress(number)


@app.task(time_limit=1.0)
def endless() -> None:
    """Run for ever, were it not for the limit."""
    note()
    while True:
        time.sleep(0.1)
