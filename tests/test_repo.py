"""Rules that hold for every file of the repository."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import django
import pytest

from tests.contrib.django import project
from upshot.settings import SETTINGS

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "upshot": ROOT / "core",
    "upshot_backends": ROOT / "backends",
    "upshot_contrib": ROOT / "contrib",
    "upshot_conformance": ROOT / "conformance",
}
LONGEST_SOURCE = 400
LONGEST_TEST = 600
SUITE = re.compile(r"upshot_conformance\.suite\.test_\w+")
BANNED = {"utils", "util", "helpers", "helper", "common", "misc"}


@cache
def repository_files() -> tuple[Path, ...]:
    """Every file that is, or could be, committed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    paths = (ROOT / name for name in listed.split("\0") if name)
    return tuple(sorted(path for path in paths if path.is_file()))


def sources() -> Iterator[tuple[str, Path]]:
    """Every module of the four packages, with its file."""
    for package, root in PACKAGES.items():
        for path in sorted((root / package).rglob("*.py")):
            yield ".".join(path.relative_to(root).with_suffix("").parts), path


def is_public(module: str) -> bool:
    return not any(part.startswith("_") for part in module.removesuffix(".__init__").split("."))


def defined_names(tree: ast.Module) -> Iterator[str]:
    """The public classes, functions and constants that a module makes at its top level."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign) and not is_type_variable(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (each.id for each in targets if isinstance(each, ast.Name))


def is_type_variable(value: ast.expr | None) -> bool:
    return (
        isinstance(value, ast.Call)
        and isinstance(value.func, ast.Name)
        and value.func.id in {"TypeVar", "ParamSpec"}
    )


def rank(name: str) -> tuple[int, str]:
    """Constants first, then classes, then functions, as ruff sorts them."""
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2), name


PUBLIC = [
    pytest.param(module.removesuffix(".__init__"), path, id=module)
    for module, path in sources()
    if is_public(module)
    and not SUITE.fullmatch(module)
    # The others need Django 6, and its tests run this one.
    and (django.VERSION >= (6,) or not module.startswith("upshot_contrib.django.tasks"))
]


@pytest.mark.parametrize(("module", "path"), PUBLIC)
def test_all_is_exactly_what_a_public_module_defines(module: str, path: Path) -> None:
    if module.startswith("upshot_contrib.django"):
        project.set_up()
    loaded = importlib.import_module(module)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tools = re.compile(r"_.*|pytest_\w+|logger|TYPE_CHECKING")  # which others find by their name

    defined = {name for name in defined_names(tree) if not tools.fullmatch(name)}
    exported: list[str] = getattr(loaded, "__all__", [])

    assert defined <= set(exported)
    assert exported == sorted(set(exported), key=rank)
    assert [name for name in exported if not hasattr(loaded, name)] == []


@pytest.mark.parametrize(("module", "path"), list(sources()))
def test_every_module_says_what_it_is_for(module: str, path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))

    assert docstring, f"{module} has no docstring"
    assert docstring.partition("\n")[0].strip()


def test_no_module_is_too_long_to_be_read_at_once() -> None:
    lengths = {
        path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines())
        for path in repository_files()
        if path.suffix == ".py"
    }

    too_long = {
        str(path): length
        for path, length in lengths.items()
        if length > (LONGEST_TEST if is_test(path) else LONGEST_SOURCE)
    }

    assert len(lengths) > 50
    assert too_long == {}


def is_test(path: Path) -> bool:
    return path.parts[0] == "tests" or path.name.startswith("test_")


def test_no_name_says_nothing() -> None:
    named = {
        str(path.relative_to(ROOT))
        for path in repository_files()
        if BANNED.intersection(path.relative_to(ROOT).with_suffix("").parts)
    }

    assert named == set()


def test_nothing_is_put_off() -> None:
    notes = re.compile(r"\b(TO[D]O|FIX[M]E|XX[X])\b")

    assert lines_with(notes) == []


def test_no_file_names_the_machine_it_was_written_on() -> None:
    machine = re.compile(r"(?<![\w.])/(work|root|Users|home/[a-z]+|tmp/scratch)/\w")

    assert lines_with(machine) == []


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    found: list[str] = []
    for path in repository_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # not text
        for number, line in enumerate(text.splitlines(), 1):
            if pattern.search(line) or str(ROOT) in line:
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    return found


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_every_setting_is_explained_in_a_sentence(name: str) -> None:
    doc = SETTINGS[name].doc

    assert re.fullmatch(r"[A-Z].{10,}\.", doc)


def test_every_source_root_has_a_readme_that_names_its_package() -> None:
    for package, root in PACKAGES.items():
        text = (root / "README.md").read_text(encoding="utf-8")

        assert text.startswith(f"# {root.name}\n")
        assert f"`{package}`" in text


def test_the_map_of_the_core_names_every_module() -> None:
    text = (ROOT / "core" / "README.md").read_text(encoding="utf-8")
    listed = {name.rstrip("/") for name in re.findall(r"`(\w+/?)`", text.partition("| ---")[2])}
    folder = ROOT / "core" / "upshot"

    modules = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    packages = {path.parent.name for path in folder.glob("*/__init__.py")}

    assert listed - {"fork", "upshot"} == modules | packages


def ignored(*names: str) -> list[str]:
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.split()


def test_git_ignores_what_is_made_and_nothing_that_is_written() -> None:
    made = [".venv/bin/python", ".upshot/upshot.db", ".services/bin/x", "build/x", "dist/x.whl"]
    made += ["core/upshot/__pycache__/app.pyc", ".mypy_cache/x", ".pytest_cache/x", ".ruff_cache/x"]
    made += ["examples/.upshot/upshot.db", ".hypothesis/x"]
    committed = [str(path.relative_to(ROOT)) for path in repository_files()]

    assert ignored(*made) == made
    assert ignored(*committed) == []
