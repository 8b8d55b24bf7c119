"""`upshot results export`, `import` and `migrate`: records on their way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO, Any

import click

from upshot import archive
from upshot.archive import Migration, Restored
from upshot.cli.exits import FAILED, OK
from upshot.cli.parameters import json_option
from upshot.cli.printing import show_error, show_field, show_json, show_note
from upshot.cli.results.filters import filter_options
from upshot.cli.results.moments import EXPIRES
from upshot.cli.results.source import (
    Source,
    inherited_target,
    namespace_option,
    open_url,
    require_shared,
    source_option,
)
from upshot.cli.target import load
from upshot.envelope import AS_SET
from upshot.errors import DecodeError, UpshotError
from upshot.inventory import Filter
from upshot.reading import BATCH

__all__ = ["export", "import_", "migrate"]

_MOST_SHOWN = 20  # troubles of one kind of which each gets a line

_OF_RECORDS = (
    "namespace",
    "result_expires",
    "result_max_bytes",
    "signing_keys",
    "encryption_keys",
    "accept_unsealed",
)
"""Settings of an app without which its records are not found, not read, or not its own."""

_expires_option = click.option(
    "--expires",
    type=EXPIRES,
    default=AS_SET,
    help="Keep outcomes so long from now on, or none; by default as result_expires says.",
)


class _Troubles:
    """Tells of each trouble in a line, but of no more than `_MOST_SHOWN`."""

    def __init__(self) -> None:
        self.count = 0

    def tell(self, text: str) -> None:
        self.count += 1
        if self.count <= _MOST_SHOWN:
            show_error(text)

    def close(self) -> None:
        if self.count > _MOST_SHOWN:
            show_error(f"and {self.count - _MOST_SHOWN} more of the kind")


@click.command()
@source_option
@filter_options
@click.option("--ndjson", is_flag=True, help="One JSON object in a line: the only form so far.")
def export(source: Source, accepted: Filter, ndjson: bool) -> int:
    """Print records as lines of JSON, which `import` reads back to the last byte.

    It is what was stored: nothing is decoded, so nothing is masked. How long a record is still to
    be kept is not among it, as no service tells.

    Exit codes: 0 all was printed; 1 a record cannot be read, and is missing.
    """
    from upshot.cli.terminal import counting, is_live  # rich, for who has asked for help only

    troubles, count = _Troubles(), 0
    # A terminal shows the records themselves.
    with source.open() as app, counting("exporting", quiet=is_live()) as told:
        for record in app.results.scan(lambda error: troubles.tell(str(error))):
            if accepted.accepts(record):
                print(archive.to_line(record))  # noqa: T201 - the command's output
                count += 1
                if count % BATCH == 0:
                    told(count, "exported")
    troubles.close()
    show_note(f"exported {count} {'record' if count == 1 else 'records'}")
    return FAILED if troubles.count else OK


@click.command("import")
@source_option
@click.argument("file", type=click.File("rb"), default="-")
@_expires_option
@click.option("--keep-going", is_flag=True, help="Pass over lines that are no records.")
@json_option
def import_(
    source: Source, file: IO[bytes], expires: float | None, keep_going: bool, as_json: bool
) -> int:
    """Store the records that `export` printed: from FILE, or else from stdin.

    What is stored already stays as it is, so that it can be done again after an interruption.

    Exit codes: 0 all of them are there now; 1 a line is no record, or was refused.
    """
    from upshot.cli.terminal import counting  # as above

    troubles = _Troubles()
    with source.open() as app, counting("importing") as told:

        def refused(number: int, error: UpshotError) -> None:
            if keep_going:  # otherwise it is what is raised
                troubles.tell(f"line {number}: {error}")

        done = archive.restore(
            app.results,
            _lines(file, archive.longest_line(app.settings.result_max_bytes)),
            expires=expires,
            keep_going=keep_going,
            refused=refused,
            progress=lambda restored: told(restored.total, "imported"),
        )
    troubles.close()
    if as_json:
        show_json(_restored(done))
    else:
        for label, number in _restored(done).items():
            show_field(label, str(number))
    return FAILED if done.refused else OK


def _lines(file: IO[bytes], longest: int) -> Iterator[bytes | DecodeError]:
    """Yield the lines of a file; in the place of one that is longer than any record's, an error.

    Raises:
        click.ClickException: the file cannot be read.
    """
    try:
        while line := file.readline(longest + 1):
            if len(line) <= longest:
                yield line
                continue
            while line and not line.endswith(b"\n"):  # nothing of it is held
                line = file.readline(longest)
            yield DecodeError("it is longer than any record may be")
    except OSError as exc:
        raise click.ClickException(f"{file.name!r} cannot be read: {exc.strerror}") from exc


def _restored(done: Restored) -> dict[str, int]:
    return {
        "stored": done.stored,
        "present": done.present,
        "kept": done.kept,
        "refused": done.refused,
    }


@click.command()
@click.argument("from_url", metavar="FROM_URL")
@click.argument("to_url", metavar="TO_URL")
@namespace_option
@_expires_option
@json_option
def migrate(
    from_url: str, to_url: str, namespace: str | None, expires: float | None, as_json: bool
) -> int:
    """Copy all records of a namespace from one service to another, and compare both.

    Nothing is removed, and what is there already stays as it is: do it again after an interruption,
    and once more when the last worker stores to the new place. How long a record was still to be
    kept no service tells: it is kept for --expires from now on. With -A before `results`,
    namespace and keys are the app's.

    Exit codes: 0 the new place has all that the old one has; 1 something is missing there.
    """
    from upshot.cli.terminal import counting  # as above

    troubles, settings = _Troubles(), _settings_of_app()
    if namespace is not None:
        settings["namespace"] = namespace
    with (
        open_url(from_url, **settings) as source,
        open_url(to_url, **settings) as target,
    ):
        for app in (source, target):
            require_shared(app.results)
        where = f"{source.results.url}, namespace {source.results.namespace!r}"
        with counting("migrating") as told:
            done = archive.migrate(
                source.results,
                target.results,
                expires=expires,
                trouble=lambda task_id, why: troubles.tell(f"{task_id}: {why}"),
                progress=_shown_by(told),
            )
    troubles.close()
    if as_json:
        show_json(_migrated(done))
    else:
        for label, value in _migrated(done).items():
            if not isinstance(value, bool) and (value or label in ("stored", "verified")):
                show_field(label, str(value))
    if done.unfinished:
        show_note(
            f"{done.unfinished} of the tasks had not ended: their workers store to the old place "
            "until they are started with the new URL; migrate again after that"
        )
    if not (done.copied.total or done.unreadable):
        show_note(f"there are no records at {where}")
    if not done.is_complete:
        show_error("not all records are at the new place: migrate again, or see above")
    return OK if done.is_complete else FAILED


def _settings_of_app() -> dict[str, Any]:
    """Return what an app that was named says about its records; nothing if none was."""
    target = inherited_target()
    if target is None:
        return {}
    settings = load(target).settings
    return {name: getattr(settings, name) for name in _OF_RECORDS}


def _shown_by(told: Callable[[int, str], None]) -> Callable[[Migration], None]:
    def progress(done: Migration) -> None:
        compared = done.verified + done.ahead + done.missing + done.different
        if compared:
            told(compared, "compared")
        else:
            told(done.copied.total, "copied")

    return progress


def _migrated(done: Migration) -> dict[str, int | bool]:
    return {
        **_restored(done.copied),
        "unreadable": done.unreadable,
        "unfinished": done.unfinished,
        "verified": done.verified,
        "ahead": done.ahead,
        "missing": done.missing,
        "different": done.different,
        "complete": done.is_complete,
    }
