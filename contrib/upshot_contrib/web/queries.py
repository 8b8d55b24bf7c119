"""Which results the list shows: from the address of the page to a filter, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, final
from urllib.parse import urlencode

from upshot import clock
from upshot.cli.results.moments import moment_of
from upshot.errors import ConfigError
from upshot.inventory import Filter
from upshot.record import printable

__all__ = ["ANY", "PAGE", "SPANS", "UNFINISHED", "Query"]

ANY: Final = ""
"""The state of a query for results in every state."""

UNFINISHED: Final = "unfinished"
"""The state of a query for tasks that have not ended; states have names in capitals."""

PAGE: Final = 50
"""Results on a page."""

SPANS: Final = (
    ("", "any time"),
    ("15m", "last 15 minutes"),
    ("1h", "last hour"),
    ("1d", "last day"),
    ("7d", "last week"),
)
"""Choices for how long ago the last change was, with their labels."""

_LONGEST: Final = 300  # characters of a text that is looked for: a name or an id has fewer
_DIGITS: Final = 9  # of a page: `newest` refuses far smaller ones


@final
@dataclass(frozen=True, slots=True)
class Query:
    """What the list shows.

    Attributes:
        state: a name of a state, `UNFINISHED` or `ANY`.
        text: what the name or the id of a task contains; with `*` or `?`, a pattern of its name.
        queue: "" for every queue.
        since: a span before now, or a moment; "" for any time.
        page: 1 for the last changed ones.
    """

    state: str = ANY
    text: str = ""
    queue: str = ""
    since: str = ""
    page: int = 1

    @classmethod
    def of(cls, parameters: Mapping[str, str]) -> Query:
        """Read the parameters of an address.

        Raises:
            ConfigError: one of them means nothing.
        """
        since, page = parameters.get("since", "").strip(), parameters.get("page", "1")
        if since:
            _moment(since)
        if not (page.isascii() and page.isdigit() and int(page[:_DIGITS]) > 0):
            raise ConfigError(f"there is no page {page!r:.100}")
        state = parameters.get("state", ANY).strip()
        return cls(
            state=state if state == UNFINISHED else state.upper()[:_LONGEST],
            text=parameters.get("q", "").strip()[:_LONGEST],
            queue=parameters.get("queue", "").strip()[:_LONGEST],
            since=since,
            page=int(page[:_DIGITS]),
        )

    def filter(self) -> Filter:
        """Return the filter that it is at this moment."""
        is_pattern = any(each in self.text for each in "*?")
        is_state = self.state not in (ANY, UNFINISHED)
        return Filter(
            names=(self.text,) if is_pattern else (),
            text="" if is_pattern else self.text,
            states=frozenset({self.state}) if is_state else frozenset(),
            unfinished=self.state == UNFINISHED,
            queues=frozenset({self.queue}) if self.queue else frozenset(),
            since=_moment(self.since) if self.since else None,
        )

    @property
    def is_everything(self) -> bool:
        """Whether no result is left out, but for those on other pages."""
        return replace(self, page=1) == Query()

    def with_state(self, state: str) -> str:
        """Return the parameters of the same list, in another state."""
        return replace(self, state=state, page=1).parameters

    def with_page(self, page: int) -> str:
        """Return the parameters of another page of the list."""
        return replace(self, page=page).parameters

    @property
    def parameters(self) -> str:
        """What stands behind the `?` of its address."""
        return urlencode(list(self._parameters()))

    def _parameters(self) -> Iterator[tuple[str, str]]:
        for name, value in (
            ("state", self.state),
            ("q", self.text),
            ("queue", self.queue),
            ("since", self.since),
        ):
            if value:
                yield name, value
        if self.page > 1:
            yield "page", str(self.page)


def _moment(text: str) -> float:
    try:
        return moment_of(text, clock.now())
    except ValueError as exc:
        raise ConfigError(printable(str(exc))) from exc
