"""What the command prints: JSON for programs; text, fields and tables for people.

Whatever a task, a queue or a service said is shown as plain text: no markup in it is obeyed, and
control characters are escaped, so that it cannot drive the terminal. Errors and notes repeat what
was typed, and a URL may have been typed where none belongs: their passwords are hidden.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, Final, cast

from upshot.masking import mask
from upshot.record import printable

__all__ = [
    "as_text",
    "clear_screen",
    "flush_output",
    "give_up_output",
    "is_plain",
    "json_or_repr",
    "safe",
    "show_error",
    "show_field",
    "show_json",
    "show_json_line",
    "show_lines",
    "show_marked",
    "show_note",
    "show_parts",
    "show_styled_table",
    "show_table",
    "show_traceback",
    "show_word",
    "shown",
    "use_plain_streams",
]

_LAST_STANDARD: Final = 2  # the number of stderr
_UNPRINTABLE: Final = re.compile(r"[^\n\x20-\x7e]")
_SCALARS: Final = (str, bool, type(None))
_LONGEST_INT: Final = 2048  # bits, 617 digits; Python may be set to write no more than 640


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()  # None if it was closed before we began


def _write(*parts: tuple[str, str], stderr: bool = False) -> None:
    from upshot.cli.terminal import write  # rich would stay in the memory of a worker, unused

    write(parts, stderr=stderr)


def use_plain_streams() -> None:
    """Let stdout and stderr escape what their encoding lacks, instead of raising for it.

    Standard streams that are closed lead nowhere from now on: their numbers would go to the first
    connections that are opened, and whoever writes to stderr by its number would write into one.
    One that is read has come to its end.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= _LAST_STANDARD:
        os.set_inheritable(number, True)
    os.close(number)
    if cast("object", sys.stdin) is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush_output() -> None:
    """See to it that what was printed has left this process.

    Raises:
        OSError: it cannot be written.
    """
    if sys.stdout is not None:
        sys.stdout.flush()


def give_up_output() -> None:
    """Leave stdout alone: what it did not take lies there still, and Python would try again."""
    with contextlib.suppress(OSError):
        sys.stdout.close()


def safe(message: str) -> str:
    """Return a message in one line of plain text, without the passwords of URLs."""
    return mask(printable(message))


def show_error(message: str) -> None:
    """Write one line about what went wrong to stderr."""
    _write(("Error: ", "bold red"), (safe(message), ""), stderr=True)


def show_note(message: str) -> None:
    """Write one line to stderr that is no error, and not what was asked for either."""
    _write((safe(message), "yellow"), stderr=True)


def show_lines(text: str, *, stderr: bool = False, indent: str = "") -> None:
    """Write a text of several lines, such as a traceback."""
    lines = [indent + printable(line) for line in text.rstrip("\n").split("\n")]
    _write(("\n".join(lines), ""), stderr=stderr)


def show_field(label: str, text: str, *, width: int = 12) -> None:
    """Write one `label  text` line; the label is padded to `width`."""
    _write((label.ljust(width), "bold"), (f" {printable(text)}", ""))


def show_marked(mark: str, style: str, text: str) -> None:
    """Write one line that begins with a mark in a style of rich's."""
    _write((safe(mark), style), (safe(text), ""))


def clear_screen() -> None:
    """Begin at the top of an empty screen, if stdout is a terminal."""
    if _is_terminal():
        print("\x1b[H\x1b[2J", end="")  # noqa: T201 - the command's output


def show_table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, stacks: bool = False
) -> None:
    """Write a table; no cell is cut, however long. `stacks`: see `terminal.write_table`."""
    from upshot.cli.terminal import write_table  # as above

    write_table(title, header, [list(map(printable, row)) for row in rows], stacks=stacks)


def show_styled_table(header: Sequence[str], rows: Sequence[Sequence[tuple[str, str]]]) -> None:
    """Write a table of texts with the names of their styles; no cell is cut, however long."""
    from upshot.cli.terminal import write_table  # as above

    write_table("", header, [[(safe(text), style) for text, style in row] for row in rows])


def show_parts(*parts: tuple[str, str]) -> None:
    """Write one line of texts, each with the name of its style ("" for none)."""
    _write(*((safe(text), style) for text, style in parts))


def show_traceback(text: str, *, indent: str = "") -> None:
    """Write a Python traceback, in colours where there are any."""
    from upshot.cli.terminal import write_traceback  # as above

    lines = map(safe, text.rstrip("\n").split("\n"))
    write_traceback("\n".join(lines), indent=indent)


def show_word(text: str) -> None:
    """Write a line of text without control characters: escaped for eyes, as it is for a pipe.

    A program that is given an id is to ask for the same one.
    """
    print(printable(text) if _is_terminal() else text)  # noqa: T201 - the command's output


def show_json_line(value: object) -> None:
    """Write plain data as JSON in one line, at once: one of many, and somebody may be waiting."""
    print(_to_json(value), flush=True)  # noqa: T201 - the command's output


def show_json(value: object) -> None:
    """Write plain data as JSON, indented; with the same escapes everywhere."""
    print(_to_json(value, indent=2))  # noqa: T201 - the command's output


def as_text(value: object) -> str:
    """Return a value in one line: as JSON if that says it all, otherwise its `repr()`."""
    return _to_json(value) if is_plain(value) else printable(shown(value))


def shown(value: object) -> str:
    """Return the `repr()` of a value, or say why it has none.

    Python writes no integer of more than 4300 digits: it would take too long.
    """
    try:
        return repr(value)
    except ValueError as exc:
        return f"<{type(value).__name__} that cannot be shown: {exc}>"


def json_or_repr(value: object) -> object:
    """Return plain data as it is, and the `repr()` of anything else."""
    return value if is_plain(value) else shown(value)


def is_plain(value: object) -> bool:
    """Tell whether JSON says all there is about a value: no tuple, date, NaN or other class.

    Nor an integer of more than 617 digits.
    """
    waiting: list[Any] = [value]
    while waiting:
        one = waiting.pop()
        kind = cast("type[object]", type(one))
        if kind is list:
            waiting += one
        elif kind is dict:
            members: dict[Any, Any] = one
            if not all(type(key) is str for key in members):
                return False
            waiting += members.values()
        elif kind is float:
            if not math.isfinite(one):
                return False
        elif kind is int:
            if one.bit_length() > _LONGEST_INT:
                return False
        elif kind not in _SCALARS:
            return False
    return True


def _to_json(value: object, indent: int | None = None) -> str:
    text = json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)
    # Outside of strings JSON is ASCII, so only characters inside a string are replaced.
    return _UNPRINTABLE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    character = found.group()
    return character if character.isprintable() else json.dumps(character).strip('"')
