"""A worker's last step alone: outcomes of tasks that no worker ran."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import TypeAlias

from upshot import App
from upshot_conformance.records import success

PROGRAM = Path(__file__).parent / "programs" / "store.py"

Store: TypeAlias = Callable[[Mapping[str, object]], list[bool]]
"""Stores what tasks returned, by task id; tells for each whether it was applied."""


@contextlib.contextmanager
def storing(app: App) -> Generator[Store]:
    """Store outcomes of tasks that `app` has sent, from another process if one can reach it."""
    if app.results.capabilities.shared or app.results.backend.reply_to:
        with _process(app) as process:
            yield lambda values: _order(process, app.results.backend.reply_to, values)
    else:
        yield lambda values: app.results.store_many(success(*each) for each in values.items())


@contextlib.contextmanager
def _process(app: App) -> Generator[subprocess.Popen[str]]:
    settings = app.settings
    arguments = [settings.result_backend or "", settings.namespace, str(settings.operation_timeout)]
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:  # closes its input, which ends it, and waits
        yield process


def _order(
    process: subprocess.Popen[str], reply_to: str, values: Mapping[str, object]
) -> list[bool]:
    assert process.stdin is not None, "it was opened with pipes"
    assert process.stdout is not None, "likewise"
    process.stdin.write(json.dumps({"reply_to": reply_to, "values": values}) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    assert line, "the storing process has failed; its error stands above"
    applied: list[bool] = json.loads(line)
    return applied
