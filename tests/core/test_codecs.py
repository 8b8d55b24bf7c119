"""Only serializers accepted by name write or read anything."""

from __future__ import annotations

import pytest

from upshot.errors import ConfigError, EncodeError, UntrustedContentError
from upshot.serializers import (
    Codecs,
    JsonSerializer,
    MsgpackSerializer,
    PickleSerializer,
    Serializer,
)

JSON, MSGPACK, PICKLE = JsonSerializer(), MsgpackSerializer(), PickleSerializer()
SERIALIZERS: dict[str, Serializer] = {"json": JSON, "msgpack": MSGPACK, "pickle": PICKLE}


class Gadget:
    """Runs code when it is unpickled."""

    ran = 0

    def __reduce__(self) -> tuple[object, tuple[()]]:
        return run_gadget, ()


def run_gadget() -> None:
    Gadget.ran += 1


def test_pickle_is_neither_read_nor_written_unless_accepted_by_name() -> None:
    codecs = Codecs(SERIALIZERS, accept=["json", "msgpack"])
    data = PICKLE.dumps(Gadget())
    Gadget.ran = 0

    with pytest.raises(UntrustedContentError, match="accept_content"):
        codecs.decode("pickle", data)
    with pytest.raises(UntrustedContentError, match="accept_content"):
        codecs.encode([1], serializer="pickle")
    with pytest.raises(ConfigError, match="accept_content"):
        Codecs(SERIALIZERS, accept=["json"], default="pickle")
    assert Gadget.ran == 0


def test_pickle_accepted_by_name_does_unpickle() -> None:
    codecs = Codecs(SERIALIZERS, accept=["json", "pickle"])
    content_type, data = codecs.encode(Gadget(), serializer="pickle")
    Gadget.ran = 0

    codecs.decode(content_type, data)

    assert Gadget.ran == 1


def test_codecs_write_with_the_default_and_read_by_content_type() -> None:
    codecs = Codecs(SERIALIZERS, accept=["msgpack", "json"], default="msgpack")

    content_type, data = codecs.encode((1, 2))

    assert (content_type, codecs.decode(content_type, data)) == ("msgpack", (1, 2))
    assert codecs.encode([], serializer="json") == ("json", b"[]")
    assert codecs.accepted == ("msgpack", "json")
    assert codecs.can_encode({1})
    assert not codecs.can_encode(object())


@pytest.mark.parametrize("content_type", ["", "JSON", "application/x-python", "yaml"])
def test_unknown_content_types_are_refused_unread(content_type: str) -> None:
    with pytest.raises(UntrustedContentError):
        Codecs(SERIALIZERS).decode(content_type, b"[]")


def test_codecs_carry_the_root_of_the_path() -> None:
    with pytest.raises(EncodeError) as caught:
        Codecs(SERIALIZERS).encode([object()], root="args")

    assert caught.value.path == "args[0]"


def test_accepting_an_unknown_serializer_is_a_config_error_that_lists_the_known() -> None:
    with pytest.raises(ConfigError, match=r"'yaml'.*json, msgpack, pickle"):
        Codecs(SERIALIZERS, accept=["json", "yaml"])


class Rival(JsonSerializer):
    name = "rival"


def test_two_serializers_of_one_content_type_are_not_both_accepted() -> None:
    with pytest.raises(ConfigError, match="'json' and 'rival'"):
        Codecs({"json": JSON, "rival": Rival()}, accept=["json", "rival"])
