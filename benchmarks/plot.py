"""The plot of a run: how many times the bare driver's each contender's time is, as an SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final
from xml.sax.saxutils import escape

from benchmarks.figures import Figure, Ratio, number

__all__ = ["SHOWN", "plot"]

SHOWN: Final = (
    ("store small", "store"),
    ("fetch small", "fetch"),
    ("fetch 1000 at once", "fetch 1 000"),
    ("one waiter, from the call that stores", "wake"),
)
"""Which figures, and how they are called."""

_BARS: Final = (("upshot", "ours"), ("celery", "theirs"))
_FLOOR: Final = "raw"
_LEFT, _RIGHT, _TOP, _WIDE = 170, 60, 62, 560
_BAR, _GAP, _BETWEEN = 9, 2, 8

# A background of its own, because a page cannot say to a picture whether it is dark.
_STYLE: Final = """\
<style>
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.small { font-size: 10px }
.card { fill: #ffffff; stroke: #d1d9e0 }
.line { stroke: #d1d9e0 }
.one { stroke: #1f2328; stroke-width: 1.5 }
.spread { stroke: #1f2328; stroke-opacity: 0.6 }
.ours { fill: #0072b2 }
.theirs { fill: #e69f00 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .card { fill: #161b22; stroke: #3d444d }
  .line { stroke: #3d444d }
  .one, .spread { stroke: #e6edf3 }
  .ours { fill: #56b4e9 }
}
</style>"""


def plot(figures: Iterable[Figure]) -> str:
    """Return an SVG with a bar for each contender and figure that were measured beside `raw`.

    The scale is logarithmic: a bar to the left of 1 took less time than the driver by itself, and
    a thin line shows the quartiles. It stands on a background of its own, dark if whoever looks
    prefers that.
    """
    rows = _rows(figures)
    ends = [each for _, bars in rows for _, ratio in bars for each in ratio if each > 0]
    low = math.floor(math.log10(min([*ends, 0.5])))
    high = math.ceil(math.log10(max([*ends, 2.0])))

    def at(value: float) -> float:
        share = (math.log10(max(value, 10**low)) - low) / (high - low)
        return round(_LEFT + share * _WIDE, 1)

    step = 2 * _BAR + _GAP + _BETWEEN
    bottom = _TOP + len(rows) * step
    width, height = _LEFT + _WIDE + _RIGHT, bottom + 34
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        "<title>Time of each call, as a multiple of the driver's by itself</title>",
        _STYLE,
        f'<rect class="card" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="6"/>',
        *_legend(),
    ]
    for power in range(low, high + 1):
        x = at(10.0**power)
        kind = "line" if power else "one"
        parts.append(_stroke(kind, x, _TOP - 6, x, bottom))
        parts.append(_text(x, bottom + 20, f"x {number(10.0**power)}", "middle"))
    for index, (label, bars) in enumerate(rows):
        y = _TOP + index * step
        parts.append(_text(_LEFT - 10, y + _BAR + 5, label, "end"))
        for place, (kind, ratio) in enumerate(bars):
            parts += _bar(
                kind, y + place * (_BAR + _GAP), ratio, [at(each) for each in ratio], at(1)
            )
    return "\n".join([*parts, "</svg>"]) + "\n"


_Row = tuple[str, list[tuple[str, Ratio]]]
"""What a row is called, and for each bar its kind and how long it is."""


def _rows(figures: Iterable[Figure]) -> list[_Row]:
    names = dict(SHOWN)
    rows: list[_Row] = []
    chosen = [each for each in figures if each.name in names]
    services = list(dict.fromkeys(each.service for each in chosen))
    # By service, and then as in SHOWN: groups are measured one after the other.
    order = list(names)
    chosen.sort(key=lambda each: (services.index(each.service), order.index(each.name)))
    for each in chosen:
        found = [(kind, each.ratio(name, _FLOOR)) for name, kind in _BARS]
        bars = [(kind, ratio) for kind, ratio in found if ratio is not None]
        if bars:
            rows.append((f"{each.service}: {names[each.name]}", bars))
    return rows


def _legend() -> list[str]:
    parts = [_text(16, 24, "Time of each call, as a multiple of the driver's by itself", "start")]
    for place, (name, kind) in enumerate(_BARS):
        x = _LEFT + place * 100
        parts.append(f'<rect class="{kind}" x="{x}" y="34" width="10" height="10"/>')
        parts.append(_text(x + 16, 43, name, "start"))
    return parts


def _bar(kind: str, y: float, ratio: Ratio, ends: Sequence[float], one: float) -> list[str]:
    middle, low, high = ends
    start, length = min(middle, one), max(abs(middle - one), 1)
    centre = y + _BAR / 2
    return [
        f'<rect class="{kind}" x="{start}" y="{y}" width="{round(length, 1)}" height="{_BAR}"/>',
        _stroke("spread", low, centre, high, centre),
        _text(max(high, one) + 5, y + _BAR - 0.5, number(ratio[0]), "start", "small"),
    ]


def _stroke(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "plain") -> str:
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
