"""Records what commands show on a terminal: a screen of text and colours, again and again."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyte

__all__ = ["Frame", "Run", "Screen", "record"]

_PROMPT: Final = "\x1b[32m$\x1b[0m "
_TYPED: Final = 0.045  # seconds for a character: a quick typist
_READ: Final = 1.5  # seconds to read what a command has printed
_IDLE: Final = 1.0  # seconds of silence that are shown of a longer one
_APART: Final = 0.1  # seconds between two pictures: more nobody sees

Run = tuple[str, str, str, bool]
"""Characters beside each other that look alike: text, colour, colour behind them, bold."""

Screen = tuple[tuple[Run, ...], ...]
"""The lines of a screen; of each, what is not empty at its end."""


@dataclass(frozen=True)
class Frame:
    """A picture.

    Attributes:
        at: seconds since the beginning.
        screen: what is seen from then on.
    """

    at: float
    screen: Screen


class _Recorder:
    """A terminal that remembers.

    Args:
        columns, lines: its size.
    """

    def __init__(self, columns: int, lines: int) -> None:
        self._screen: Any = pyte.Screen(columns, lines)
        self._stream: Any = pyte.ByteStream(self._screen)
        self.now = 0.0
        self.frames: list[Frame] = []

    def type(self, text: str) -> None:
        """Show somebody typing."""
        self._stream.feed(_PROMPT.encode())
        self.look()
        for character in text:
            self._stream.feed(character.encode())
            self.now += _TYPED
            self.look()
        self._stream.feed(b"\r\n")
        self.look(at_once=True)

    def print(self, data: bytes, seconds: float) -> None:
        """Show what came after so many seconds."""
        passed = min(seconds, _IDLE)
        if passed >= _APART:  # what was there meanwhile may have come too soon for a picture
            self.now += _APART
            self.look()
            passed -= _APART
        self.now += passed
        self._stream.feed(data)
        self.look()

    def rest(self) -> None:
        """Leave time for reading."""
        self.look(at_once=True)
        self.now += _READ

    def look(self, *, at_once: bool = False) -> None:
        """Take a picture, if there is something new and the last one is long enough ago."""
        screen = self._seen()
        if self.frames and self.frames[-1].screen == screen:
            return
        if self.frames and self.now - self.frames[-1].at < _APART:
            if not at_once:
                return
            self.frames.pop()
        self.frames.append(Frame(self.now, screen))

    def _seen(self) -> Screen:
        buffer = self._screen.buffer
        return tuple(
            _runs([buffer[line][column] for column in range(self._screen.columns)])
            for line in range(self._screen.lines)
        )


def _runs(characters: Sequence[Any]) -> tuple[Run, ...]:
    runs: list[list[Any]] = []
    for each in characters:
        colours = (each.bg, each.fg) if each.reverse else (each.fg, each.bg)
        if runs and runs[-1][1:] == [*colours, each.bold]:
            runs[-1][0] += each.data
        else:
            runs.append([each.data, *colours, each.bold])
    while runs and not runs[-1][0].strip() and runs[-1][2] == "default":
        runs.pop()
    if runs and runs[-1][2] == "default":
        runs[-1][0] = runs[-1][0].rstrip()
    return tuple((text, fg, bg, bold) for text, fg, bg, bold in runs)


def record(
    commands: Sequence[tuple[str, Sequence[str]]],
    folder: Path,
    environment: Mapping[str, str],
    *,
    columns: int,
    lines: int,
) -> list[Frame]:
    """Run commands one after the other, and return what somebody sees who types them.

    Args:
        commands: what is typed, and the program with its arguments that runs.
        folder: where they run.
        environment: variables that they get, and no others.
        columns, lines: size of the terminal; what scrolls off the top is not seen any more.

    Returns:
        Pictures at least 0.1 s apart, the first at 0.
    """
    recorder = _Recorder(columns, lines)
    for typed, arguments in commands:
        recorder.type(typed)
        _run(recorder, arguments, folder, environment, columns, lines)
        recorder.rest()
    return recorder.frames


def _run(
    recorder: _Recorder,
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    columns: int,
    lines: int,
) -> None:
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        process = subprocess.Popen(  # noqa: S603 - what a scene says
            arguments, cwd=folder, env=dict(environment), stdin=theirs, stdout=theirs, stderr=theirs
        )
        before = time.monotonic()
        ended = False
        while not ended:
            ended = process.poll() is not None  # what it wrote before is read once more
            while select.select([ours], [], [], 0.05)[0]:
                data = os.read(ours, 65536)
                now = time.monotonic()
                recorder.print(data, now - before)
                before = now
    finally:
        os.close(ours)
        os.close(theirs)
