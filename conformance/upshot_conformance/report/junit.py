"""The evidence as JUnit XML, in the dialect that pytest calls `xunit2`.

It is not pytest's own `--junitxml`, which works beside it and names the clauses too. That one
shows messages as the tests raised them, so that a backend which writes its password into an error
would write it there; and it cannot tell a waived failure or a tested refusal from a plain skip or
pass. One `testsuite` is one backend, one `testcase` one test, with a property for each clause.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence

from upshot_conformance.findings import Standing, worst
from upshot_conformance.report.evidence import Evidence, Judged, Result
from upshot_conformance.report.facts import RunFacts

__all__ = ["junit"]

_SKIPPED = frozenset(Standing) - {Standing.PASSED, Standing.REFUSED, Standing.FAILED}


def junit(evidence: Evidence) -> str:
    """Return the document."""
    root = ElementTree.Element("testsuites", name="upshot conformance")
    for judged in evidence.judged:
        tests: dict[str, list[Result]] = {}
        for result in evidence.results:
            if result.backend == judged.facts.label:
                tests.setdefault(result.test, []).append(result)
        root.append(_suite(evidence.run, judged, list(tests.values())))
    ElementTree.indent(root)
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{body}\n'


def _suite(run: RunFacts, judged: Judged, tests: Sequence[Sequence[Result]]) -> ElementTree.Element:
    standings = [_standing(results) for results in tests]
    suite = ElementTree.Element(
        "testsuite",
        name=judged.facts.label,
        tests=str(len(tests)),
        failures=str(standings.count(Standing.FAILED)),
        errors="0",
        skipped=str(sum(each is None or each in _SKIPPED for each in standings)),
        time=f"{sum(results[0].seconds for results in tests):.3f}",
        timestamp=run.started,
    )
    told = {"contract": run.contract, "verdict": judged.sentence, "seed": str(run.seed)}
    _add_properties(suite, told.items())
    suite.extend(
        _case(results, standing) for results, standing in zip(tests, standings, strict=True)
    )
    return suite


def _case(results: Sequence[Result], standing: Standing | None) -> ElementTree.Element:
    first = results[0]
    module, _, name = first.test.partition("::")
    case = ElementTree.Element(
        "testcase",
        classname=module.removesuffix(".py"),
        name=name or module,
        time=f"{first.seconds:.3f}",
    )
    told = [("clause", each.clause) for each in results]
    _add_properties(case, [*told, ("standing", str(standing or "says nothing"))])
    if standing is Standing.FAILED:
        head = first.message.partition("\n")[0]
        ElementTree.SubElement(case, "failure", message=head).text = first.message
    elif standing is None or standing in _SKIPPED:
        reason = first.reason or str(standing or "nothing is refused here")
        skipped = ElementTree.SubElement(case, "skipped", type="pytest.skip", message=reason)
        skipped.text = first.message or reason
    return case


def _standing(results: Sequence[Result]) -> Standing | None:
    found = [each.standing for each in results if each.standing is not None]
    return worst(found) if found else None


def _add_properties(parent: ElementTree.Element, pairs: Iterable[tuple[str, str]]) -> None:
    properties = ElementTree.SubElement(parent, "properties")
    for name, value in pairs:
        ElementTree.SubElement(properties, "property", name=name, value=value)
