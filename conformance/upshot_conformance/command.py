"""`upshot conformance`: the suite on a backend, from any folder and without a word about pytest."""

from __future__ import annotations

import importlib.util
import itertools

import click

from upshot import registry
from upshot.errors import DriverMissingError
from upshot.url import mask
from upshot_conformance.harness import HARNESSES

__all__ = ["conformance"]

_TAKING_A_WORD = ("-k", "-m", "-p", "--backend", "--result-backend")
"""Options that may be followed by a word that looks like a backend."""

_PYTEST = ("-p", "upshot_conformance.plugin", "-p", "no:cacheprovider")


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]}
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[BACKEND]... [OPTION]...")
def conformance(arguments: tuple[str, ...]) -> int:
    """Test whether a result backend keeps the contract.

    BACKEND is a URL, the scheme of a service that can be started here, such as `redis`, or `all`;
    without one `memory` is tested. Everything from the first option on is for pytest and for the
    suite: `--clause=ST`, `--certify`, `--conformance-report=DIR`, `--backend-list`, `-x`, …;
    `python -m pytest -p upshot_conformance.plugin --help` lists them all.

    Exit codes are pytest's: 0 the verdict is conformant or partial; 1 something is broken; 4 the
    backend cannot be tested.
    """
    if importlib.util.find_spec("pytest") is None or importlib.util.find_spec("hypothesis") is None:
        raise DriverMissingError(
            'the suite needs pytest and hypothesis: pip install "upshot[conformance]"'
        )
    import pytest  # not before it is sure to be there

    backends = list(itertools.takewhile(lambda word: not word.startswith("-"), arguments))
    chosen = [f"--backend={backend}" for backend in backends]
    rest = arguments[len(backends) :]
    _check_order(rest)
    return int(pytest.main([*_PYTEST, *chosen, *rest, "--pyargs", "upshot_conformance"]))


def _check_order(rest: tuple[str, ...]) -> None:
    """Refuse a backend behind an option: pytest would take it for a file, and test another."""
    groups = (registry.BACKENDS, HARNESSES)
    names = {"all", *(offer.name for group in groups for offer in registry.offers(group))}
    for before, word in itertools.pairwise(("", *rest)):
        is_backend = not word.startswith("-") and ("://" in word or word in names)
        if is_backend and before not in _TAKING_A_WORD:
            raise click.UsageError(
                f"{mask(word)} stands behind an option: write the backends first, as "
                f"`upshot conformance {mask(word)} {rest[0]}`"
            )
