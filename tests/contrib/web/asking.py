"""Asks the page without a browser: one request after the other, to the ASGI application itself."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from starlette.datastructures import Headers

from upshot import App
from upshot_contrib.web.guarding import Hosts
from upshot_contrib.web.pages import Site, application

__all__ = ["Answer", "Asker", "opened", "shown"]

LOCAL = Hosts({"127.0.0.1"})


@dataclass
class Answer:
    """What came back."""

    status: int = 0
    headers: Headers = field(default_factory=Headers)
    body: bytes = b""

    @property
    def text(self) -> str:
        """What is on the page, without its tags; white space is as in the source."""
        return html.unescape(re.sub(r"<[^>]*>", "", self.html))

    @property
    def html(self) -> str:
        """The source of the page."""
        return self.body.decode()

    def all(self, tag: str, class_: str = "") -> list[str]:
        """What is in each element of a kind, which has no such element in it."""
        attributes = rf'[^>]*class="[^"]*\b{class_}\b[^"]*"[^>]*' if class_ else "[^>]*"
        found = re.findall(rf"<{tag}\b{attributes}>(.*?)</{tag}>", self.html, re.DOTALL)
        return [html.unescape(re.sub(r"<[^>]*>", "", each)).strip() for each in found]


class Asker:
    """Asks one page."""

    def __init__(self, page: Any, site: Site) -> None:
        self.page = page
        self.site = site

    async def ask(
        self,
        path: str = "/",
        query: Mapping[str, str] | str = "",
        *,
        method: str = "GET",
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        told: Callable[[str], object] | None = None,
        leaves: bool = False,
    ) -> Answer:
        """Return the answer; `told` gets each piece of it, and ends it by raising EOFError.

        Who `leaves` goes away in the middle of the body.
        """
        answer, gone = Answer(), asyncio.Event()
        requests = [{"type": "http.request", "body": body, "more_body": leaves}]
        if leaves:
            gone.set()

        async def receive() -> Any:
            if requests:
                return requests.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status, answer.headers = message["status"], Headers(raw=message["headers"])
                return
            answer.body += message["body"]
            try:
                if told is not None and message["body"]:
                    told(message["body"].decode())
            except EOFError:
                gone.set()

        given = {"host": "127.0.0.1", **(headers or {})}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": (query if isinstance(query, str) else urlencode(query)).encode(),
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "server": ("127.0.0.1", 8020),
            "client": ("127.0.0.1", 50_000),
        }
        await self.page(scope, receive, send)
        return answer


@asynccontextmanager
async def opened(
    app: App, *, token: str | None = None, hosts: Hosts = LOCAL
) -> AsyncGenerator[Asker]:
    """Serve the page of an app inside the block."""
    site = Site(app, queues=app.queues(), target="jobs")
    page = application(site, hosts=hosts, token=token)
    messages: asyncio.Queue[Any] = asyncio.Queue()
    answers: asyncio.Queue[Any] = asyncio.Queue()
    lifespan = asyncio.ensure_future(
        page({"type": "lifespan", "asgi": {"version": "3.0"}}, messages.get, answers.put)
    )
    await messages.put({"type": "lifespan.startup"})
    assert (await answers.get())["type"] == "lifespan.startup.complete"
    try:
        yield Asker(page, site)
    finally:
        await messages.put({"type": "lifespan.shutdown"})
        await lifespan


def shown(
    app: App,
    path: str = "/",
    query: Mapping[str, str] | str = "",
    *,
    token: str | None = None,
    hosts: Hosts = LOCAL,
    **more: Any,
) -> Answer:
    """Return one page of an app."""

    async def once() -> Answer:
        async with opened(app, token=token, hosts=hosts) as page:
            return await page.ask(path, query, **more)

    return asyncio.run(once())
