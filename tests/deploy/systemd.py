"""A real systemd, as process 1 of its own: it sees no other process, and boots nothing of ours.

It has its own namespaces of processes, mounts, cgroups and host names. `/etc`, `/srv`, `/run` and
`/var/lib` are its own on top of the machine's, so that a unit file can be used as it is. Only root
can make all that.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
import uuid
from pathlib import Path

from tests.deploy.lodging import MOUNTS, PROGRAM, PROGRAM_IN_PYTHON, environment

__all__ = ["Systemd"]

# Everything that systemd asks for before it starts a service; ours needs none of the machine's.
TARGETS = ("basic", "multi-user", "network-online", "shutdown", "sysinit")

BOOT = """
for folder in etc var/lib; do
    mkdir -p "/run/over/$folder/upper" "/run/over/$folder/work"
    mount -t overlay overlay "/$folder" -o \\
        "lowerdir=/$folder,upperdir=/run/over/$folder/upper,workdir=/run/over/$folder/work"
done
rm -rf /etc/systemd/system && mkdir -p /etc/systemd/system
mkdir -p "$FOLDER/log" /srv/log
mount --bind "$FOLDER/log" /srv/log
mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
hostname upshot-test
cp -r "$FOLDER/units" /run/units
mount --make-rshared /  # as credentials need it; the machine's own mounts are apart since above
exec env -i container=upshot-test PATH="$PATH" LANG=C.UTF-8 \\
    SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/units \\
    /lib/systemd/systemd --system --unit=multi-user.target --log-target=console --show-status=no
"""


UNIT_PATH = "/etc/systemd/system:/run/units"


class Systemd:
    """Starts a systemd; leaving the `with` block ends all that it has started.

    Args:
        folder: an empty one, for its units and logs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cgroup = _cgroups() / f"upshot-test-{uuid.uuid4().hex}"
        self._init = 0
        self.units = folder / "units"
        """The folder of unit files, read when it starts."""
        self.units.mkdir()
        (folder / "log").mkdir()
        for name in TARGETS:
            (self.units / f"{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")

    def __enter__(self) -> Systemd:
        assert os.geteuid() == 0, "only root can start a systemd of its own"
        self._cgroup.mkdir()
        join = f"echo $$ > {shlex.quote(str(self._cgroup))}/cgroup.procs"
        unshare = "exec unshare --cgroup --pid --mount --uts --ipc --fork --kill-child"
        with (self._folder / "systemd.log").open("w") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", f'{join}; {unshare} bash -c "$BOOT"'],
                env={**environment(self._folder), "BOOT": MOUNTS + BOOT},
                stdout=log,
                stderr=log,
            )
        try:
            self._init = self._first_child()
            self.run("sh", "-c", "until systemctl is-system-running --wait; do sleep 0.1; done")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._init and self._process.poll() is None:
            os.kill(self._init, signal.SIGKILL)  # with all that it has started
        self._process.wait(30)
        deadline = time.monotonic() + 30
        while self._cgroup.exists():  # not before its last process has gone
            with contextlib.suppress(OSError):
                for path in sorted(self._cgroup.glob("**/"), reverse=True):
                    path.rmdir()
            assert time.monotonic() < deadline, self.log()

    def _first_child(self) -> int:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        while True:
            assert self._process.poll() is None, self.log()
            with contextlib.suppress(FileNotFoundError, ValueError):
                pid = int(children.read_text())
                if Path(f"/proc/{pid}/comm").read_text() == "systemd\n":
                    return pid

    def install(self, app: str, module: str) -> None:
        """Put an app where the unit file looks for it: into `/srv/APP`, as the module `tasks`."""
        self.write(f"/srv/{app}/venv/bin/upshot", PROGRAM, mode="755")
        self.write(f"/srv/{app}/venv/bin/upshot.py", PROGRAM_IN_PYTHON)
        self.write(f"/srv/{app}/tasks.py", module)

    def write(self, path: str, text: str, mode: str = "644") -> None:
        """Write a file where systemd sees it."""
        script = f'umask 022; mkdir -p "$(dirname {path})"; cat > {path}; chmod {mode} {path}'
        self.run("sh", "-c", script, input=text)

    def run(self, *command: str, input: str = "", check: bool = True) -> str:  # noqa: A002
        """Run a command beside it, and return what that printed."""
        done = subprocess.run(
            ["nsenter", f"--target={self._init}", "--mount", "--pid", "--cgroup", *command],
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "SYSTEMD_UNIT_PATH": UNIT_PATH},
            input=input,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{command}\n{done.stdout}\n{self.log()}"
        return done.stdout

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit, as `systemctl show` has it."""
        return self.run("systemctl", "show", unit, "--property", name, "--value").strip()

    def log(self) -> str:
        """Return what it and its services have said."""
        paths = [self._folder / "systemd.log", *sorted((self._folder / "log").iterdir())]
        return "\n".join(path.read_text() for path in paths)


def _cgroups() -> Path:
    """Return where this process's own cgroup is, in the second version's hierarchy."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    where = next(each[1] for each in mounts if each[2] == "cgroup2")
    own = next(
        line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0:")
    )
    return Path(where + own.split(":", 2)[2])
