"""Exceptions ⇄ plain data: describe one where it happened, rebuild it where it is awaited."""

from __future__ import annotations

from upshot.failure.data import Failure
from upshot.failure.describing import describe
from upshot.failure.rebuilding import RemoteTraceback, rebuild

__all__ = ["Failure", "RemoteTraceback", "describe", "rebuild"]
