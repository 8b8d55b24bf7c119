"""The pages: a list of results, one result, workers and queues; and what keeps them up to date."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final, final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

from upshot.app import App
from upshot.cli.exits import USAGE, exit_code
from upshot.cli.printing import safe
from upshot.cli.results.source import require_shared
from upshot.errors import ServiceUnavailableError, UnsupportedError, UpshotError
from upshot.record import printable
from upshot.states import TERMINAL, State
from upshot_contrib.web.guarding import Guard, Hosts
from upshot_contrib.web.live import EventStream, Part, Streams, fingerprint
from upshot_contrib.web.looking import Looks
from upshot_contrib.web.presenting import kind_of
from upshot_contrib.web.queries import ANY, SPANS, UNFINISHED, Query
from upshot_contrib.web.rendering import STATIC, page, rendered, way_up
from upshot_contrib.web.summary import Summary
from upshot_contrib.web.tokens import Token

__all__ = ["Site", "application"]

_OWN_STATES: Final = tuple(state.value for state in State if state != State.PENDING)
_LIST_INTERVAL: Final = 1.0  # seconds between two looks
_RESULT_INTERVAL: Final = 0.4
_WORKERS_INTERVAL: Final = 2.0


@final
class Site:
    """What the pages are about.

    Args:
        app: whose results, workers and queues.
        queues: names of those that are shown.
        target: what `-A` says, for commands that the page recommends.

    Raises:
        ConfigError: there is no such result backend, or its driver is not installed.
    """

    def __init__(self, app: App, *, queues: Sequence[str], target: str) -> None:
        self.app = app
        self._client = app.results
        self.queues = tuple(queues)
        self.target = target
        self.looks: Looks | None = None
        self.streams: Streams | None = None

    @property
    def cannot_list(self) -> str:
        """Why results cannot be listed; "" if they can."""
        client = self._client
        try:
            require_shared(client)
        except UnsupportedError as exc:
            return str(exc)
        if client.capabilities.scan:
            return ""
        return f"{client.url} cannot list its results, but finds each by its id"

    def context(self) -> dict[str, Any]:
        """What every page says of the app."""
        client = self._client
        return {
            "target": printable(self.target),
            "namespace": printable(client.namespace),
            "service": safe(str(client.url)),
        }

    def stop(self) -> None:
        """End the streams of events, and what waits for a service.

        From a signal's handler, in the thread of the event loop.
        """
        if self.streams is not None and self.looks is not None:
            self.streams.stop()
            self.looks.stop()

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncGenerator[None]:
        """Keep threads and streams as long as the server runs."""
        self.looks, self.streams = Looks(self.app, self.queues), Streams()
        try:
            yield
        finally:
            self.stop()
            self.looks.close()


def application(site: Site, *, hosts: Hosts, token: str | None, cookie: str = "page") -> ASGIApp:
    """Return the page as an ASGI application; it needs the lifespan protocol.

    Args:
        site: what it shows.
        hosts: by which names browsers may ask for it.
        token: what they need; None lets everybody look.
        cookie: ends the name of the token's cookie.
    """
    views = _Views(site)
    inside = Starlette(
        routes=[
            Route("/", views.results),
            Route("/result", views.result),
            Route("/workers", views.workers),
            Route("/events", views.events),
            Mount("/static", _Static(directory=STATIC)),
        ],
        exception_handlers={UpshotError: views.failed, HTTPException: views.missing},
        lifespan=site.lifespan,
    )
    return Guard(inside, hosts=hosts, token=None if token is None else Token(token, cookie))


@final
class _Static(StaticFiles):
    """Files that browsers ask for again, and take from their cache if they are the same."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        if "\0" in path:  # older versions of Starlette ask the system for it
            raise HTTPException(HTTPStatus.NOT_FOUND)
        answer = await super().get_response(path, scope)
        answer.headers["Cache-Control"] = "no-cache"
        return answer


@final
class _Views:
    """Answers to requests."""

    def __init__(self, site: Site) -> None:
        self._site = site

    @property
    def _looks(self) -> Looks:
        assert self._site.looks is not None, "the server speaks no lifespan protocol"
        return self._site.looks

    # -- pages --------------------------------------------------------------------------------

    async def results(self, request: Request) -> Response:
        """Return the list."""
        query = Query.of(request.query_params)
        reason = self._site.cannot_list
        if reason:
            return self._page("cannot_list.html", "", reason=safe(reason))
        part = await self._results(query, sparing=False)
        return self._page(
            "results.html",
            f"of=results&{query.parameters}",
            part,
            query=query,
            spans=SPANS if query.since in dict(SPANS) else (*SPANS, (query.since, query.since)),
        )

    async def _results(self, query: Query, *, sparing: bool) -> Part:
        found = await self._looks.results(query, sparing=sparing)
        others = sorted({*found.states, query.state} - {*_OWN_STATES, ANY, UNFINISHED})
        shown = {state: printable(state) for state in (*_OWN_STATES, *others)}
        unfinished = sum(count for state, count in found.states.items() if state not in TERMINAL)
        tabs = [
            (ANY, "All", sum(found.states.values()), ""),
            (UNFINISHED, "Unfinished", unfinished, ""),
            *(
                (state, label, found.states.get(state, 0), kind_of(state))
                for state, label in shown.items()
            ),
        ]
        return Part(
            rendered(
                "part_results.html",
                found=found,
                query=query,
                tabs=tabs,
                target=printable(self._site.target),
            )
        )

    async def result(self, request: Request) -> Response:
        """Return the page of one task."""
        task_id = request.query_params.get("id", "").strip()
        part = await self._result(task_id)
        parameters = str(request.url.query)
        return self._page(
            "result.html",
            "" if part.is_over else f"of=result&{parameters}",
            part,
            task_id=printable(task_id),
        )

    async def _result(self, task_id: str) -> Part:
        shown = await self._looks.result(task_id)
        return Part(rendered("part_result.html", shown=shown), shown.is_over)

    async def workers(self, request: Request) -> Response:
        """Return workers, queues and running tasks."""
        part = await self._workers(sparing=False)
        return self._page("workers.html", "of=workers", part)

    async def _workers(self, *, sparing: bool) -> Part:
        found = await self._looks.overview(sparing=sparing)
        return Part(
            rendered(
                "part_workers.html",
                found=Summary.of(found),
                target=printable(self._site.target),
            )
        )

    def _page(
        self, template: str, events: str, part: Part | None = None, **context: Any
    ) -> Response:
        """Return a whole page around a part of it, which `events` keep up to date."""
        return page(
            template,
            **self._site.context(),
            **context,
            part=None if part is None else part.html,
            events=events and part and f"events?{events}",
            version=part and fingerprint(part.html),
        )

    # -- events -------------------------------------------------------------------------------

    async def events(self, request: Request) -> Response:
        """Return a stream of what changes."""
        streams = self._site.streams
        if streams is None or streams.is_full:
            return PlainTextResponse(
                "too many browsers are kept up to date", HTTPStatus.SERVICE_UNAVAILABLE
            )
        look, interval = self._look(request)
        if request.method == "HEAD":  # its answer has no body: a stream would never end
            return Response(media_type="text/event-stream")
        seen = request.headers.get("last-event-id") or request.query_params.get("seen", "")
        return EventStream(streams, look, seen=seen, interval=interval)

    def _look(self, request: Request) -> tuple[Callable[[], Awaitable[Part]], float]:
        """Return what looks at that which the browser shows, and how often."""
        match request.query_params.get("of"):
            case "results":
                query = Query.of(request.query_params)
                return lambda: self._results(query, sparing=True), _LIST_INTERVAL
            case "result":
                task_id = request.query_params.get("id", "").strip()
                return lambda: self._result(task_id), _RESULT_INTERVAL
            case "workers":
                return lambda: self._workers(sparing=True), _WORKERS_INTERVAL
            case _:
                raise HTTPException(HTTPStatus.NOT_FOUND)

    # -- what goes wrong ----------------------------------------------------------------------

    async def failed(self, request: Request, exc: Exception) -> Response:
        """Say what upshot says of it."""
        assert isinstance(exc, UpshotError)
        if isinstance(exc, ServiceUnavailableError):
            status, title = HTTPStatus.SERVICE_UNAVAILABLE, "The service does not answer"
        elif isinstance(exc, UnsupportedError):
            status, title = HTTPStatus.NOT_IMPLEMENTED, "This service cannot do that"
        elif exit_code(exc) == USAGE:
            status, title = HTTPStatus.BAD_REQUEST, "That cannot be looked up"
        else:
            status, title = HTTPStatus.BAD_GATEWAY, "The service refused"
        return page(
            "error.html", status=status, title=title, message=safe(str(exc)), **self._site.context()
        )

    async def missing(self, request: Request, exc: Exception) -> Response:
        """Say that there is no such page, or not this way."""
        assert isinstance(exc, HTTPException)
        title = HTTPStatus(exc.status_code).phrase
        message = "There is nothing at this address that could be shown in this way."
        status = HTTPStatus(exc.status_code)
        up = way_up(request.scope["path"])
        answer = page("error.html", status=status, up=up, title=title, message=message)
        answer.headers.update(exc.headers or {})
        return answer
