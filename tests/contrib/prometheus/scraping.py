"""Metrics as Prometheus reads them: text, parsed by prometheus-client's own parser."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

__all__ = ["Scrape", "scraped", "until"]


class Scrape:
    """The samples of one scrape.

    Args:
        text: as it was served.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): float(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float | None:
        """Return the value of one series; None if there is none."""
        return self._samples.get((name, frozenset(labels.items())))

    def total(self, name: str) -> float:
        """Return the sum of all series of a name."""
        return sum(value for (found, _), value in self._samples.items() if found == name)

    def labels(self, name: str) -> set[str]:
        """Return every value that a label has in the series of a name."""
        found = [labels for (each, labels) in self._samples if each == name]
        return {value for labels in found for _, value in labels}

    @property
    def names(self) -> set[str]:
        """The names of all series."""
        return {name for name, _ in self._samples}


def scraped(registry: CollectorRegistry) -> Scrape:
    """Return what a registry of this process has."""
    return Scrape(generate_latest(registry).decode())


def until(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Look until `condition` holds or the time is up; return what it was at last."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()
