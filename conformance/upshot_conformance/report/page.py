"""The evidence as one HTML page that needs nothing else: no script, no font, no connection."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from upshot_conformance.findings import Standing
from upshot_conformance.report.chapters import chapters
from upshot_conformance.report.evidence import Evidence, Judged, Verdict
from upshot_conformance.report.facts import BackendFacts, Declared, RunFacts
from upshot_conformance.report.grid import grid, least_width
from upshot_conformance.report.marks import VERDICT_MARKS, Mark
from upshot_conformance.report.markup import Content, Markup, anchor, join, tag

__all__ = ["page"]

_STYLE: Final = Path(__file__).with_name("page.css")
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
"""Nothing is loaded or run, whatever a message holds."""

_SECTIONS: Final = {
    "verdicts": "Verdicts",
    "matrix": "Matrix",
    "clauses": "Clauses",
    "backends": "Backends",
    "run": "How it was run",
}
_LEVELS: Final = ("core", "extended")
_NOT_GREEN: Final = frozenset(Verdict) - {Verdict.CONFORMANT}
_WORST_FIRST: Final = (
    Verdict.NON_CONFORMANT,
    Verdict.NOT_RUN,
    Verdict.PARTIAL,
    Verdict.CONFORMANT,
)
_MEBIBYTE: Final = 2**20


def page(evidence: Evidence) -> str:
    """Return the whole document."""
    run, judged = evidence.run, evidence.judged
    title = f"Conformance with contract {run.contract} of upshot"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("title", title),
        tag("style", Markup(_STYLE.read_text(encoding="utf-8") + least_width(len(judged)))),
    )
    body = tag(
        "body",
        tag("header", tag("h1", title), _lead(judged), _when(run), *_notices(run), _contents()),
        tag(
            "main",
            _section("verdicts", _verdicts(judged), _untested(run.untested)),
            _section("matrix", grid(judged)),
            _section("clauses", *chapters(evidence)),
            _section("backends", *_backends(judged)),
            _section("run", *_how(run)),
        ),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _section(name: str, *content: Content) -> Markup:
    return tag("section", tag("h2", _SECTIONS[name]), *content, id=name)


def _contents() -> Markup:
    links = (tag("li", tag("a", text, href=f"#{name}")) for name, text in _SECTIONS.items())
    return tag("nav", tag("ul", *links), aria_label="Contents")


def _lead(judged: Sequence[Judged]) -> Markup:
    """Return the whole report in a sentence, under the sign of the worst verdict."""
    count = Counter(each.verdict for each in judged)
    green = count[Verdict.CONFORMANT]
    worst = next((each for each in _WORST_FIRST if count[each]), Verdict.NOT_RUN)
    told = [f"{green} of {len(judged)} backends conformant"]
    told += [f"{count[each]} {each}" for each in Verdict if count[each] and each in _NOT_GREEN]
    return tag("p", _sign(VERDICT_MARKS[worst]), f" {', '.join(told)}.", class_="lead")


def _when(run: RunFacts) -> Markup:
    try:
        when = f"{datetime.fromisoformat(run.started):%-d %B %Y, %H:%M %Z}"
    except ValueError:
        when = run.started
    facts = [f"upshot {run.version}", run.python, run.platform, f"{run.duration:.0f} s"]
    return tag("p", tag("time", when, datetime=run.started), " · ", " · ".join(facts))


def _notices(run: RunFacts) -> Iterator[Markup]:
    """Yield what a reader must know before the verdicts."""
    if not run.complete:
        yield tag("p", "The run was stopped before its last test.", class_="notice warn")
    if run.filters:
        left = f"Not every test was run ({' '.join(run.filters)}): this proves no conformance."
        yield tag("p", left, class_="notice warn")


def _verdicts(judged: Iterable[Judged]) -> Markup:
    heads = ("Backend", "Verdict", "Server", "From", "Core", "Extended", "Waived")
    return tag(
        "div",
        tag(
            "table",
            tag("caption", tag("span", "Clauses are counted as proven, of those that apply.")),
            tag("thead", tag("tr", *(tag("th", head, scope="col") for head in heads))),
            tag("tbody", *map(_verdict, judged)),
            class_="verdicts",
        ),
        class_="wide",
    )


def _verdict(judged: Judged) -> Markup:
    facts, mark = judged.facts, VERDICT_MARKS[judged.verdict]
    waived = sum(cell.standing is Standing.WAIVED for cell in judged.cells.values())
    link = tag("a", facts.label, href=f"#{anchor('backend', facts.label)}")
    return tag(
        "tr",
        tag("th", link, scope="row"),
        tag("td", _sign(mark), " ", judged.sentence, *_broken(judged)),
        tag("td", facts.server or "unknown"),
        tag("td", facts.distribution or "unknown"),
        *(tag("td", "/".join(map(str, judged.kept(level))), class_="number") for level in _LEVELS),
        tag("td", str(waived), class_="number"),
    )


def _broken(judged: Judged) -> Iterator[Markup]:
    """Yield a line of links to the broken clauses, if there are any."""
    links = [
        tag("a", clause_id, href=f"#{anchor('failed', judged.facts.label, clause_id)}")
        for clause_id, cell in judged.cells.items()
        if cell.standing in {Standing.FAILED, Standing.WAIVED}
    ]
    if links:
        yield tag("div", *(join(link, " ") for link in links), class_="broken")


def _sign(mark: Mark) -> Markup:
    return tag("span", mark.sign, class_=f"sign {mark.tone}")


def _untested(untested: Mapping[str, str]) -> Markup | None:
    if not untested:
        return None
    lines = (tag("li", tag("b", name), f": {why}") for name, why in untested.items())
    return tag("div", tag("h3", "Not tested"), tag("ul", *lines))


# -- the backends -------------------------------------------------------------------------------


def _backends(judged: Sequence[Judged]) -> Iterator[Markup]:
    yield tag("div", *(_card(each) for each in judged), class_="cards")
    yield tag("h3", "Capabilities")
    yield _capabilities([each.facts for each in judged])


def _card(judged: Judged) -> Markup:
    facts, mark = judged.facts, VERDICT_MARKS[judged.verdict]
    place = "started for this run" if facts.private else "not started by this run"
    drivers = ", ".join(f"{name} {version}" for name, version in facts.drivers.items())
    timing = "not measured"
    if facts.round_trip is not None and facts.jitter is not None:
        timing = (
            f"{facts.round_trip * 1000:.2f} ms for a request, "
            f"{facts.jitter * 1000:.0f} ms of jitter allowed"
        )
        timing += "" if facts.scale == 1 else f", bounds times {facts.scale:g}"
    told = {
        "Server": facts.server or "unknown",
        "URL": facts.url,
        "Service": place,
        "Backend": facts.distribution or "unknown",
        "Drivers": drivers or "unknown",
        "Contract": facts.contract or "unknown",
        "Timing": timing,
    }
    title = tag("h3", _sign(mark), f" {facts.label}")
    return tag(
        "article",
        title,
        tag("p", judged.sentence),
        _told(told),
        class_="card",
        id=anchor("backend", facts.label),
    )


def _capabilities(backends: Sequence[BackendFacts]) -> Markup:
    names = dict.fromkeys(name for each in backends for name in each.capabilities)
    heads = (tag("th", each.label, scope="col") for each in backends)
    rows = (
        tag("tr", tag("th", tag("code", name), scope="row"), *_values(backends, name))
        for name in names
    )
    caption = "As the backend's class declares them; * was found to be less when connecting."
    return tag(
        "div",
        tag(
            "table",
            tag("caption", tag("span", caption)),
            tag("thead", tag("tr", tag("td"), *heads)),
            tag("tbody", *rows),
            class_="capabilities",
        ),
        class_="wide",
    )


def _values(backends: Iterable[BackendFacts], name: str) -> Iterator[Markup]:
    for each in backends:
        shown = _value(name, each.capabilities.get(name, "unknown"))
        star = "*" if name in each.narrowed else ""
        yield tag("td", shown + star, class_="no" if shown == "no" else None)


def _value(name: str, value: Declared) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "never"
    if isinstance(value, str):
        return value
    if name.endswith("_bytes"):
        whole, rest = divmod(value, _MEBIBYTE)
        return f"{value:,.0f} B" if rest else f"{whole:,.0f} MiB"
    return f"{value * 1000:g} ms" if 0 < value < 1 else f"{value:g} s"


# -- the run ------------------------------------------------------------------------------------


def _how(run: RunFacts) -> Iterator[Markup]:
    yield tag("pre", shlex.join(run.command))
    given = [name for name in ("certify", "disruptive", "strict") if getattr(run, name)]
    yield _told(
        {
            "Seed": str(run.seed),
            "Contract": run.contract,
            "Suite and library": f"upshot {run.version}",
            "Python": run.python,
            "Platform": run.platform,
            "Started": run.started,
            "Duration": f"{run.duration:.1f} s",
            "Options": ", ".join(given) or "none of certify, disruptive, strict",
            "Left out": " ".join(run.filters) or "nothing",
            "Ended": "with its last test" if run.complete else "before its last test",
        }
    )
    if run.waivers is not None:
        yield tag("h3", "Waivers")
        yield _told({"File": run.waivers.file, "SHA-256": run.waivers.sha256})
        yield _told(run.waivers.used)


def _told(facts: Mapping[str, str]) -> Markup:
    pairs = (join(tag("dt", name), tag("dd", value)) for name, value in facts.items())
    return tag("dl", *pairs)
