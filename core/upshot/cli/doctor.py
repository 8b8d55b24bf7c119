"""`upshot doctor`: what a service, or a whole app, will and will not do, and what to change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

import click

from upshot.cli.exits import FAILED, OK
from upshot.cli.parameters import SECONDS, json_option, optional_app_option
from upshot.cli.printing import safe, show_json, show_lines, show_marked
from upshot.cli.target import load
from upshot.config import Configuration
from upshot.diagnosis import Examination, examine, examine_app, gravest, roles_of
from upshot.finding import Finding, Level
from upshot.url import Url

__all__ = ["doctor"]

_STYLES: Final = {
    Level.OK: "green",
    Level.NOTE: "cyan",
    Level.WARNING: "yellow",
    Level.PROBLEM: "bold red",
}
_MARK: Final = max(len(level) for level in Level)
_INDENT: Final = " " * (_MARK + 2)


@click.command()
@click.argument("url", metavar="[URL]", required=False)
@optional_app_option
@click.option(
    "--namespace", help="What begins the names of all that is tried; by default as it is set."
)
@click.option(
    "-t",
    "--timeout",
    type=SECONDS,
    help="For one operation; by default as it is set.",
)
@click.option("--strict", is_flag=True, help="Let a warning count as a problem.")
@json_option
def doctor(
    url: str | None,
    target: str | None,
    namespace: str | None,
    timeout: float | None,
    strict: bool,
    as_json: bool,
) -> int:
    """Look whether the service at URL, or the whole app, can do what upshot needs.

    It names the server and measures round trips; writes, reads, awaits, lets expire and deletes
    records, and sends messages through a queue of its own; and says what is lost here, why, and
    what to change. Nothing of it is left behind, and nothing of yours is touched. Without a URL it
    examines the app that -A or UPSHOT_APP names: its settings, its services, its workers.

    Exit codes: 0 all is well; 1 there is a problem, or with --strict a warning; 2 wrong usage or
    configuration.
    """
    if url is None and target is None:
        raise click.UsageError("what? Give a URL, or -A MODULE[:NAME], or set UPSHOT_APP")
    levels: list[Level] = []
    data: list[dict[str, object]] = []
    for examination in _examinations(url, target, namespace, timeout):
        levels.append(examination.worst)
        if as_json:
            data.append(examination.to_data())
        else:
            _show(examination)
    worst = gravest(levels)
    if as_json:
        show_json({"worst": worst.value, "examinations": _safe(data)})
    fails = (Level.PROBLEM, Level.WARNING) if strict else (Level.PROBLEM,)
    return FAILED if worst in fails else OK


def _examinations(
    url: str | None, target: str | None, namespace: str | None, timeout: float | None
) -> Iterator[Examination]:
    if url is not None:
        settings = Configuration({}).settings
        parsed = Url.parse(url)
        yield examine(
            parsed,
            roles=roles_of(parsed),
            namespace=namespace or settings.namespace,
            timeout=timeout or settings.operation_timeout,
        )
    elif target is not None:
        with load(target) as app:
            yield from examine_app(app, target, namespace=namespace, timeout=timeout)


def _show(examination: Examination) -> None:
    roles = f"  as {' and '.join(examination.roles)}" if examination.roles else ""
    show_marked(examination.subject, "bold", roles)
    for finding in examination.findings:
        _show_finding(finding)
    for title, sentences in (
        ("What it does here:", examination.will),
        ("What it does not do here:", examination.will_not),
    ):
        if sentences:
            show_marked(f"  {title}", "bold", "")
            show_lines("\n".join(map(safe, sentences)), indent="    - ")
    show_lines("")


def _show_finding(finding: Finding) -> None:
    show_marked(
        f"  {finding.level.value.ljust(_MARK)}", _STYLES[finding.level], f"  {finding.what}"
    )
    if finding.why:
        show_lines(safe(finding.why), indent=_INDENT + "  ")
    if finding.change:
        show_lines(safe(f"Change: {finding.change}"), indent=_INDENT + "  ")


def _safe(value: Any) -> Any:
    """Return plain data with the passwords of URLs hidden in all texts."""
    if isinstance(value, str):
        return safe(value)
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return {name: _safe(each) for name, each in members.items()}
    if isinstance(value, list):
        return [_safe(each) for each in cast("Sequence[Any]", value)]
    return value
