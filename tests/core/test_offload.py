"""Offloading: results that are too large for their records."""

from __future__ import annotations

import os
import stat
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from upshot import clock
from upshot.content_types import offloaded_of
from upshot.errors import (
    ConfigError,
    CorruptRecordError,
    DecodeError,
    PayloadMissingError,
    PayloadTooLargeError,
    ServiceRejectedError,
    ServiceUnavailableError,
    UntrustedContentError,
)
from upshot.keyring import Keyring
from upshot.offload import Offload
from upshot.record import Payload
from upshot.serializers import Codecs, JsonSerializer

KEY = f"a:{'0a' * 32}"
LARGE = Payload("json", b'"' + b"x" * 5000 + b'"')
ROOM = 2**20
HOSTILE = ["../../etc/passwd", "/etc/passwd", "a/b", "..", "x" * 255, "-rf", "*", "é\u202e"]


@pytest.fixture(params=["folder", "fsspec", "fsspec-memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "fsspec-memory":
        yield f"memory://{tmp_path.name}"
    else:
        yield f"{'file' if request.param == 'folder' else 'local'}://{tmp_path}/large"


def offload(
    url: str,
    *,
    key: str | None = None,
    threshold: int | None = 1000,
    namespace: str = "shop",
    max_bytes: int = 2**20,
) -> Offload:
    return Offload(
        url,
        namespace=namespace,
        keyring=Keyring((), () if key is None else (key,)),
        threshold=threshold,
        max_bytes=max_bytes,
    )


def fetched(place: Offload, reference: Payload) -> Payload:
    inside = offloaded_of(reference.content_type)
    assert inside is not None, "it was not put elsewhere"
    return Payload(*place.fetch(inside, reference.body))


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("task_id", HOSTILE)
def test_a_large_value_comes_back_whatever_the_id(url: str, task_id: str, key: str | None) -> None:
    place = offload(url, key=key)

    reference = place.put(task_id, LARGE, ROOM, 60.0)

    assert len(reference.body) < 250
    place.check(task_id, reference)
    assert fetched(place, reference) == LARGE


def test_nothing_is_written_outside_of_the_folder(tmp_path: Path) -> None:
    place = offload(f"file://{tmp_path}/deep/er/large")

    for task_id in HOSTILE:
        place.put(task_id, LARGE, ROOM, 60.0)

    found = files(tmp_path)
    assert len(found) == len(HOSTILE)
    assert all(path.is_relative_to(tmp_path / "deep" / "er" / "large") for path in found)


def test_files_and_folders_are_their_owners_alone(tmp_path: Path) -> None:
    offload(f"file://{tmp_path}/large").put("id", LARGE, ROOM, 60.0)

    made = [tmp_path / "large", *(tmp_path / "large").rglob("*")]
    assert len(made) == 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o700, 0o600}


def test_a_folders_name_is_written_as_in_any_url(tmp_path: Path) -> None:
    offload(f"file://{tmp_path}/a%20b").put("id", LARGE, ROOM, 60.0)

    assert files(tmp_path / "a b")


@pytest.mark.parametrize("text", ["file://host/folder", "file://", "file:///", "file:///a%00b"])
def test_what_names_no_folder_of_this_machine_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="file:///absolute/path"):
        offload(text)


def test_a_scheme_that_nobody_knows_is_refused_without_the_password() -> None:
    with pytest.raises(ConfigError) as refused:
        offload("nowhere://user:hunter2@host/bucket")

    assert "nowhere" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_server_that_is_away_is_told_without_the_password_when_it_is_used() -> None:
    place = offload("ftp://user:hunter2@127.0.0.1:1/folder")  # fsspec connects to it at once

    with pytest.raises(ServiceUnavailableError, match=r"ftp://user:\*\*\*@") as refused:
        place.put("id", LARGE, ROOM, 60.0)

    assert "hunter2" not in "".join(traceback.format_exception(refused.value))


def test_only_what_is_longer_than_the_threshold_or_the_record_is_put_elsewhere(url: str) -> None:
    for place, room, is_there in (
        (offload(url, threshold=len(LARGE.body)), ROOM, False),
        (offload(url, threshold=len(LARGE.body) - 1), ROOM, True),
        (offload(url, threshold=None), ROOM, False),
        (offload(url, threshold=None), len(LARGE.body) + 8192, False),
        (offload(url, threshold=None), len(LARGE.body) + 8191, True),
        (offload(url, threshold=2**20), len(LARGE.body) + 8191, True),
    ):
        put = place.put("id", LARGE, room, 60.0)
        assert (put is not LARGE) == is_there


def test_what_nobody_could_read_is_refused_before_it_is_written(tmp_path: Path) -> None:
    place = offload(f"file://{tmp_path}/large", max_bytes=4000)

    with pytest.raises(PayloadTooLargeError) as refused:
        place.put("id", LARGE, ROOM, 60.0)

    assert (refused.value.size, refused.value.limit) == (len(LARGE.body), 4000)
    assert files(tmp_path) == []


def test_what_is_only_just_allowed_can_be_read_when_it_is_encrypted(tmp_path: Path) -> None:
    for key, most in ((None, len(LARGE.body)), (KEY, len(LARGE.body) + 28)):
        place = offload(f"file://{tmp_path}", key=key, max_bytes=most)
        assert fetched(place, place.put("id", LARGE, ROOM, 60.0)) == LARGE
        with pytest.raises(PayloadTooLargeError):
            offload(f"file://{tmp_path}", key=key, max_bytes=most - 1).put("id", LARGE, ROOM, 60.0)


def test_a_longer_file_than_allowed_is_not_read(url: str) -> None:
    reference = offload(url).put("id", LARGE, ROOM, 60.0)

    with pytest.raises(PayloadTooLargeError):
        fetched(offload(url, max_bytes=4000), reference)


def test_forgetting_removes_the_files_of_one_task_alone(url: str) -> None:
    place = offload(url)
    first, second = place.put("1", LARGE, ROOM, 60.0), place.put("2", LARGE, ROOM, 60.0)
    other = place.put("1", Payload("json", b"2" * 2000), ROOM, None)
    elsewhere = offload(url, namespace="other").put("1", LARGE, ROOM, 60.0)

    place.forget(["1", "never-seen", *HOSTILE])
    place.forget(["1"])

    for reference in (first, other):
        with pytest.raises(PayloadMissingError):
            fetched(place, reference)
    assert fetched(place, second) == fetched(place, elsewhere) == LARGE


def test_pruning_removes_what_has_expired_an_hour_ago(url: str) -> None:
    place = offload(url)
    put = [
        place.put(str(number), LARGE, ROOM, expires)
        for number, expires in enumerate((-8000.0, 60.0, None, 1e300))
    ]

    assert place.prune() == 1
    assert place.prune() == 0
    with pytest.raises(PayloadMissingError):
        fetched(place, put[0])
    for reference in put[1:]:
        assert fetched(place, reference) == LARGE


def test_pruning_leaves_alone_what_is_not_ours(tmp_path: Path) -> None:
    place = offload(f"file://{tmp_path}")
    place.put("id", LARGE, ROOM, -8000.0)
    (folder,) = (path.parent for path in files(tmp_path))
    old, now = "0" * 32 + ".1.part", f"{'1' * 32}.{int(clock.now())}.part"
    kept = [tmp_path / "x", folder / "y", folder / "0.1", folder / now, tmp_path / "ab" / "z.1"]
    (tmp_path / "ab").mkdir(exist_ok=True)
    for path in (*kept, folder / old):
        path.write_bytes(b"")
    (tmp_path / "link").symlink_to("/etc")

    assert place.prune() == 2
    assert sorted(files(tmp_path)) == sorted(kept)


def test_a_file_that_was_changed_is_refused(tmp_path: Path) -> None:
    place = offload(f"file://{tmp_path}")
    reference = place.put("id", LARGE, ROOM, 60.0)
    (file,) = files(tmp_path)

    for content in (b"", LARGE.body[:-1], LARGE.body + b" ", LARGE.body.replace(b"x", b"y", 1)):
        file.write_bytes(content)
        with pytest.raises(DecodeError):
            fetched(place, reference)


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    place = offload(f"file://{tmp_path}/large")
    reference = place.put("id", LARGE, ROOM, 60.0)
    (file,) = files(tmp_path)
    (tmp_path / "same").write_bytes(LARGE.body)

    file.unlink()
    file.symlink_to(tmp_path / "same")
    with pytest.raises((PayloadMissingError, ServiceRejectedError, OSError)):
        fetched(place, reference)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(PayloadMissingError):
        fetched(place, reference)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"../../../etc/passwd 5",
        b"/etc/passwd 5",
        b"%b/../%b.0 5" % (b"0" * 64, b"0" * 64),
        b"%b/%b.0 -5" % (b"0" * 64, b"0" * 64),
        b"%b/%b.0 5\n" % (b"0" * 64, b"0" * 64),
        b"%b/%b.0" % (b"0" * 64, b"0" * 64),
        "{}/{}.\u0661 5".format("0" * 64, "0" * 64).encode(),
    ],
)
def test_a_reference_that_we_did_not_write_leads_nowhere(url: str, body: bytes) -> None:
    place = offload(url)

    with pytest.raises(DecodeError):
        place.fetch("json", body)
    with pytest.raises(CorruptRecordError):
        place.check("id", Payload("json;offloaded", body))


def test_a_reference_to_the_file_of_another_task_is_refused(url: str) -> None:
    place = offload(url)
    reference = place.put("theirs", LARGE, ROOM, 60.0)

    place.check("theirs", reference)
    with pytest.raises(CorruptRecordError):
        place.check("mine", reference)
    with pytest.raises(CorruptRecordError):
        offload(url, namespace="other").check("theirs", reference)


def test_nothing_in_an_encrypted_file_can_be_read(tmp_path: Path) -> None:
    place = offload(f"file://{tmp_path}", key=KEY)
    reference = place.put("id", LARGE, ROOM, 60.0)

    (file,) = files(tmp_path)
    assert b"xxxx" not in file.read_bytes()
    assert reference.content_type == "json;enc=a;offloaded"
    other = offload(f"file://{tmp_path}", key=f"a:{'0b' * 32}")
    with pytest.raises(DecodeError, match="cannot be decrypted"):
        fetched(other, reference)


def test_a_value_is_read_only_if_its_type_is_accepted(url: str) -> None:
    place = offload(url)
    reference = place.put("id", LARGE, ROOM, 60.0)
    codecs = Codecs({"json": JsonSerializer()}, fetch=place.fetch)

    assert codecs.decode(*reference) == "x" * 5000
    place.forget(["id"])
    for wrong in ("pickle;offloaded", "json;offloaded;offloaded", ";offloaded"):
        with pytest.raises(UntrustedContentError):  # nobody has looked for the file
            codecs.decode(wrong, reference.body)
    with pytest.raises(PayloadMissingError, match="set result_offload"):
        Codecs({"json": JsonSerializer()}).decode(*reference)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to_is_an_error_for_good(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ServiceRejectedError, match="Permission denied"):
            offload(f"file://{tmp_path}/large").put("id", LARGE, ROOM, 60.0)
    finally:
        tmp_path.chmod(0o700)


def test_a_file_in_the_place_of_the_folder_is_an_error_for_good(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"")

    with pytest.raises(ServiceRejectedError):
        offload(f"file://{tmp_path}/large").put("id", LARGE, ROOM, 60.0)


def test_writers_and_those_who_forget_do_not_disturb_each_other(tmp_path: Path) -> None:
    place, failures, stop = offload(f"file://{tmp_path}"), list[BaseException](), threading.Event()

    def forget() -> None:
        while not stop.is_set():
            place.forget(["id"])

    def write(number: int) -> None:
        try:
            for each in range(100):
                put = place.put("id", Payload("json", b"%d" % number * 2000), ROOM, each * 3600.0)
                assert put.content_type == "json;offloaded"
        except BaseException as exc:
            failures.append(exc)

    other = threading.Thread(target=forget)
    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    other.start()
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    other.join()

    assert failures == []
    place.forget(["id"])
    assert files(tmp_path) == []
