"""The command `upshot web`: where it listens, who may look, and how it ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.endtoend.here import CommandHere
from upshot.errors import ConfigError
from upshot_contrib.web.serving import Address

from .serving import SECONDS, WebProcess

JOBS = """
    from upshot import App

    app = App("jobs")
"""
TOKEN = "a-token-of-some-length"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an app."""
    (tmp_path / "jobs.py").write_text(textwrap.dedent(JOBS))
    return tmp_path


@pytest.fixture
def upshot(folder: Path, capsys: pytest.CaptureFixture[str]) -> CommandHere:
    """Runs `upshot` there; what it refuses, it refuses before it serves."""
    own = {"UPSHOT_BROKER_URL": f"sqlite:///{folder}/queue.db", "UPSHOT_APP": "jobs"}
    return CommandHere(folder, own, capsys)


@pytest.fixture
def serve(folder: Path) -> Iterator[Callable[..., WebProcess]]:
    started: list[WebProcess] = []

    def start(*options: str, **environment: str) -> WebProcess:
        url = {"UPSHOT_BROKER_URL": f"sqlite:///{folder}/queue.db"}
        started.append(WebProcess(folder, *options, environment=url | environment))
        return started[-1]

    yield start
    for each in started:
        each.kill()


def get(link: str, **headers: str) -> int:
    try:
        request = urllib.request.Request(link, headers=headers)
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code


def test_it_listens_on_this_machine_and_says_where(serve: Callable[..., WebProcess]) -> None:
    web = serve()

    assert web.link.startswith("http://127.0.0.1:")
    assert get(web.link) == 200
    assert get(web.link, Host="evil.example") == 421
    assert "everybody on this machine can look at it" in web.output()


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_elsewhere_it_does_not_listen_without_a_token(upshot: CommandHere, host: str) -> None:
    done = upshot("web", "--host", host, "--port", "0")

    assert done.returncode == 2
    assert "give --new-token, or set web_token (UPSHOT_WEB_TOKEN)" in done.stderr
    assert done.stdout == ""


def test_with_a_new_token_it_does_and_prints_the_link_once(
    serve: Callable[..., WebProcess],
) -> None:
    web = serve("--host", "0.0.0.0", "--new-token", "--allow-host", "jobs.example")
    bare, _, token = web.link.partition("?token=")

    assert len(token) >= 32
    assert get(bare) == 401
    assert get(bare, Authorization=f"Bearer {token}") == 200
    assert get(bare, Authorization=f"Bearer {token}", Host="jobs.example") == 200
    assert get(bare, Host="evil.example") == 421
    assert get(f"{bare}?token={token}") in (200, 401)  # urllib keeps no cookies
    assert web.stop() == 130
    assert token not in web.output()


def test_a_token_that_is_set_is_not_printed(serve: Callable[..., WebProcess]) -> None:
    web = serve(UPSHOT_WEB_TOKEN=TOKEN)

    assert TOKEN not in web.said
    assert get(web.link) == 401
    assert get(web.link, Authorization=f"Bearer {TOKEN}") == 200
    assert web.stop() == 130
    assert TOKEN not in web.output()


def test_a_token_is_not_made_where_one_is_set(upshot: CommandHere) -> None:
    done = upshot("web", "--new-token", UPSHOT_WEB_TOKEN=TOKEN)

    assert done.returncode == 2
    assert "web_token is set already" in done.stderr
    assert TOKEN not in done.stderr


def test_the_token_is_a_secret_setting(upshot: CommandHere) -> None:
    done = upshot("config", UPSHOT_WEB_TOKEN=f"xyzzy:{TOKEN}")

    assert "web_token" in done.stdout
    assert "xyzzy" not in done.stdout
    assert TOKEN not in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_at_once_although_a_browser_listens(
    serve: Callable[..., WebProcess], number: int
) -> None:
    web = serve()
    with urllib.request.urlopen(f"{web.link}events?of=workers", timeout=SECONDS) as stream:
        assert stream.readline().startswith(b"retry:")
        code = web.stop(number)
        assert b"Traceback" not in stream.read()

    assert code == (130 if number == signal.SIGINT else -signal.SIGTERM)
    assert "Traceback" not in web.output()
    assert "Cancel" not in web.output()


def test_a_client_that_stalls_keeps_it_for_seconds_only(serve: Callable[..., WebProcess]) -> None:
    web = serve(UPSHOT_WEB_TOKEN=TOKEN)
    where = urllib.parse.urlsplit(web.link)
    with socket.create_connection((where.hostname or "", where.port or 0), SECONDS) as client:
        client.sendall(b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
        assert get(web.link) == 401  # by now it has begun to read that
        assert web.stop() == 130

    assert "Traceback" not in web.output()


def test_who_cannot_wait_for_its_end_is_told_nothing(serve: Callable[..., WebProcess]) -> None:
    web = serve()
    with urllib.request.urlopen(f"{web.link}events?of=workers", timeout=SECONDS) as stream:
        assert stream.readline().startswith(b"retry:")
        web.process.send_signal(signal.SIGINT)
        time.sleep(0.02)  # or the system would make one of both
        code = web.stop()

    assert code in (130, -signal.SIGINT)  # the second one may find it nearly ended
    assert "Traceback" not in web.output()


def test_a_port_that_is_taken_is_one_sentence(upshot: CommandHere) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = upshot("web", "--port", str(taken.getsockname()[1]))

    assert done.returncode == 2
    assert "--port 0 takes any that is free" in done.stderr


def test_a_host_that_is_none_is_one_sentence(upshot: CommandHere) -> None:
    done = upshot("web", "--host", "no.such.host.invalid")

    assert done.returncode == 2
    assert "nothing can listen on port 8020 of 'no.such.host.invalid'" in done.stderr


@pytest.mark.parametrize(
    "name",
    ["jobs.example:8020", "https://jobs.example", "*.example", "", "bücher.example", "[::1]"],
)
def test_a_name_that_no_browser_can_ask_for_is_refused(upshot: CommandHere, name: str) -> None:
    done = upshot("web", "--port", "0", "--allow-host", name)

    assert done.returncode == 2
    assert "without scheme and port, such as jobs.example.com" in done.stderr


@pytest.mark.parametrize(("host", "shown"), [("::1", "[::1]"), ("localhost", "127.0.0.1")])
def test_a_name_is_looked_up(host: str, shown: str) -> None:
    with Address.bound(host, 0) as address:
        address.require_token(None)
        hosts = address.hosts(["jobs.example"])
        link = address.link

    assert link.startswith(f"http://{shown}:") or host == "localhost"
    assert hosts.has(link.removeprefix("http://").removesuffix("/"))
    assert hosts.has("jobs.example")
    assert hosts.has(f"localhost:{8020}")


def test_an_address_of_a_network_needs_a_token() -> None:
    with Address.bound("0.0.0.0", 0) as address:
        with pytest.raises(ConfigError, match="can be reached from other machines"):
            address.require_token(None)
        address.require_token(TOKEN)


@pytest.mark.parametrize("missing", ["starlette", "uvicorn", "jinja2"])
def test_without_the_extra_it_says_how_to_get_it(folder: Path, missing: str) -> None:
    program = f"""
        import importlib.util, sys
        there = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *a: None if name == {missing!r} else there(name, *a)
        sys.argv = ["upshot", "-A", "jobs", "web"]
        from upshot.cli import main
        sys.exit(main())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert done.returncode == 2
    assert f'the page needs {missing}, which is not installed: pip install "upshot[web]"' in (
        done.stderr
    )


def test_the_command_loads_no_server_before_it_serves() -> None:
    program = (
        "import sys, upshot_contrib.web.command; "
        "print([n for n in ('starlette', 'uvicorn', 'jinja2', 'asyncio') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"
