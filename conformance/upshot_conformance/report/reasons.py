"""The reasons for what was not simply passed, each told once and numbered."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Sequence

from upshot_conformance.findings import Standing
from upshot_conformance.report.evidence import Judged

__all__ = ["Reasons", "places"]


class Reasons:
    """Every reason with the cells that it holds for, in the order of the matrix.

    A clause that passed has none, even if one of its tests did not apply: that is a detail.

    Args:
        judged: the backends whose reasons are told.
    """

    def __init__(self, judged: Sequence[Judged]) -> None:
        self._cells: dict[tuple[Standing, str], list[tuple[str, str]]] = {}
        for clause_id in dict.fromkeys(name for each in judged for name in each.cells):
            for each in judged:
                cell = each.cells.get(clause_id)
                if cell is None or cell.standing in {Standing.PASSED, Standing.FAILED}:
                    continue
                for reason in cell.reasons:
                    place = (each.facts.label, clause_id)
                    self._cells.setdefault((cell.standing, reason), []).append(place)
        self._numbers = {key: number for number, key in enumerate(self._cells, 1)}

    def items(self) -> ItemsView[tuple[Standing, str], list[tuple[str, str]]]:
        """Return each standing and reason with its cells, as (label, clause id)."""
        return self._cells.items()

    def number(self, standing: Standing, reason: str) -> int:
        """Return the number of a reason, from 1 on.

        Raises:
            KeyError: no cell has it.
        """
        return self._numbers[standing, reason]


def places(cells: Iterable[tuple[str, str]]) -> str:
    """Return where a reason holds: `EX-1, EX-2 on memory, rpc; FT-1 on sqlite`."""
    ids: dict[str, list[str]] = {}
    for label, clause_id in cells:
        ids.setdefault(label, []).append(clause_id)
    labels: dict[tuple[str, ...], list[str]] = {}
    for label, found in ids.items():
        labels.setdefault(tuple(found), []).append(label)
    return "; ".join(f"{', '.join(found)} on {', '.join(where)}" for found, where in labels.items())
