"""Runs Celery's own integration tests on Celery's Redis backend and on ours, and compares.

python -m scripts.celery_suite                      t/integration/test_tasks.py, all backends
python -m scripts.celery_suite -k "fail or retry"   those tests only
python -m scripts.celery_suite --tests t/integration/test_canvas.py upshot+redis

The tests are in Celery's source distribution, which pip fetches into the folder of the services.
Exit code 1 if one fails on ours and passes on Celery's.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tarfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

from upshot.url import Url
from upshot_conformance.servers import MongoDBServer, PostgreSQLServer, RedisServer

__all__ = ["BACKENDS", "REFERENCE", "prepared", "run"]

ROOT: Final = Path(__file__).resolve().parents[1]
NEEDS: Final = "pydantic"  # of what Celery's tests use, all that is not here
REFERENCE: Final = "redis"
BACKENDS: Final = (REFERENCE, "upshot+redis", "upshot+postgresql")


def prepared() -> Path:
    """Return the folder of Celery's tests, those of the version that is installed.

    Beside it is what they need besides the packages that are here.
    """
    version = metadata.version("celery")
    services = Path(os.environ.get("UPSHOT_SERVICES_DIR") or ROOT / ".services")
    folder = services / f"celery-{version}"
    source = folder / f"celery-{version}"
    if not (folder / NEEDS).exists():
        _pip("install", NEEDS, "--target", str(folder / NEEDS))
    if not source.exists():
        what = ["--no-deps", "--no-binary", "celery", f"celery=={version}"]
        _pip("download", *what, "--dest", str(folder))
        with tarfile.open(folder / f"{source.name}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    return source


def _pip(command: str, *arguments: str) -> None:
    options = ("--quiet", "--disable-pip-version-check")
    subprocess.run([sys.executable, "-m", "pip", command, *options, *arguments], check=True)


@contextlib.contextmanager
def _urls(backend: str) -> Iterator[tuple[Url, str]]:
    """Start what a backend needs; yield where Redis is, and the backend's URL."""
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        service = backend.removeprefix("upshot+")
        if service == "redis":
            url = redis.url.removesuffix("/0") + "/2"
        elif service == "postgresql":
            url = stack.enter_context(PostgreSQLServer()).url
        else:
            url = stack.enter_context(MongoDBServer(replica_set=True)).url
        yield Url.parse(redis.url), f"upshot+{url}" if backend != REFERENCE else url


def run(
    backend: str, source: Path, tests: Sequence[str], options: Sequence[str] = ()
) -> dict[str, str]:
    """Run tests of Celery on one backend; return for each "passed", "failed" or "skipped"."""
    report = source.parent / f"{backend.replace('+', '-')}.xml"
    with _urls(backend) as (redis, url):
        host, port = redis.hosts[0]
        environment = {
            "C_FORCE_ROOT": "1",
            "WORKER_LOGLEVEL": "INFO",
            "REDIS_HOST": host,
            "REDIS_PORT": str(port),
            "TEST_BROKER": f"redis://{host}:{port}/1",
            "TEST_BACKEND": url,
            "PYTHONPATH": str(source.parent / NEEDS),
        }
        # Without reruns, which hide for minutes what does not work.
        plugins = ("celery.contrib.pytest", "no:cacheprovider", "no:rerunfailures")
        command = [sys.executable, "-m", "pytest", *(f"-p{each}" for each in plugins)]
        command += ["-q", "--timeout=90", f"--junitxml={report}"]
        subprocess.run([*command, *options, *tests], cwd=source, env=os.environ | environment)
    return _outcomes(report)


def _outcomes(report: Path) -> dict[str, str]:
    outcomes: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "passed"
        outcomes[name] = "skipped" if "skipped" in kinds else outcome
    return outcomes


def _table(found: Mapping[str, dict[str, str]], seconds: Mapping[str, float]) -> str:
    lines = ["| backend | passed | skipped | failed | seconds |", "| --- | --- | --- | --- | --- |"]
    for backend, outcomes in found.items():
        counts = Counter(outcomes.values())
        numbers = " | ".join(str(counts[kind]) for kind in ("passed", "skipped", "failed"))
        lines.append(f"| `{backend}://` | {numbers} | {seconds[backend]:.0f} |")
    return "\n".join(lines)


def main() -> int:
    """Run what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("backends", nargs="*", default=list(BACKENDS))
    parser.add_argument("--tests", nargs="*", default=["t/integration/test_tasks.py"])
    parser.add_argument("-k", dest="expression", help="as pytest's")
    chosen = parser.parse_args()
    source = prepared()
    found: dict[str, dict[str, str]] = {}
    seconds: dict[str, float] = {}
    for backend in chosen.backends:
        began = time.monotonic()
        options = ["-k", chosen.expression] if chosen.expression else []
        found[backend] = run(backend, source, chosen.tests, options)
        seconds[backend] = time.monotonic() - began
    sys.stdout.write(f"{_table(found, seconds)}\n")
    reference = found.get(REFERENCE, {})
    worse = [
        f"{backend}: {name}"
        for backend, outcomes in found.items()
        for name, outcome in outcomes.items()
        if outcome == "failed" and reference.get(name, "passed") != "failed"
    ]
    sys.stdout.writelines(f"worse than {REFERENCE}: {each}\n" for each in worse)
    return int(bool(worse))


if __name__ == "__main__":
    sys.exit(main())
