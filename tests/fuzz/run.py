"""Fuzzes every decoder with Atheris and prints what came of it: `python -m tests.fuzz.run`.

Each target has a process of its own, in which libFuzzer ends it for a crash, an input that takes
longer than 2 seconds, one allocation of 64 MiB or more, or more than 512 MiB in all. The input
that did it is printed.

    python -m tests.fuzz.run [RUNS [SEED]]             inputs in all, 1 000 000 by default
    python -m tests.fuzz.run TARGET RUNS SEED FOLDER   one target
"""

from __future__ import annotations

import importlib
import random
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

PROCESSES = 2
LIMITS = ["-timeout=2", "-malloc_limit_mb=64", "-rss_limit_mb=512", "-max_len=65536"]


def main() -> int:
    """Fuzz all targets, or the one that the arguments name; return the exit code."""
    if len(sys.argv) > 3:
        _, target, count, start, folder = sys.argv
        _fuzz(target, int(count), int(start), Path(folder))
        return 0
    from .targets import TARGETS

    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(1, 2**31)
    share = -(-runs // len(TARGETS))
    print(f"{len(TARGETS)} targets, {share} inputs each, seed {seed}", flush=True)
    print(
        f"{'target':<16} {'inputs':>8} {'seconds':>8} {'MiB':>5} {'edges':>6}  result", flush=True
    )
    with ThreadPoolExecutor(PROCESSES) as pool:
        counts = list(pool.map(partial(_run, runs=share, seed=seed), TARGETS))
    flawed = sum(count is None for count in counts)
    total = sum(count or 0 for count in counts)
    print(f"{total} inputs in all, {flawed} targets with a flaw")
    return 1 if flawed else 0


def _run(target: str, runs: int, seed: int) -> int | None:
    """Fuzz one target in a process; print its line. Returns the inputs, None for a flaw."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        arguments = [target, str(runs), str(seed), folder]
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.run", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            check=False,
        )  # fmt: skip
        found = [path for path in Path(folder).iterdir() if path.is_file()]
        inputs = [path.read_bytes() for path in found if path.name != "seeds"]
    done_runs = re.findall(r"^Done (\d+) runs", done.stdout, re.MULTILINE)
    reached = re.findall(r" cov: (\d+)", done.stdout)
    memory = re.findall(r"rss: (\d+)Mb", done.stdout)
    is_fine = done.returncode == 0 and bool(done_runs)
    seconds = time.monotonic() - began
    count = int(done_runs[-1]) if done_runs else 0
    verdict = "no flaw" if is_fine else "FLAW"
    print(f"{target:<16} {count:>8} {seconds:>8.1f} {memory[-1] if memory else '?':>5} "
          f"{reached[-1] if reached else '?':>6}  {verdict}",
          flush=True)  # fmt: skip
    if not is_fine:
        print(done.stdout[-4000:], *(f"  by {each[:500]!r}" for each in inputs), sep="\n")
    return count if is_fine else None


def _fuzz(name: str, runs: int, seed: int, folder: Path) -> None:
    """Fuzz one target in this process, which ends with it."""
    # Only where somebody fuzzes: it is no dependency of the tests, and has no type hints.
    engine: Any = importlib.import_module("atheris")
    # Nothing of upshot's may have been imported before: only what is imported here is observed.
    with engine.instrument_imports(include=["upshot", "upshot_backends"]):
        from .targets import TARGETS
    target = TARGETS[name]
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, data in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(data)
    options = [f"-runs={runs}", f"-seed={seed}", f"-artifact_prefix={folder}/", *LIMITS]
    engine.Setup([sys.argv[0], *options, str(corpus)], target.feed)
    engine.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
