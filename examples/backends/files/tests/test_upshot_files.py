"""What only this backend promises. The contract is tested by the suite; see README.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from upshot.backend import StoredRecord
from upshot.errors import UrlError
from upshot.url import Url
from upshot_files.backend import FilesBackend
from upshot_files.harness import FilesHarness


@pytest.mark.parametrize(
    "text",
    [
        "files://",
        "files://srv/results",
        "files:///srv?durable=yes",
        "files:///srv?upshot_x=1",
    ],
)
def test_a_url_that_is_no_folder_is_refused(text: str) -> None:
    with pytest.raises(UrlError):
        FilesBackend(Url.parse(text))


def test_a_folder_may_have_a_space(tmp_path: Path) -> None:
    backend = FilesBackend(Url.parse(f"files://{tmp_path}/with%20space"))

    backend.store([record("it")], 1.0)

    assert backend.load(["it"], 1.0) == [b"body"]
    assert (tmp_path / "with space").is_dir()


def test_sweeping_removes_expired_files_and_no_others(tmp_path: Path) -> None:
    backend = FilesBackend(Url.parse(f"files://{tmp_path}"))
    backend.store([record("kept"), record("first", -1.0), record("second", -1.0)], 1.0)

    removed = [backend.sweep(1, 1.0) for _ in range(3)]

    assert removed == [1, 1, 0]
    assert list(backend.scan("", 1.0)) == ["kept"]
    assert len(list(tmp_path.glob("*.record"))) == 1


def test_a_draft_that_a_killed_writer_left_is_taken_by_the_next(tmp_path: Path) -> None:
    backend = FilesBackend(Url.parse(f"files://{tmp_path}"))
    harness = FilesHarness(Url.parse(f"files://{tmp_path}"))
    (tmp_path / ".draft").touch()

    assert harness.raw_objects("") == set()

    backend.store([record("it")], 1.0)

    assert not (tmp_path / ".draft").exists()
    assert len(harness.raw_objects("")) == 1


def record(key: str, expires: float | None = None) -> StoredRecord:
    """Return a record as the core would hand it over."""
    return StoredRecord(
        key=key, body=b"body", rank=1, barrier=1, expires=expires,
        task_id=key, state="QUEUED", name="", reply_to="",
    )  # fmt: skip
