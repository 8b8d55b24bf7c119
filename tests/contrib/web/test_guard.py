"""Who may look, and what each answer tells the browser."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from upshot import App
from upshot.errors import ConfigError
from upshot_contrib.web.guarding import Hosts
from upshot_contrib.web.tokens import Token, fresh_token, known_token

from .asking import Asker, opened, shown

TOKEN = "a-token-of-some-length"
PATHS = ["/", "/result", "/workers", "/events", "/static/page.css", "/nowhere"]


@pytest.mark.parametrize(
    ("header", "is_known"),
    [
        ("localhost", True),
        ("LOCALHOST:8020", True),
        ("127.0.0.1:8020", True),
        ("[::1]:8020", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example:8020", False),
        ("", False),
        ("[", False),
        ("[::1", False),
        ("192.168.0.7", False),
    ],
)
def test_a_host_that_was_not_told_is_not_known(header: str, is_known: bool) -> None:
    assert Hosts({"localhost", "127.0.0.1", "::1"}).has(header) is is_known


def test_where_it_listens_on_every_address_each_of_them_is_a_host_but_no_name() -> None:
    hosts = Hosts({"localhost"}, takes_addresses=True)

    assert hosts.has("192.168.0.7:8020")
    assert hosts.has("[2001:db8::1]:8020")
    assert not hosts.has("evil.example:8020")


@pytest.mark.parametrize("path", PATHS)
def test_a_name_that_leads_here_from_elsewhere_is_refused(app: App, path: str) -> None:
    answer = shown(app, path, headers={"host": "evil.example"})

    assert answer.status == 421
    assert "--allow-host NAME" in answer.text


@pytest.mark.parametrize("path", [*PATHS, "/login"])
@pytest.mark.parametrize("token", [None, TOKEN])
def test_each_answer_forbids_what_the_page_does_not_need(
    app: App, path: str, token: str | None
) -> None:
    headers = shown(app, path, token=token).headers

    assert headers["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == ("no-cache" if path.startswith("/static") else "no-store")


@pytest.mark.parametrize("path", ["/", "/result", "/workers", "/events", "/nowhere"])
def test_without_the_token_nothing_is_shown(app: App, path: str) -> None:
    answer = shown(app, path, token=TOKEN)

    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "asks for its token" in answer.text
    assert str(app.backend_url) not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": "Bearer"},
        {"cookie": f"upshot_web_page={TOKEN}"},
        {"cookie": "upshot_web_page="},
    ],
)
def test_a_token_that_is_wrong_opens_nothing(app: App, headers: dict[str, str]) -> None:
    assert shown(app, token=TOKEN, headers=headers).status == 401


def test_a_program_gives_the_token_as_bearer(app: App) -> None:
    answer = shown(app, token=TOKEN, headers={"authorization": f"Bearer {TOKEN}"})

    assert answer.status == 200


def test_a_token_may_have_letters_of_any_alphabet(app: App) -> None:
    token = "ключ-ключ-ключ-ü"

    assert shown(app, token=token, headers={"authorization": f"Bearer {token}"}).status == 200
    assert shown(app, token=token, headers={"authorization": f"Bearer {token}ü"}).status == 401
    assert shown(app, "/", {"token": token}, token=token).status == 303


async def entered(page: Asker, path: str, query: str) -> tuple[str, str]:
    answer = await page.ask(path, query)
    assert answer.status == 303
    return answer.headers["location"], answer.headers["set-cookie"]


@pytest.mark.parametrize(
    ("path", "query", "location"),
    [
        ("/", f"token={TOKEN}", "."),
        ("/", f"token={TOKEN}&state=FAILURE", ".?state=FAILURE"),
        ("/result", f"id=a%2Fb&token={TOKEN}", "result?id=a%2Fb"),
        ("/workers", f"token={TOKEN}", "workers"),
    ],
)
def test_a_link_with_the_token_leaves_a_cookie_and_an_address_without_it(
    app: App, path: str, query: str, location: str
) -> None:
    async def run() -> None:
        async with opened(app, token=TOKEN) as page:
            where, cookie = await entered(page, path, query)
            name, _, rest = cookie.partition("=")
            value, *options = rest.split("; ")
            known = await page.ask("/", headers={"cookie": f"{name}={value}"})

        assert where == location
        assert {"HttpOnly", "SameSite=lax"} <= set(options)
        assert TOKEN not in cookie
        assert known.status == 200

    asyncio.run(run())


def test_a_link_with_a_wrong_token_is_told_so(app: App) -> None:
    answer = shown(app, "/", "token=wrong", token=TOKEN)

    assert answer.status == 401
    assert "That is not it" in answer.text


@pytest.mark.parametrize(
    ("body", "status"),
    [(f"token={TOKEN}", 303), ("token=wrong", 401), ("", 401), (f"token={'x' * 5000}", 401)],
)
def test_the_form_takes_the_token_too(app: App, body: str, status: int) -> None:
    answer = shown(app, "/login", token=TOKEN, method="POST", body=body.encode())

    assert answer.status == status
    assert answer.headers.get("location") == ("." if status == 303 else None)


@pytest.mark.parametrize("name", ["..%2fpages.py", "../pages.py", "\0", "page.css\0", "x" * 5000])
def test_a_file_that_is_none_of_the_pages_is_not_found(app: App, name: str) -> None:
    assert shown(app, f"/static/{name}").status == 404


@pytest.mark.parametrize(
    ("path", "up", "home"),
    [("/nowhere", "", "."), ("/a/b", "../", "../"), ("/a/b/", "../../", "../../")],
)
def test_an_address_that_is_none_leads_back_from_any_depth(
    app: App, path: str, up: str, home: str
) -> None:
    for answer in (shown(app, path), shown(app, path, headers={"host": "evil.example"})):
        assert f'<link rel="stylesheet" href="{up}static/page.css">' in answer.html
        assert f'<a href="{home}">To the results</a>' in answer.html
    assert f'action="{up}login"' in shown(app, path, token=TOKEN).html


def test_who_goes_away_within_the_form_is_no_error(app: App) -> None:
    answer = shown(app, "/login", token=TOKEN, method="POST", body=b"token=", leaves=True)

    assert answer.status == 401


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
@pytest.mark.parametrize("path", ["/", "/result", "/workers", "/events"])
def test_nothing_can_be_changed(app: App, method: str, path: str) -> None:
    assert shown(app, path, method=method).status == 405


def test_a_secure_page_has_a_secure_cookie_and_pages_of_a_host_do_not_share_one() -> None:
    one, other = Token(TOKEN, "8020"), Token(TOKEN, "8021")

    assert one.cookie_name != other.cookie_name
    assert one.is_cookie(one.cookie)
    assert not one.is_it("ü" * 8)


def test_a_new_token_is_long_and_never_the_same() -> None:
    assert len(fresh_token()) >= 32
    assert fresh_token() != fresh_token()


def test_a_token_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")

    assert known_token(f"file:{tmp_path}/token") == TOKEN
    assert known_token(TOKEN) == TOKEN
    assert known_token(None) is None


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("short", "at least 16 printable characters"),
        ("file:token", "file:/absolute/path"),
        ("file:/nowhere/token", "cannot be read"),
    ],
)
def test_a_token_that_is_none_is_refused(setting: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        known_token(setting)
