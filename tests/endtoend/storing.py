"""A worker's last step alone: outcomes of tasks that no worker ran."""

from __future__ import annotations

from collections.abc import Mapping

from upshot import App
from upshot_conformance.records import success


def store(values: Mapping[str, object], *, by: App, to: App) -> list[bool]:
    """Store values by task id; tell for each whether it was applied.

    Args:
        values: what each task returned.
        by: the app that stores, as a worker's would.
        to: the app that submitted the tasks, to which a carrier sends.
    """
    client, reply_to = by.results, to.results.backend.reply_to
    return client.store_encoded(
        [client.encode(success(each, value), reply_to=reply_to) for each, value in values.items()]
    )
