"""Keys: how they are written, what they sign and encrypt, and that nothing shows them."""

from __future__ import annotations

import base64
import pickle
import re
from pathlib import Path

import pytest

from upshot.errors import ConfigError
from upshot.keyring import Keyring, RefusedError, check_keys, is_signed, new_key, unsigned
from upshot.settings import SETTINGS, Settings

SECRET = bytes(range(32))
BASE64 = base64.b64encode(SECRET).decode()
SIGNING = f"a:{BASE64}"
OTHER = f"b:{SECRET[::-1].hex()}"
WHERE = (b"here", b"and now")


@pytest.mark.parametrize(
    "written",
    [
        BASE64,
        BASE64.rstrip("="),
        base64.urlsafe_b64encode(SECRET).decode(),
        SECRET.hex(),
        SECRET.hex().upper(),
    ],
)
def test_a_key_is_written_in_base64_or_hexadecimal(written: str) -> None:
    signed = Keyring([SIGNING]).sign(b"data", WHERE)

    assert Keyring([f"a:{written}"]).verify(signed, WHERE) == b"data"


@pytest.mark.parametrize("name", ["signing_keys", "encryption_keys"])
@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([BASE64], "is not written id:key"),
        ([f"a b:{BASE64}"], "the id of a key is"),
        ([f":{BASE64}"], "the id of a key is"),
        ([f"{'a' * 33}:{BASE64}"], "the id of a key is"),
        ([f"a:{BASE64}!"], "neither base64 nor hexadecimal"),
        (["a:"], "has 0 bytes"),
        ([f"a:{SECRET[:8].hex()}"], "has 8 bytes"),
        ([f"a:{(SECRET * 3).hex()}"], "has 96 bytes"),
        ([SIGNING, f"a:{SECRET[::-1].hex()}"], "two keys have the id a"),
        (["file:keys"], "file:/absolute/path"),
    ],
)
def test_what_is_no_key_is_refused_without_a_character_of_it(
    name: str, given: list[str], reason: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        check_keys(name, given)
    with pytest.raises(ConfigError):
        Settings().updated(**{name: given})

    assert str(refused.value).startswith(f"{name}: ")
    assert reason in str(refused.value)
    for part in (BASE64, SECRET[:8].hex(), SECRET[::-1].hex()):
        assert part[:12] not in str(refused.value)


def test_an_encryption_key_has_a_length_of_aes() -> None:
    for size in (16, 24, 32):
        check_keys("encryption_keys", [f"a:{SECRET[:size].hex()}"])

    with pytest.raises(ConfigError, match="has 20 bytes, not 16, 24 or 32"):
        check_keys("encryption_keys", [f"a:{SECRET[:20].hex()}"])


def test_keys_lie_in_files_too(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# of last month\n\n  {OTHER}\n")
    signed = Keyring([OTHER]).sign(b"data", WHERE)

    assert Keyring([SIGNING, f"file:{file}"]).verify(signed, WHERE) == b"data"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "none of them has a key"),
        (b"# nothing\n", "none of them has a key"),
        (b"a\xff:x", "it is not ASCII"),
        (b"#" * 100_000, "it is too long"),
        (f"{OTHER}\n{BASE64}".encode(), "line 2 of"),
        (f"{OTHER}\n{OTHER}".encode(), "two keys have the id b"),
    ],
)
def test_a_wrong_file_of_keys_is_named_and_not_quoted(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    file = tmp_path / "keys"
    file.write_bytes(content)

    with pytest.raises(ConfigError, match=reason) as refused:
        Keyring([f"file:{file}"])

    assert BASE64[:12] not in str(refused.value)


def test_a_missing_file_of_keys_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read '.*/none': No such file"):
        Keyring([f"file:{tmp_path}/none"])


def test_the_first_key_signs_and_all_verify() -> None:
    old, both, new = Keyring([SIGNING]), Keyring([OTHER, SIGNING]), Keyring([OTHER])
    before, after = old.sign(b"data", WHERE), both.sign(b"data", WHERE)

    assert both.verify(before, WHERE) == both.verify(after, WHERE) == b"data"
    assert new.verify(after, WHERE) == b"data"
    with pytest.raises(RefusedError, match=r"does not have \(a\)"):
        new.verify(before, WHERE)
    with pytest.raises(RefusedError, match=r"does not have \(b\)"):
        old.verify(after, WHERE)


def test_the_first_key_encrypts_and_all_decrypt() -> None:
    old, both = Keyring((), [SIGNING]), Keyring((), [OTHER, SIGNING])

    for ring, key_id in ((old, "a"), (both, "b")):
        used, encrypted = ring.encrypt(b"data", WHERE)

        assert used == key_id
        assert both.decrypt(used, encrypted, WHERE) == b"data"
        assert b"data" not in encrypted
    assert not old.knows("b")


def test_nothing_is_encrypted_twice_alike() -> None:
    ring = Keyring((), [SIGNING])

    assert len({ring.encrypt(b"data", WHERE) for _ in range(100)}) == 100


@pytest.mark.parametrize("position", range(2 + 1 + 1 + 32 + 4))
def test_no_bit_of_what_is_signed_can_be_turned(position: int) -> None:
    ring = Keyring([SIGNING])
    signed = ring.sign(b"data", WHERE)
    assert len(signed) == 2 + 1 + 1 + 32 + 4

    for bit in range(8):
        turned = bytearray(signed)
        turned[position] ^= 1 << bit
        with pytest.raises(RefusedError):
            ring.verify(bytes(turned), WHERE)


def test_no_bit_of_what_is_encrypted_can_be_turned() -> None:
    ring = Keyring((), [SIGNING])
    key_id, encrypted = ring.encrypt(b"data", WHERE)

    for position in range(len(encrypted)):
        for bit in range(8):
            turned = bytearray(encrypted)
            turned[position] ^= 1 << bit
            with pytest.raises(RefusedError):
                ring.decrypt(key_id, bytes(turned), WHERE)


@pytest.mark.parametrize(
    "where", [(), (b"here",), (b"here", b"and no", b"w"), (b"herea", b"nd now"), (b"there",)]
)
def test_what_was_made_for_one_context_is_nothing_in_another(where: tuple[bytes, ...]) -> None:
    ring = Keyring([SIGNING], [OTHER])
    key_id, encrypted = ring.encrypt(b"data", WHERE)

    with pytest.raises(RefusedError):
        ring.verify(ring.sign(b"data", WHERE), where)
    with pytest.raises(RefusedError):
        ring.decrypt(key_id, encrypted, where)


def test_what_is_cut_short_is_refused() -> None:
    ring = Keyring([SIGNING], [OTHER])
    signed = ring.sign(b"", WHERE)
    key_id, encrypted = ring.encrypt(b"", WHERE)

    for length in range(len(signed)):
        with pytest.raises(RefusedError):
            ring.verify(signed[:length], WHERE)
        with pytest.raises(RefusedError):
            unsigned(signed[:length])
    for length in range(len(encrypted)):
        with pytest.raises(RefusedError):
            ring.decrypt(key_id, encrypted[:length], WHERE)


def test_the_key_of_another_with_the_same_id_is_noticed() -> None:
    mine, theirs = Keyring([SIGNING], [SIGNING]), Keyring([f"a:{OTHER[2:]}"], [f"a:{OTHER[2:]}"])

    with pytest.raises(RefusedError):
        mine.verify(theirs.sign(b"data", WHERE), WHERE)
    with pytest.raises(RefusedError):
        mine.decrypt(*theirs.encrypt(b"data", WHERE), WHERE)


def test_the_id_of_a_key_is_a_strangers_word() -> None:
    forged = b"s1\x05\x1b[2J\xff" + bytes(32) + b"data"

    assert is_signed(forged)
    with pytest.raises(RefusedError) as refused:
        Keyring([SIGNING]).verify(forged, WHERE)
    assert str(refused.value).isprintable()


def test_a_new_key_can_be_used_and_no_two_are_alike() -> None:
    keys = {new_key("a") for _ in range(10)}

    assert len(keys) == 10
    for key in keys:
        check_keys("encryption_keys", [key])
        check_keys("signing_keys", [key])
    with pytest.raises(ConfigError):
        new_key("a:b")


def test_no_keyring_shows_or_pickles_its_keys() -> None:
    ring = Keyring([SIGNING], [OTHER])

    assert repr(ring) == "<Keyring signing=['a'] encryption=['b']>"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(ring)


def test_settings_show_the_ids_of_keys_alone() -> None:
    settings = Settings(signing_keys=(SIGNING, "file:/run/keys"), encryption_keys=(OTHER,))

    assert repr(settings) == (
        "Settings(signing_keys=('a:***', 'file:/run/keys'), encryption_keys=('b:***',))"
    )


@pytest.mark.parametrize("value", [SIGNING, 5, [3], [], (), ["a\nb"], {"a": SECRET}])
def test_wrong_values_of_secret_settings_are_not_repeated(value: object) -> None:
    with pytest.raises(ConfigError) as refused:
        SETTINGS["signing_keys"].check(value)

    assert re.search(r"; got a value of type \w+$", str(refused.value))
