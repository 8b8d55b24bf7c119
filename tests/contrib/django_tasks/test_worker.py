"""`manage.py upshot_worker` and programs that enqueue, each a process of its own, on services."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)  # a dozen processes, one after the other

SETTINGS = """
    import os

    SECRET_KEY = "x"
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": "db.sqlite3",
            "OPTIONS": {"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL"},
        }
    }
    INSTALLED_APPS = ["orders", "upshot_contrib.django"]
    USE_TZ = True
    TASKS = {
        "default": {
            "BACKEND": "upshot_contrib.django.tasks.UpshotBackend",
            "QUEUES": ["default", "mail"],
            "OPTIONS": {
                "broker": os.environ["BROKER"],
                "backend": os.environ["RESULTS"],
                "namespace": os.environ["NAMESPACE"],
                "worker_lease": 2,
            },
        }
    }
"""
TASKS = """
    import os
    import time

    from django.tasks import task


    @task
    def add(x, y):
        return x + y


    @task(queue_name="mail")
    async def greet(name):
        return f"hello {name}"


    @task
    def fail():
        raise ValueError("as asked")


    @task(takes_context=True)
    def slow(context, path):
        context.progress(1, 2)
        while not os.path.exists(path):
            time.sleep(0.01)
        return os.getpid()


    @task(takes_context=True)
    def second_time(context):
        if context.attempt == 1:
            os._exit(9)
        return context.task_result.worker_ids
"""
PROGRAM = """
    import asyncio, os, time
    import django

    django.setup()
    from django.tasks import default_task_backend, task_backends
    from django.tasks.exceptions import TaskResultDoesNotExist
    from orders.tasks import add, fail, greet, slow

    sum_ = add.enqueue(2, 3)
    assert sum_.wait(timeout=30).return_value == 5
    error = fail.enqueue().wait(timeout=30)
    assert (error.status, error.errors[0].exception_class) == ("FAILED", ValueError), error
    assert error.errors[0].traceback.endswith("ValueError: as asked\\n")


    async def greetings():
        results = [await greet.aenqueue(name) for name in "abc"]
        async with asyncio.timeout(30):
            return [(await each).return_value for each in results]


    assert asyncio.run(greetings()) == ["hello a", "hello b", "hello c"]
    slept = slow.enqueue("open")
    if default_task_backend.supports_get_result:
        found = add.get_result(sum_.id)
        assert found == sum_, (found, sum_)
        assert asyncio.run(add.aget_result(sum_.id)) == sum_
        while slept.progress is None:
            slept.refresh()
            time.sleep(0.01)
        assert slept.status == "RUNNING", slept
    else:
        try:
            add.get_result(sum_.id)
        except NotImplementedError as exc:
            print(exc)
    open("open", "w").close()
    assert slept.wait(timeout=30).return_value != os.getpid()
    assert slept.progress == {"current": 1, "total": 2}
    print("all is well")
"""
SETUP = "import django; django.setup()"
LOST = """
    import django

    django.setup()
    from orders.tasks import second_time

    result = second_time.enqueue().wait(timeout=60)
    assert (result.attempts, result.worker_ids) == (2, result.return_value), result
    assert result.worker_ids[0] == "" != result.worker_ids[1]
    print("again")
"""


class Project:
    """A project in a folder, and its processes."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = os.environ | environment
        self.environment |= {"DJANGO_SETTINGS_MODULE": "shop", "PYTHONPATH": str(folder)}
        for name, text in {
            "shop.py": SETTINGS,
            "orders/__init__.py": "",
            "orders/tasks.py": TASKS,
        }.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(textwrap.dedent(text))

    def ended(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python to its end."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def run(self, *arguments: str) -> str:
        """Run Python; return what it printed, unless it has failed."""
        done = self.ended(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr + self.log()
        return done.stdout

    def worker(self, *options: str) -> subprocess.Popen[bytes]:
        """Start a worker."""
        with (self.folder / "worker.log").open("w") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "django", "upshot_worker", "-c", "2", *options],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def log(self) -> str:
        """Return what the worker has said."""
        log = self.folder / "worker.log"
        return log.read_text() if log.exists() else ""


Make = Callable[[str, str], Project]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a project on a broker and a result backend."""

    def made(broker: str, results: str) -> Project:
        namespace = f"tasks-{os.urandom(4).hex()}"
        project = Project(tmp_path, {"BROKER": broker, "RESULTS": results, "NAMESPACE": namespace})
        project.run("-m", "django", "migrate", "-v", "0")
        return project

    return made


@pytest.fixture(params=["sqlite and django-db", "redis", "postgresql", "rabbitmq"])
def project(request: pytest.FixtureRequest, tmp_path: Path, make: Make) -> Project:
    """A project on each kind of service: one file, one server, and one that carries results."""
    if request.param == "sqlite and django-db":
        return make(f"sqlite:///{tmp_path}/broker.db", "django-db://")
    url = request.getfixturevalue(f"{request.param}_server").url
    return make(url, "rpc://" if request.param == "rabbitmq" else url)


@pytest.fixture
def served(project: Project) -> Iterator[Project]:
    """The project, with a worker."""
    process = project.worker()
    try:
        yield project
        process.terminate()
        assert process.wait(30) == 0, project.log()
    finally:
        process.kill()
        process.wait()


def test_tasks_run_in_a_worker(served: Project) -> None:
    said = served.run("-c", textwrap.dedent(PROGRAM)).splitlines()

    assert said[-1] == "all is well"
    if "rpc" in served.environment["RESULTS"]:
        assert "sends results to the process that enqueued the task" in said[0]
    log = served.log()
    assert "TASKS['default']" in log
    assert "default, mail" in log
    assert "orders.tasks.add" in log


def test_a_task_whose_worker_is_lost_runs_again(make: Make, tmp_path: Path) -> None:
    project = make(f"sqlite:///{tmp_path}/broker.db", "django-db://")
    process = project.worker()
    try:
        assert project.run("-c", textwrap.dedent(LOST)) == "again\n"
    finally:
        process.terminate()
        process.wait(30)


# -- several apps --------------------------------------------------------------------------------

OWN = """
    from upshot_contrib.django.app import app


    @app.task
    def own() -> str:
        return "own"
"""
SEND = """
    import django

    django.setup()
    from orders.tasks import add, own

    print(add.enqueue(1, 2).id, own.delay().id)
"""
LOOK = """
    import sys
    import django

    django.setup()
    from django.tasks import default_task_backend
    from orders.tasks import app

    one, other = sys.argv[1:]
    print(default_task_backend.get_result(one).status.value, app.AsyncResult(other).state)
"""


def test_a_project_with_several_apps_has_a_worker_for_each(make: Make, tmp_path: Path) -> None:
    project = make(f"sqlite:///{tmp_path}/broker.db", f"sqlite:///{tmp_path}/broker.db")
    with (tmp_path / "orders/tasks.py").open("a") as tasks:
        tasks.write(textwrap.dedent(OWN))
    with (tmp_path / "shop.py").open("a") as settings:
        settings.write(f'UPSHOT = {{"broker": "sqlite:///{tmp_path}/own.db"}}\n')

    ids = project.run("-c", textwrap.dedent(SEND)).split()
    unnamed = project.ended("-m", "django", "upshot_worker", "--burst")
    wrong = project.ended("-m", "django", "upshot_worker", "--burst", "--serve", "nobody")

    assert unnamed.returncode == wrong.returncode == 2
    assert "start a worker for each, with --serve and one of: UPSHOT, default" in unnamed.stderr
    assert "--serve is one of: UPSHOT, default; not 'nobody'" in wrong.stderr
    looks: list[str] = []
    for name in ("default", "UPSHOT"):
        project.run("-m", "django", "upshot_worker", "--burst", "-c", "1", "--serve", name)
        looks.append(project.run("-c", textwrap.dedent(LOOK), *ids).strip())
    assert looks == ["SUCCESSFUL QUEUED", "SUCCESSFUL SUCCESS"]


def test_prune_removes_expired_records_of_every_app(make: Make, tmp_path: Path) -> None:
    project = make(f"sqlite:///{tmp_path}/broker.db", f"sqlite:///{tmp_path}/broker.db")
    text = (tmp_path / "shop.py").read_text()
    (tmp_path / "shop.py").write_text(
        text.replace('"worker_lease": 2', '"worker_lease": 2, "result_expires": 0.01')
    )
    project.run("-c", f"{SETUP}; from orders.tasks import add; add.enqueue(1, 2)")
    project.run("-m", "django", "upshot_worker", "--burst", "-c", "1")

    assert project.run("-m", "django", "upshot_prune") == "removed: 2\n"
