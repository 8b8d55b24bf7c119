"""What only this backend promises. The contract is tested by the suite; see README.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from upshot.backend import StoredRecord
from upshot.errors import UrlError
from upshot.url import Url
from upshot_dbm.backend import DbmBackend


@pytest.mark.parametrize(
    "text",
    [
        "dbm://",
        "dbm://srv/results",
        "dbm:///srv?durable=yes",
        "dbm:///srv?upshot_x=1",
    ],
)
def test_a_url_that_is_no_folder_is_refused(text: str) -> None:
    with pytest.raises(UrlError):
        DbmBackend(Url.parse(text))


def test_sweeping_removes_expired_records_and_closes_the_gaps(tmp_path: Path) -> None:
    backend = DbmBackend(Url.parse(f"dbm://{tmp_path}"))
    backend.store([record("kept"), *(record(f"gone-{n}", -1.0) for n in range(300))], 1.0)
    before = size(tmp_path)

    removed = [backend.sweep(200, 1.0) for _ in range(3)]

    assert removed == [200, 100, 0]
    assert list(backend.scan("", 1.0)) == ["kept"]
    assert size(tmp_path) < before / 10


def size(folder: Path) -> int:
    """Return how many bytes the values take, gaps included."""
    return sum(path.stat().st_size for path in folder.glob("*.dat"))


def record(key: str, expires: float | None = None) -> StoredRecord:
    """Return a record as the core would hand it over."""
    return StoredRecord(
        key=key, body=b"body", rank=1, barrier=1, expires=expires,
        task_id=key, state="QUEUED", name="", reply_to="",
    )  # fmt: skip
