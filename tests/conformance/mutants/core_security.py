"""Broken cores: who meets whom, and what stored data can do; `core` has the others."""

from __future__ import annotations

import importlib
import logging
import pickle
import struct
import sys
import unicodedata
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import quote

from upshot import keys, retrying
from upshot.client import ResultClient
from upshot.clock import Deadline
from upshot.envelope import Envelopes
from upshot.errors import CorruptRecordError, UpshotError, UrlError
from upshot.failure import data, rebuilding
from upshot.origin import Origin
from upshot.reading import Reader
from upshot.record import Record
from upshot.serializers import Codecs, JsonSerializer, typed_json
from upshot.service import OpenService
from upshot.url import Url

from .breaking import put

logger = logging.getLogger(__name__)

_TEXTS_LENGTH: Final = 11  # where it stands in a record


# -- isolation -----------------------------------------------------------------------------------


def _write_namespaces(write: Callable[[str], str]) -> None:
    def written(text: str, **how: str) -> str:
        return write(text)

    put(keys, "quote", written)


def _edit_namespaces(edit: Callable[[str], str]) -> None:
    _write_namespaces(lambda text: edit(quote(text, safe="", errors="surrogatepass")))


def _edit_bodies(edit: Callable[[bytes], bytes]) -> None:
    original = Record.decode

    def decode(cls: type[Record], body: bytes) -> Record:
        return original(edit(body))

    put(Record, "decode", classmethod(decode))


def _cut_texts(body: bytes) -> bytes:
    """Return a record without the texts after those that there are now."""
    if body[:2] != b"u2" or len(body) < 27:
        return body
    (length,) = struct.unpack_from("<I", body, _TEXTS_LENGTH)
    begin = 19 + 8 * (body[6] >> 3 & 7).bit_count()
    texts = b"\0".join(body[begin : begin + length].split(b"\0")[:8])
    rest = body[6:_TEXTS_LENGTH] + struct.pack("<I", len(texts)) + body[_TEXTS_LENGTH + 4 : begin]
    rest += texts + body[begin + length :]
    return struct.pack("<2sI", b"u2", zlib.crc32(rest)) + rest


def _take_any_serializer() -> None:
    original = Codecs.decode

    def decode(self: Codecs, content_type: str, body: bytes) -> Any:
        return original(self, "json", body)

    put(Codecs, "decode", decode)


def _compare_content_types_loosely() -> None:
    original = Codecs.decode

    def decode(self: Codecs, content_type: str, body: bytes) -> Any:
        return original(self, content_type.strip().lower(), body)

    put(Codecs, "decode", decode)


def _fail_whole_batches() -> None:
    original = Reader.records

    def records(self: Reader, names: Sequence[str], deadline: Deadline | None = None) -> list[Any]:
        found = original(self, names, deadline)
        for each in found:
            if isinstance(each, UpshotError):
                raise each
        return found

    put(Reader, "records", records)


def _edit_opened(edit: Callable[[Record | UpshotError], Any]) -> None:
    original = Envelopes.open

    def opened(self: Envelopes, key: str, body: bytes) -> Any:
        return edit(original(self, key, body))

    put(Envelopes, "open", opened)


def _without_its_id(found: Record | UpshotError) -> Record | UpshotError:
    return CorruptRecordError(str(found)) if isinstance(found, CorruptRecordError) else found


# -- data that does something ---------------------------------------------------------------------


def _edit_exceptions(edit: Callable[[Any, Any], Any]) -> None:
    original = vars(rebuilding)["_original"]

    def rebuilt(failure: Any) -> Any:
        return edit(failure, original(failure))

    put(rebuilding, "_original", rebuilt)


def _construct(failure: Any, exc: Any) -> Any:
    return exc if exc is None else type(exc)(*failure.args)


def _set_attributes(failure: Any, exc: Any) -> Any:
    if exc is not None:
        for name, value in failure.attributes.items():
            setattr(exc, name, value)
    return exc


def _import_modules() -> None:
    original: Any = vars(rebuilding)["loaded_class"]

    def looked_up(module: str, qualname: str) -> type[Exception] | None:
        try:
            importlib.import_module(module)
        except ImportError:
            return None
        found: type[Exception] | None = original(module, qualname)
        return found

    put(rebuilding, "loaded_class", looked_up)


def _unpickle_what_was_pickled() -> None:
    original = Codecs.decode

    def decode(self: Codecs, content_type: str, body: bytes) -> Any:
        return (
            pickle.loads(body) if content_type == "pickle" else original(self, content_type, body)
        )

    put(Codecs, "decode", decode)


def _unpickle_what_looks_pickled() -> None:
    original = JsonSerializer.loads

    def loads(self: JsonSerializer, body: bytes) -> Any:
        return pickle.loads(body) if body[:1] == b"\x80" else original(self, body)

    put(JsonSerializer, "loads", loads)


def _make_dataclasses() -> None:
    def read(payload: Any) -> object:
        module, _, name = payload[0].partition(":")
        return getattr(importlib.import_module(module), name)(*payload[2::2])

    vars(vars(typed_json)["_TAGGING"])["_readers"]["$dataclass"] = read


# -- limits -----------------------------------------------------------------------------------


def _ignore_the_limit() -> None:
    original = Envelopes.__init__

    def made(self: Envelopes, space: keys.Keyspace, **how: Any) -> None:
        how["max_bytes"] = 2**62
        original(self, space, **how)

    put(Envelopes, "__init__", made)


def _look_at_the_limit_last() -> None:
    original = Envelopes.open

    def opened(self: Envelopes, key: str, body: bytes) -> Record | UpshotError:
        try:
            Record.decode(body)
        except CorruptRecordError as exc:
            return exc
        return original(self, key, body)

    put(Envelopes, "open", opened)


def _be_off_by_one() -> None:
    original = Envelopes.__init__

    def made(self: Envelopes, space: keys.Keyspace, **how: Any) -> None:
        how["max_bytes"] -= 1
        original(self, space, **how)

    put(Envelopes, "__init__", made)


def _count_brackets_in_texts() -> None:
    def too_deep(body: bytes) -> bool:
        return body.count(b"[") + body.count(b"{") > 402

    put(typed_json, "_is_too_deep", too_deep)


def _take_texts_for_brackets() -> None:
    def too_deep(body: bytes) -> bool:
        depth = deepest = 0
        for byte in body:
            depth += (byte in b"[{") - (byte in b"]}")
            deepest = max(deepest, depth)
        return deepest > 402

    put(typed_json, "_is_too_deep", too_deep)


def _make_room_first(body: bytes) -> bytes:
    if body[:2] == b"u2":
        (length,) = struct.unpack_from("<I", body, _TEXTS_LENGTH)
        bytearray(length)
    return body


def _never_measure() -> None:
    def too_deep(body: bytes) -> bool:
        return False

    put(typed_json, "_is_too_deep", too_deep)


# -- secrets ------------------------------------------------------------------------------------


def _show_the_url_of_clients() -> None:
    def shown(self: ResultClient) -> str:
        return f"<ResultClient {self.url.driver_url()}>"

    put(ResultClient, "__repr__", shown)


def _show_urls() -> None:
    def shown(self: Url) -> str:
        return f"Url({self.driver_url()!r})"

    put(Url, "__repr__", shown)


def _pass_on_what_drivers_say() -> None:
    def scrubbed(self: Url, text: str) -> str:
        return text

    put(Url, "scrub", scrubbed)


def _hide_what_is_written_plainly() -> None:
    def scrubbed(self: Url, text: str) -> str:
        return text.replace(self.password, "***") if self.password else text

    put(Url, "scrub", scrubbed)


def _hide_nothing_below() -> None:
    def hidden(error: Exception, url: Url) -> None:
        """Do nothing."""

    put(retrying, "hide_secrets", hidden)


def _hide_the_cause_alone() -> None:
    original = retrying.hide_secrets

    def hidden(error: Exception, url: Url) -> None:
        context = error.__context__
        original(error, url)
        error.__context__ = context

    put(retrying, "hide_secrets", hidden)


def _pickle_the_url() -> None:
    put(Origin, "address", property(lambda o: (o.client.url.driver_url(), o.client.namespace)))


def _log_the_url() -> None:
    original: Any = vars(OpenService)["call"]

    def call(self: OpenService[Any], operation: Any, **how: Any) -> Any:
        logger.debug("asking %s", self.url.driver_url())
        return original(self, operation, **how)

    put(OpenService, "call", call)


def _quote_bad_urls() -> None:
    original = Url.parse

    def parse(cls: type[Url], text: str) -> Url:
        try:
            return original(text)
        except UrlError as exc:
            raise UrlError(f"{exc}; got {text!r}") from None

    put(Url, "parse", classmethod(parse))


MUTANTS: Final[dict[str, tuple[str, Callable[[], None]]]] = {
    "namespaces are put in as they are": (
        "IS-1",
        lambda: _write_namespaces(str),
    ),
    "namespaces are lowered": ("IS-1", lambda: _edit_namespaces(str.lower)),
    "namespaces are cut": ("IS-1", lambda: _edit_namespaces(lambda text: text[:48])),
    "namespaces are encoded with underscores": (
        "IS-1",
        lambda: _edit_namespaces(lambda text: text.replace("%", "_")),
    ),
    "namespaces are normalised": (
        "IS-1",
        lambda: _write_namespaces(lambda text: quote(unicodedata.normalize("NFC", text), safe="")),
    ),
    "namespaces are stripped": (
        "IS-1",
        lambda: _write_namespaces(lambda text: quote(text.strip(), safe="")),
    ),
    "any version is read": ("IS-3", lambda: _edit_bodies(lambda body: b"u2" + body[2:])),
    "versions are compared in capitals": (
        "IS-3",
        lambda: _edit_bodies(lambda body: body[:2].lower() + body[2:]),
    ),
    "later texts are ignored": ("IS-3", lambda: _edit_bodies(_cut_texts)),
    "any serializer is taken for JSON": ("IS-3", _take_any_serializer),
    "content types are compared loosely": ("IS-3", _compare_content_types_loosely),
    "one unreadable record fails its batch": ("IS-3", _fail_whole_batches),
    "unreadable records are unknown ones": (
        "IS-3",
        lambda: _edit_opened(lambda found: None if isinstance(found, UpshotError) else found),
    ),
    "unreadable records have no id": ("IS-3", lambda: _edit_opened(_without_its_id)),
    "modules of failures are imported": ("SE-1", _import_modules),
    "constructors of failures are called": ("SE-1", lambda: _edit_exceptions(_construct)),
    "attributes of failures are set": ("SE-1", lambda: _edit_exceptions(_set_attributes)),
    "what was pickled is unpickled": ("SE-1", _unpickle_what_was_pickled),
    "what looks pickled is unpickled": ("SE-1", _unpickle_what_looks_pickled),
    "dataclasses are made as they are named": ("SE-1", _make_dataclasses),
    "the limit of reading is ignored": ("SE-2", _ignore_the_limit),
    "the limit of reading is looked at last": ("SE-2", _look_at_the_limit_last),
    "the limit of reading is off by one": ("SE-2", _be_off_by_one),
    "depth is not measured": ("SE-2", _never_measure),
    "depth is the number of brackets": ("SE-2", _count_brackets_in_texts),
    "brackets in texts count": ("SE-2", _take_texts_for_brackets),
    "room is made for what a record says": ("SE-2", lambda: _edit_bodies(_make_room_first)),
    "numbers may have any length": ("SE-2", lambda: sys.set_int_max_str_digits(0)),
    "chains may have any length": ("SE-2", lambda: put(data, "MAX_DEPTH", 2**31)),
    "failures may have any number of exceptions": (
        "SE-2",
        lambda: put(data, "MAX_EXCEPTIONS", 2**31),
    ),
    "clients show their URL": ("SE-3", _show_the_url_of_clients),
    "URLs show themselves": ("SE-3", _show_urls),
    "what drivers say is passed on": ("SE-3", _pass_on_what_drivers_say),
    "only the plain password is hidden": ("SE-3", _hide_what_is_written_plainly),
    "the chain of errors is passed on": ("SE-3", _hide_nothing_below),
    "the context of errors is passed on": ("SE-3", _hide_the_cause_alone),
    "handles pickle the URL": ("SE-3", _pickle_the_url),
    "the URL is logged": ("SE-3", _log_the_url),
    "bad URLs are quoted": ("SE-3", _quote_bad_urls),
}
"""As `core.MUTANTS`."""
