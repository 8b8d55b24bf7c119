"""The worker: a supervised set of processes, each with its own connections, that run tasks."""

from __future__ import annotations

from upshot.worker.options import WorkerOptions
from upshot.worker.run import run
from upshot.worker.supervisor import STOPS

__all__ = ["STOPS", "WorkerOptions", "run"]
