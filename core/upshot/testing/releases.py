"""Which results a test has asked for and neither read nor forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final
from weakref import WeakSet

from upshot.errors import UnreleasedResultsError
from upshot.record import Record, printable

if TYPE_CHECKING:
    from upshot.app import App

__all__ = ["require_released", "watch"]

_SHOWN: Final = 5  # results that an error names


@final
class _Watched(WeakSet[Any]):
    """The handles of an app; it remembers those that were thrown away, too."""

    def __init__(self) -> None:
        super().__init__()
        self.left: dict[str, None] = {}  # task ids, in the order of the calls

    def add(self, item: Any) -> None:
        super().add(item)
        self.left[item.id] = None

    def discard(self, item: Any) -> None:
        super().discard(item)
        self.left.pop(item.id, None)


def watch(app: App) -> None:
    """Remember from now on what is asked of the app, until it is closed."""
    app.origin.handles = _Watched()


def require_released(app: App) -> None:
    """Check that every result was read, forgotten, or has expired; for an app in memory.

    A handle counts also if nobody has kept it: its record stays for as long as `result_expires`
    says. Tasks that keep no record do not count, nor do handles made from an id.

    Raises:
        UnreleasedResultsError: results are left; it names the first of them.
    """
    handles = app.origin.handles
    ids = handles.left if isinstance(handles, _Watched) else {each.id: None for each in handles}
    loaded = app.results.load_many(list(ids))
    found = [each for each in loaded if isinstance(each, Record)]
    if not found:
        return
    named = ", ".join(map(_described, found[:_SHOWN]))
    more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    raise UnreleasedResultsError(
        f"{len(found)} {'result was' if len(found) == 1 else 'results were'} neither read nor "
        f"forgotten: {named}{more}; call get() or forget(), or send with ignore_result=True",
        task_ids=tuple(record.task_id for record in found),
    )


def _described(record: Record) -> str:
    return f"{printable(record.name)} {printable(record.task_id)} ({printable(record.state)})"
