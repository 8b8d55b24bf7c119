"""`upshot backends new`: write the package of a backend that is complete and passes the suite."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Final

import click

from upshot import registry
from upshot.cli.exits import OK
from upshot.cli.printing import show_lines
from upshot.errors import ConfigError

__all__ = ["new", "write_backend"]

_TEMPLATE: Final = resources.files("upshot.cli") / "backend_template"
_FILES: Final[Mapping[str, str]] = {
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    ".gitignore": "gitignore.txt",
    ".github/workflows/conformance.yml": "workflow.yml.txt",
    "<<module>>/__init__.py": "init.py.txt",
    "<<module>>/backend.py": "backend.py.txt",
    "<<module>>/harness.py": "harness.py.txt",
    "tests/test_<<module>>.py": "test.py.txt",
}
"""What is written, and which file of the template it is made from."""

_SHAPE: Final = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_LONGEST: Final = 32  # characters of a name; with it, every line of the template stays readable
_RESERVED: Final = frozenset({"all"})
"""What `--backend` of the conformance suite takes for something else."""


@click.command()
@click.argument("name")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def new(name: str, folder: Path) -> int:
    """Write a package with a backend for NAME:// URLs into DIR, which is new or empty.

    It keeps results in a folder of files and passes the conformance suite as it is. Make of it the
    backend of your service, and run the suite again after each step.
    """
    written = write_backend(name, folder)
    show_lines("\n".join(f"wrote {path}" for path in written))
    show_lines(
        f"""
Test it as it is:

  cd {shlex.quote(str(folder))}
  pip install --editable ".[test]"
  upshot conformance {name} --certify"""
    )
    return OK


def write_backend(name: str, folder: Path) -> list[Path]:
    """Write the package of a backend for `name://` URLs and return its files.

    Args:
        name: lower-case letters and digits, in words joined by hyphens.
        folder: where to; made if it is not there.

    Raises:
        ConfigError: the name cannot be used or is taken, or the folder has something in it or
            cannot be written. Nothing is ever overwritten.
    """
    words = _words(name)
    try:
        _check_empty(folder)
        return [_write(folder / _filled(path, words), source, words) for path, source in _files()]
    except OSError as exc:
        raise ConfigError(f"{exc.filename or folder} cannot be written: {exc.strerror}") from exc


def _files() -> Iterator[tuple[str, str]]:
    for path, source in _FILES.items():
        yield path, (_TEMPLATE / source).read_text(encoding="utf-8")


def _write(path: Path, source: str, words: Mapping[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8", newline="\n") as file:
        file.write(_filled(source, words))
    return path


def _words(name: str) -> Mapping[str, str]:
    """Return what stands for each `<<word>>` of the template.

    Raises:
        ConfigError: the name cannot be used, or is taken.
    """
    if not _SHAPE.fullmatch(name) or len(name) > _LONGEST or name in _RESERVED:
        raise ConfigError(
            f"{name!r} cannot be the name of a backend: it becomes a URL scheme and part of a "
            f"module's name, so write 1 to {_LONGEST} lower-case letters and digits, in words "
            "joined by hyphens, such as 'my-store'; 'all' means all backends"
        )
    for offer in registry.offers(registry.BACKENDS):
        if offer.name == name:
            raise ConfigError(f"{offer.distribution} offers {name}:// already: take another name")
    module = f"upshot_{name.replace('-', '_')}"
    if importlib.util.find_spec(module) is not None:
        raise ConfigError(f"a module {module} is installed already: take another name")
    return {
        "scheme": name,
        "module": module,
        "distribution": f"upshot-{name}",
        "class": "".join(word.capitalize() for word in name.split("-")),
    }


def _check_empty(folder: Path) -> None:
    """Refuse a folder that has something in it, or is no folder."""
    if folder.is_dir():
        if any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty, and nothing in it is overwritten")
    elif folder.exists() or folder.is_symlink():
        raise ConfigError(f"{folder} is no folder")


def _filled(text: str, words: Mapping[str, str]) -> str:
    return re.sub(r"<<(\w+)>>", lambda found: words[found[1]], text)
