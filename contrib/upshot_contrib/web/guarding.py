"""Who may look: hosts that may be asked for, the token, and what answers tell the browser.

A page of this machine can be reached by any web site that the user visits, once a name of that
site leads here (DNS rebinding). So a request must name a host that is known to be meant.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from typing import Final, final
from urllib.parse import parse_qs, urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from upshot_contrib.web.rendering import LOGIN, page, way_up
from upshot_contrib.web.tokens import Token

__all__ = ["Guard", "Hosts"]

_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_STATIC: Final = "/static/"  # there is no secret in it, and the form for the token looks better so
_LONGEST_FORM: Final = 4096  # bytes


@final
@dataclass(frozen=True, slots=True)
class Hosts:
    """The hosts that browsers may ask for.

    Attributes:
        names: without ports.
        takes_addresses: whether any IP address will do. No name leads to it, so nobody rebinds it.
    """

    names: Collection[str]
    takes_addresses: bool = False

    def has(self, header: str) -> bool:
        """Tell whether what stands in a `Host` header is one of them."""
        name = header.strip().lower()
        if name.startswith("["):
            name, closed, _ = name[1:].partition("]")
            if not closed:  # Starlette cannot make an address of it
                return False
        elif name.count(":") == 1:
            name = name.partition(":")[0]
        if name in {each.lower() for each in self.names}:
            return True
        return self.takes_addresses and _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


@final
class Guard:
    """Lets requests through that may be answered, and adds to each answer what protects it.

    Args:
        inside: what answers them.
        hosts: that may be asked for.
        token: None lets everybody look.
    """

    def __init__(self, inside: ASGIApp, *, hosts: Hosts, token: Token | None) -> None:
        self._inside = inside
        self._hosts = hosts
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inside(scope, receive, send)
            return

        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        request = Request(scope, receive)
        refusal = await self._refusal(request)
        await (self._inside if refusal is None else refusal)(scope, receive, protected)

    async def _refusal(self, request: Request) -> Response | None:
        """Return what to answer in place of what was asked for; None if that may be seen."""
        if not self._hosts.has(request.headers.get("host", "")):
            return page(
                "error.html",
                status=HTTPStatus.MISDIRECTED_REQUEST,
                up=way_up(request.scope["path"]),
                title="Not this host",
                message="This page answers under the names that it was told only. If you meant "
                "it: upshot web --allow-host NAME",
            )
        if self._token is None or request.scope["path"].startswith(_STATIC):
            return None
        if request.method == "POST" and request.scope["path"] == f"/{LOGIN}":
            return await self._login(request, self._token)
        given = request.query_params.get("token")
        if given is not None:
            return self._entered(request, self._token, given)
        if self._is_known(request, self._token):
            return None
        return self._ask(request, is_wrong=False)

    def _is_known(self, request: Request, token: Token) -> bool:
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        # Headers are bytes, which come as Latin-1; programs write UTF-8.
        given = given.strip().encode("latin-1").decode(errors="surrogateescape")
        if kind.lower() == "bearer" and token.is_it(given):
            return True
        return token.is_cookie(request.cookies.get(token.cookie_name, ""))

    def _entered(self, request: Request, token: Token, given: str) -> Response:
        """Remember the token in a cookie, and take it out of the address."""
        if not token.is_it(given):
            return self._ask(request, is_wrong=True)
        rest = [each for each in request.query_params.multi_items() if each[0] != "token"]
        here = request.scope["path"].rpartition("/")[2] or "."
        return self._admitted(request, token, f"{here}?{urlencode(rest)}" if rest else here)

    async def _login(self, request: Request, token: Token) -> Response:
        body = b""
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > _LONGEST_FORM:
                    return self._ask(request, is_wrong=True)
        except ClientDisconnect:  # in the middle of it: nobody gets the answer
            return self._ask(request, is_wrong=True)
        given = parse_qs(body.decode(errors="replace")).get("token", [""])[0]
        if not token.is_it(given.strip()):
            return self._ask(request, is_wrong=True)
        return self._admitted(request, token, ".")

    def _admitted(self, request: Request, token: Token, where: str) -> Response:
        answer = RedirectResponse(where, status_code=HTTPStatus.SEE_OTHER)
        answer.set_cookie(
            token.cookie_name,
            token.cookie,
            httponly=True,
            samesite="lax",  # with "strict", a link in another site's page would ask for it again
            secure=request.url.scheme == "https",
        )
        return answer

    def _ask(self, request: Request, *, is_wrong: bool) -> Response:
        answer = page(
            "login.html",
            status=HTTPStatus.UNAUTHORIZED,
            up=way_up(request.scope["path"]),
            is_wrong=is_wrong,
        )
        answer.headers["WWW-Authenticate"] = "Bearer"
        return answer
