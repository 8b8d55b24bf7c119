"""No private server outlives the process that started it, however that process ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from upshot import clock
from upshot_conformance.servers import RedisServer


def wait_until(condition: Callable[[], bool], within: float = 10.0) -> bool:
    """Look until the condition holds or the time is over, and say which."""
    deadline = clock.Deadline(within)
    while not condition():
        if deadline.expired:
            return False
        clock.sleep(0.01)
    return True


def process_exists(pid: int) -> bool:
    """True while a process of that number runs; a zombie has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def ping(server: RedisServer) -> bool:
    """True when the server answers."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(16) == b"+PONG\r\n"


def _run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Run a program that prints a server's pid and folder, in an interpreter of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    head = (
        "import os, signal, sys\n"
        "from upshot_conformance.servers import RedisServer\n"
        "server = RedisServer()\n"
        "server.start()\n"
        "print(server.pid, server.folder, flush=True)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", head + code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_server_dies_with_the_process_that_was_killed() -> None:
    ended = _run_python("os.kill(os.getpid(), signal.SIGKILL)")

    pid, folder = ended.stdout.split()
    assert ended.returncode == -signal.SIGKILL
    assert wait_until(lambda: not process_exists(int(pid)))
    Path(folder, "server.log").unlink()  # nobody was left to remove them
    Path(folder).rmdir()


def test_a_forgotten_server_is_stopped_when_the_interpreter_exits() -> None:
    ended = _run_python("sys.exit(0)")

    pid, folder = ended.stdout.split()
    assert (ended.returncode, ended.stderr) == (0, "")
    assert not process_exists(int(pid))
    assert not Path(folder).exists()


def test_a_forked_child_never_stops_its_parents_server() -> None:
    ended = _run_python(
        "child = os.fork()\n"
        "if child == 0: sys.exit(0)\n"
        "os.waitpid(child, 0)\n"
        "print(server.running, server.folder.exists())\n"
    )

    assert ended.stdout.splitlines()[1] == "True True"


def test_a_server_outlives_the_thread_that_started_it() -> None:
    server = RedisServer()
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join()
    try:
        assert not wait_until(lambda: not server.running, within=0.3)
        assert ping(server)
    finally:
        server.stop()
