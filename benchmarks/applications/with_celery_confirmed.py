"""Celery, waiting until RabbitMQ has each message safe, which it does not do by default."""

from __future__ import annotations

from benchmarks.applications.with_celery import app, echo, result, submit

__all__ = ["WORKER", "app", "echo", "result", "submit"]

app.conf.broker_transport_options = {"confirm_publish": True}
app.conf.task_default_queue = "confirmed"  # it shares the server with the other one

_NODE = ["-n", "confirmed@%h"]
WORKER = ["-m", "celery", "-A", __name__, "worker", "-c", "2", "-l", "WARNING", *_NODE]
