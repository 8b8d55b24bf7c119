"""Fails every test that lets a server's password be seen.

The private servers of tests have passwords that begin alike. They are looked for in all that a
test prints and logs, and in the logs that its processes leave in its temporary folder.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from upshot_conformance.servers import PASSWORD_MARK

# The mark alone may stand in a line of source that a traceback quotes.
_PASSWORD = re.compile(PASSWORD_MARK + "[0-9a-f]{8,}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the report of a test that showed a password into a failure that says where."""
    report = yield
    if report.when == "teardown" and (shown := [*_in_sections(report), *_in_logs(item)]):
        report.outcome = "failed"
        report.longrepr = "a password of a private server was shown:\n" + "\n".join(shown)
    return report


def _in_sections(report: pytest.TestReport) -> Iterator[str]:
    for title, text in report.sections:
        yield from _found(title, text)


def _in_logs(item: pytest.Item) -> Iterator[str]:
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    for path in sorted(Path(folder).rglob("*.log")) if folder else ():
        if path.is_file() and path.name != "server.log":  # what a server logs is its own affair
            yield from _found(str(path), path.read_text("utf-8", "replace"))


def _found(where: str, text: str) -> Iterator[str]:
    lines = (line for line in text.splitlines() if _PASSWORD.search(line))
    yield from (f"{where}: {_PASSWORD.sub('<PASSWORD>', line)}" for line in lines)
