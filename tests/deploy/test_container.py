"""The Containerfile of `examples/deploy/container`, step by step, without a container's image.

There is no registry here to get the base image from. What the file says of the process is done with
the same kernel's means: its entry point is process 1 of a namespace, in its folder, as its user,
with its environment, and is stopped by its signal.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import AS_IN_FRONT
from tests.deploy.lodging import MOUNTS, PROGRAM, PROGRAM_IN_PYTHON, ROOT, TASKS, environment
from upshot import App, State
from upshot.config import Configuration
from upshot_conformance.servers import RedisServer

FOLDER = ROOT / "examples" / "deploy" / "container"
STEPS = [
    (found[1], found[2])
    for found in re.finditer(
        r"^([A-Z]+) (.*)$", (FOLDER / "Containerfile").read_text(), re.MULTILINE
    )
]
MORE_TASKS = """


@app.task
def leave_an_orphan():
    "A process whose parent has gone before it: its end is process 1's to notice."
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        if (orphan := os.fork()) == 0:
            os._exit(0)
        os.write(writing, str(orphan).encode())
        os._exit(0)
    os.waitpid(child, 0)
    return int(os.read(reading, 16))


@app.task
def exists(pid):
    return os.path.exists(f"/proc/{pid}")


@app.task
def about():
    with open("/proc/1/comm") as file:
        return {"user": os.getuid(), "folder": os.getcwd(), "first": file.read().strip()}
"""


COPY = """
mkdir -p /run/bin "$1"
cp "$FOLDER/upshot" "$FOLDER/upshot.py" /run/bin
chmod 755 /run/bin/upshot
cp "$FOLDER/tasks.py" "$1"
cd "$1"
shift
exec "$@"
"""


def step(name: str) -> str:
    """Return what the one step of that name says."""
    (text,) = [text for each, text in STEPS if each == name]
    return text


def command(name: str) -> list[str]:
    """Return a command, which has to be a list: no shell runs it."""
    words: list[str] = json.loads(step(name).partition("CMD ")[2] or step(name))
    return words


class Container:
    """The entry point as process 1, which sees no process but its own."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        assert os.geteuid() == 0, "only root can make namespaces and change the user"
        image = dict(each.split("=") for each in step("ENV").split())
        variables = {**image, **settings, "PATH": f"/run/bin:{os.environ['PATH']}"}
        self._as_user = [
            "setpriv",
            *(f"--reuid={step('USER')}", f"--regid={step('USER')}", "--clear-groups"),
            *("--no-new-privs", "--bounding-set=-all"),
            *("env", "-i", *(f"{name}={text}" for name, text in variables.items())),
        ]
        self._log = folder / "log"
        (folder / "tasks.py").write_text(TASKS + MORE_TASKS)
        (folder / "upshot").write_text(PROGRAM)
        (folder / "upshot.py").write_text(PROGRAM_IN_PYTHON)
        entry = [*json.loads(step("ENTRYPOINT")), *json.loads(step("CMD"))]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    *("unshare", "--pid", "--mount", "--ipc", "--fork", "--kill-child"),
                    *("bash", "-c", MOUNTS + COPY, "bash", step("WORKDIR")),
                    *(*AS_IN_FRONT, *self._as_user, *entry),
                ],
                env=environment(folder),
                stdout=log,
                stderr=log,
            )
        self.first = self._first()

    def log(self) -> str:
        """Return what it has printed so far."""
        return self._log.read_text()

    def _first(self) -> int:
        """Return the id, as seen from here, of its process 1."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        while not (children := path.read_text().split()):
            assert self.process.poll() is None, self.log()
        return int(children[0])

    def check(self) -> int:
        """Return the exit code of the health check, run beside it."""
        done = subprocess.run(
            [
                *("nsenter", f"--target={self.first}", "--mount", "--pid"),
                *("sh", "-c", 'cd "$0" && exec "$@"', step("WORKDIR")),
                *(*self._as_user, *command("HEALTHCHECK")),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode in {0, 1}, done.stdout
        return done.returncode

    def stop(self) -> int:
        """Stop it as a container is stopped, and return its exit code."""
        os.kill(self.first, signal.Signals[step("STOPSIGNAL")])
        return self.process.wait(60)

    def kill(self) -> None:
        """End it with all its processes: when process 1 has ended, so have the others."""
        if self.process.poll() is None:
            os.kill(self.first, signal.SIGKILL)
            self.process.wait(30)


@pytest.fixture
def container(redis: RedisServer, tmp_path: Path) -> Iterator[Container]:
    """With an app in it, and two processes."""
    settings = {"UPSHOT_BROKER_URL": redis.url, "UPSHOT_WORKER_CONCURRENCY": "2"}
    container = Container(tmp_path, settings)
    yield container
    container.kill()


def until(holds: Callable[[], bool], container: Container) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, container.log()
        time.sleep(0.05)


def test_it_is_process_one_as_its_user_in_its_folder(container: Container, app: App) -> None:
    found = app.send_task("tasks.about").get(timeout=60)

    assert found == {"user": int(step("USER")), "folder": step("WORKDIR"), "first": "tini"}


def test_a_stop_waits_for_running_tasks_and_loses_none(container: Container, app: App) -> None:
    running = [app.send_task("tasks.nap", [2.0]) for _ in range(2)]
    until(lambda: all(each.state == State.STARTED for each in running), container)
    waiting = app.send_task("tasks.add", [1, 2])

    code = container.stop()
    assert code == 0, container.log()

    assert [each.get(timeout=0) for each in running] == [2.0, 2.0]
    assert waiting.state == State.QUEUED
    waiting.revoke()


def test_process_one_reaps_what_tasks_leave_behind(container: Container, app: App) -> None:
    orphan = app.send_task("tasks.leave_an_orphan").get(timeout=60)

    until(lambda: not app.send_task("tasks.exists", [orphan]).get(timeout=60), container)


def test_its_health_check_tells_whether_its_services_can_be_used(container: Container) -> None:
    until(lambda: "concurrency" in container.log(), container)

    assert container.check() == 0


def test_without_its_services_the_health_check_fails(tmp_path: Path) -> None:
    container = Container(tmp_path, {"UPSHOT_BROKER_URL": "redis://127.0.0.1:1/0"})
    try:
        until(lambda: "concurrency" in container.log(), container)
        assert container.check() == 1
    finally:
        container.kill()


def test_what_it_installs_is_what_debian_and_this_project_have() -> None:
    steps = [text for name, text in STEPS if name == "RUN"]
    (packages,) = [re.search(r"install .*--no-install-recommends ([\w ]+?) &&", text)
                   for text in steps if "apt-get" in text]  # fmt: skip
    (required,) = [shlex.split(text)[-1] for text in steps if text.startswith("pip install")]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]

    assert packages is not None
    assert packages[1].split() == ["tini"]
    assert required == "upshot[redis]"
    assert "redis" in extras
    assert any(f"useradd --uid {step('USER')} " in text for text in steps)


def test_the_composition_names_what_there_is() -> None:
    composed = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    worker, redis = composed["services"]["worker"], composed["services"]["redis"]
    grace = int(worker["stop_grace_period"].removesuffix("s"))

    assert (FOLDER / worker["build"]["dockerfile"]).exists()
    assert grace > App(broker="memory://").settings.worker_shutdown_timeout + 5
    assert {"user", "privileged"}.isdisjoint(worker)
    assert redis["command"][0] == "redis-server"
    assert (step("COPY"), worker["build"]["context"]) == (". .", ".")
    assert ".env" in (FOLDER / ".dockerignore").read_text().splitlines()
    Configuration({}, worker["environment"] | {"UPSHOT_BROKER_URL": "redis://:x@redis:6379/0"})
