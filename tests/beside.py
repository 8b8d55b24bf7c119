"""How the tests run beside each other, where pytest-xdist has several processes run them.

The tests of a file stay together and in order, for they share what its fixtures start. One with
the mark `apart` goes to whichever process is free. What may take longest begins first. One with
the mark `alone` comes last, and while it runs, no other test does.
"""

from __future__ import annotations

import fcntl
from collections.abc import Generator
from pathlib import Path

import pytest
from _pytest.nodeid import NodeId

_ALONE = "alone"


def _is_spread(config: pytest.Config) -> bool:
    """Tell whether this is one of several processes."""
    return hasattr(config, "workerinput")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give the test the group of its file, unless it has another."""
    if not _is_spread(item.config) or item.get_closest_marker("xdist_group"):
        return
    if item.get_closest_marker(_ALONE):
        item.add_marker(pytest.mark.xdist_group(_ALONE))
    elif not item.get_closest_marker("apart"):
        item.add_marker(pytest.mark.xdist_group(f"{item.path.parent.name}/{item.path.stem}"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the groups in order: at the end, nobody should wait for a long one."""
    if not _is_spread(config):
        return
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        groups.setdefault(_group(item), []).append(item)
    items[:] = [item for _, group in sorted(groups.items(), key=_urgency) for item in group]
    for item in items:
        if item.get_closest_marker("xdist_group"):
            # pytest-xdist 3.8 appends it to what pytest 9.2 no longer reads: its issue 1386.
            item._id = NodeId.parse(f"{item.nodeid}@{_group(item)}")  # pyright: ignore[reportPrivateUsage]


def _group(item: pytest.Item) -> str:
    marker = item.get_closest_marker("xdist_group")
    return str(marker.args[0]) if marker else item.nodeid


def _urgency(named: tuple[str, list[pytest.Item]]) -> tuple[bool, float, int]:
    """Sort those first that allow themselves most time, and then the largest."""
    name, group = named
    own = (marker.args[0] for item in group for marker in item.iter_markers("timeout"))
    return name == _ALONE, -max(own, default=0), -len(group)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Hold a lock that the processes share, or have to oneself for a test that is to be alone.

    It is waited for here, outside of the test's own time limit.
    """
    if not _is_spread(item.config):
        return (yield)
    shared = Path(item.config.option.basetemp).parent  # each process has a folder of its own in it
    with (shared / "alone.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if item.get_closest_marker(_ALONE) else fcntl.LOCK_SH)
        try:
            return (yield)
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # a child that a test forked has it open as well
