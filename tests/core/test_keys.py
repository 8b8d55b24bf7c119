"""Keys: one for each pair of namespace and id, and never longer than a service takes."""

from __future__ import annotations

import pytest

from upshot.errors import ConfigError
from upshot.keys import MAX_NAMESPACE, Keyspace

_SMALLEST = 200  # bytes; less than any service of this project takes

NAMESPACES = [
    "a",
    "ab",
    "a:",
    "a#",
    "#",
    "é",
    "%C3%A9",
    "x" * 64,
    "é" * 64,
    "🦀" * 64,
    "\ud800" * 64,
]
IDS = ["a", "a:b", "#", "x" * 255, "é" * 127, "a b", "%20", "🦀"]


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("namespace", NAMESPACES, ids=range(len(NAMESPACES)))
def test_no_key_is_longer_than_the_service_takes(namespace: str, text: bool) -> None:
    keys = Keyspace(namespace, max_bytes=_SMALLEST, text=text)

    for task_id in IDS:
        key = keys.key(task_id)
        assert len(key.encode()) <= _SMALLEST
        assert text or (key.isascii() and key.isprintable() and " " not in key)
        assert key.startswith(keys.prefixes)


def test_no_two_pairs_share_a_key_and_no_namespace_is_in_anothers_way() -> None:
    spaces = [Keyspace(each, max_bytes=_SMALLEST, text=False) for each in NAMESPACES]
    # What the long ones are hashed to must not be some namespace's name.
    spaces += [
        Keyspace(prefix.rstrip(":").lstrip("#"), max_bytes=_SMALLEST, text=False)
        for prefix, _ in (space.prefixes for space in spaces)
        if len(prefix) == len("#:") + 64
    ]
    keys = [space.key(task_id) for space in spaces for task_id in IDS]

    assert len(spaces) == len(NAMESPACES) + 3
    assert len(set(keys)) == len(keys)
    for space in spaces:
        for other in spaces:
            if other is not space:
                assert not any(other.key(each).startswith(space.prefixes) for each in IDS)


@pytest.mark.parametrize("text", [True, False])
def test_no_two_items_share_a_key_and_none_has_that_of_a_record(text: bool) -> None:
    spaces = [Keyspace(each, max_bytes=_SMALLEST, text=text) for each in NAMESPACES]
    ids = [*IDS, "1:a", "11:a", "0", "0:0"]
    items = [key for space in spaces for each in ids for key in space.items(each, range(13))]
    records = [space.key(each) for space in spaces for each in ids]

    assert len({*items, *records}) == len(items) + len(records)
    assert [key for key in items if len(key.encode()) > _SMALLEST] == []
    assert text or not [key for key in items if not key.isascii() or " " in key]
    prefixes = tuple(prefix for space in spaces for prefix in space.prefixes)
    assert [key for key in items if key.startswith(prefixes)] == []


def test_a_namespace_that_fits_can_be_read_off_its_keys() -> None:
    keys = Keyspace("x" * MAX_NAMESPACE, max_bytes=_SMALLEST, text=False)

    assert keys.key("a") == "x" * MAX_NAMESPACE + ":a"
    assert keys.key("a b").startswith("x" * MAX_NAMESPACE + "#")


@pytest.mark.parametrize("namespace", ["", "x" * (MAX_NAMESPACE + 1)])
def test_a_namespace_of_no_or_too_many_characters_is_refused(namespace: str) -> None:
    with pytest.raises(ConfigError, match="1 to 64"):
        Keyspace(namespace, max_bytes=_SMALLEST, text=True)


def test_claims_have_keys_of_their_own_and_no_listing_finds_them() -> None:
    spaces = [Keyspace(each, max_bytes=_SMALLEST, text=False) for each in NAMESPACES]
    pairs = [
        ("a", "b"),
        ("ab", "b"),
        ("a", "ab"),
        ("ab", ""),
        ("", "ab"),
        ("é", "\ue000"),
        ("a", "B"),
    ]
    claims = [space.claim(*pair) for space in spaces for pair in pairs]
    prefixes = tuple(prefix for space in spaces for prefix in space.prefixes)

    assert len(set(claims)) == len(claims)
    for claim in claims:
        assert not claim.startswith(prefixes)
        assert claim.isascii()
        assert claim.isprintable()
        assert len(claim) <= _SMALLEST


def test_errors_name_the_task_of_an_item() -> None:
    keys = Keyspace("a:b", max_bytes=120, text=True)
    long = "x" * 200

    assert keys.label(*keys.items("it:7", [12])) == "it:7"
    assert keys.label(keys.key("it:7")) == "it:7"
    assert [keys.label(key) for key in (keys.key(long), *keys.items(long, [1]))] == [
        keys.key(long),
        *keys.items(long, [1]),
    ]
