"""Draws a recorded terminal as a picture that moves: SVG alone, without a script or a font."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from scripts.cast_recording import Frame, Run, Screen

__all__ = ["picture"]

_WIDE: Final = 8.43  # pixels of a character of 14 pixels: 0.602 of its size, as in most fonts
_HIGH: Final = 19  # pixels of a line
_EDGE: Final = 14  # pixels around the text
_BAR: Final = 30  # pixels above it
_LAST: Final = 4.0  # seconds for which the last picture stays before all begins again
_INK: Final = "#d5dae3"
_PAPER: Final = "#12161e"

_COLOURS: Final = {
    "black": "#3a4252",
    "red": "#ff7b85",
    "green": "#7ee2a0",
    "brown": "#f5cf6b",  # as terminals call yellow
    "blue": "#7fb0ff",
    "magenta": "#d8a3ff",
    "cyan": "#6fd9e4",
    "white": "#f2f4f8",
    "brightblack": "#8b95a8",
    "brightred": "#ff9aa2",
    "brightgreen": "#9cf0b8",
    "brightbrown": "#ffe08a",
    "brightblue": "#a3c7ff",
    "brightmagenta": "#e6c2ff",
    "brightcyan": "#97ecf4",
    "brightwhite": "#ffffff",
}

_STYLE: Final = f"""\
text {{ font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  white-space: pre; fill: {_INK}; dominant-baseline: central; }}
.b {{ font-weight: bold; }}
.f {{ visibility: hidden; }}
"""


def picture(frames: Sequence[Frame], *, title: str, columns: int, lines: int) -> str:
    """Return an SVG that shows the frames one after the other, again and again.

    Whoever has asked for less motion sees the last one, and nothing moves.

    Args:
        frames: at least one, in order.
        title: what can be seen, for those who cannot see it, and above the terminal.
        columns, lines: size of the terminal.
    """
    width = columns * _WIDE + 2 * _EDGE
    height = lines * _HIGH + _BAR + 1.5 * _EDGE
    seconds = frames[-1].at + _LAST
    drawn: dict[tuple[Run, ...], str] = {}
    shown: list[str] = []
    style = [_STYLE]
    for number, frame in enumerate(frames):
        begins = frame.at / seconds * 100
        ends = frames[number + 1].at / seconds * 100 if number + 1 < len(frames) else 100.0
        style.append(_visible(number, begins, ends))
        style.append(f".f{number} {{ animation: k{number} {seconds:.2f}s step-end infinite; }}\n")
        shown.append(f'<g class="f f{number}">{_screen(frame.screen, drawn)}</g>\n')
    style.append(
        "@media (prefers-reduced-motion: reduce) { .f { animation: none; } "
        f".f{len(frames) - 1} {{ visibility: visible; }} }}\n"
    )
    texts = "".join(f'<g id="{name}">{_line(line)}</g>\n' for line, name in drawn.items())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}"'
        f' width="{width:.0f}" height="{height:.0f}" role="img">\n'
        f"<title>{escape(title)}</title>\n<style>\n{''.join(style)}</style>\n"
        f"<defs>\n{texts}</defs>\n"
        f'<rect width="100%" height="100%" rx="8" fill="{_PAPER}"/>\n'
        + "".join(
            f'<circle cx="{18 + 18 * place}" cy="16" r="5" fill="{colour}"/>'
            for place, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
        )
        + f'\n<text x="{width / 2:.0f}" y="16" text-anchor="middle" style="fill: #8b95a8">'
        f"{escape(title)}</text>\n"
        f'<g transform="translate({_EDGE} {_BAR + _HIGH / 2})">\n{"".join(shown)}</g>\n</svg>\n'
    )


def _visible(number: int, begins: float, ends: float) -> str:
    until = "" if ends >= 100 else f" {ends:.3f}% {{ visibility: hidden; }}"
    hidden = "0% { visibility: hidden; } " if begins > 0 else ""
    return f"@keyframes k{number} {{ {hidden}{begins:.3f}% {{ visibility: visible; }}{until} }}\n"


def _screen(screen: Screen, drawn: dict[tuple[Run, ...], str]) -> str:
    """Return its lines, each by the name of what is drawn once for all frames."""
    found: list[str] = []
    for place, line in enumerate(screen):
        if line:
            name = drawn.setdefault(line, f"l{len(drawn)}")
            found.append(f'<use href="#{name}" y="{place * _HIGH}"/>')
    return "".join(found)


def _line(line: tuple[Run, ...]) -> str:
    """Return a line, each run at its own column: fonts differ in how wide they are."""
    found: list[str] = []
    column = 0
    for text, colour, behind, bold in line:
        left, across = column * _WIDE, len(text) * _WIDE
        column += len(text)
        if behind != "default":
            found.append(
                f'<rect x="{left:.2f}" y="{-_HIGH / 2}" width="{across:.2f}" height="{_HIGH}"'
                f' fill="{_colour(behind, _PAPER)}"/>'
            )
        if text.strip():
            fill = "" if colour == "default" else f' style="fill: {_colour(colour, _INK)}"'
            found.append(
                f'<text x="{left:.2f}" y="0" textLength="{across:.2f}"'
                f"{' class=' + chr(34) + 'b' + chr(34) if bold else ''}{fill}>{escape(text)}</text>"
            )
    return "".join(found)


def _colour(name: str, default: str) -> str:
    """Return a colour: one of the sixteen by its name, or any other by its six digits."""
    if name == "default":
        return default
    return _COLOURS.get(name, f"#{name}")
