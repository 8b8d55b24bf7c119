"""What a running task tells its worker, and asks of it: progress, items, whether it was revoked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from upshot.backend import StoredRecord
from upshot.engine.host import Host
from upshot.engine.outlet import Outlet
from upshot.engine.recorder import Recorder
from upshot.engine.reports import Reports
from upshot.errors import UnsupportedError
from upshot.execution import Execution, Outcome
from upshot.record import Record
from upshot.states import State

__all__ = ["Reporting"]


@final
class Reporting:
    """The `Reporter` of one attempt.

    Args:
        host: the app's side.
        execution: the attempt.
        recorder: brings its records to their store.
    """

    def __init__(self, host: Host, execution: Execution, recorder: Recorder) -> None:
        self._host = host
        self._execution = execution
        self._recorder = recorder
        self._outlet: Outlet | None = None
        self._reports: Reports | None = None

    def progress(self, info: Mapping[str, Any]) -> None:
        """Store a progress report, soon; a report after the end has no effect.

        One that cannot be stored is lost, and the log says so: the task has done nothing wrong, and
        must not fail for it. The next record brings the same report along.
        """
        if self._execution.ignore_result:
            return
        if self._reports is None:
            interval = self._host.settings.task_progress_interval
            self._reports = Reports(self._report, clerk=self._host.clerk, interval=interval)
        self._reports.put(self._recorder.sealed_report(self._execution.progress(info)))

    def is_revoked(self) -> bool:
        """Look whether the task was revoked meanwhile; never known where results are carried."""
        record = self._recorder.look()
        return record is not None and record.state == State.REVOKED

    def stream(self) -> Outlet | None:
        """Return where the items of the task go; None if no record of it is kept.

        Raises:
            UnsupportedError: the result store keeps no streams.
        """
        if self._execution.ignore_result:
            return None
        client = self._host.client
        if not client.capabilities.streams:
            raise UnsupportedError(f"the task yields, and {client.url} keeps no streams")
        self._outlet = Outlet(
            self._execution,
            self._recorder,
            clerk=self._host.clerk,
            limit=self._host.settings.stream_max_items,
        )
        return self._outlet

    def finish(self, outcome: Outcome) -> Outcome:
        """Return the outcome of the run once nothing of it is on its way that belongs before it.

        Raises:
            ServiceError: the process is ending, and the store refuses items.
        """
        if self._reports is not None:
            self._reports.close()
        return outcome if self._outlet is None else self._outlet.finish(outcome)

    def cut_short(self, record: Record) -> Record:
        """Return the end of a task that runs on, and can tell nothing any more."""
        if self._reports is not None:
            self._reports.close()
        return record if self._outlet is None else self._outlet.cut_short(record)

    def _report(self, report: StoredRecord) -> None:
        # Of a stream that was forgotten, nothing is to come back.
        if self._outlet is None or self._outlet.is_wanted():
            self._recorder.report(report)
