"""Values ⇄ bytes: typed JSON (the default), typed msgpack, and pickle for those who ask."""

from __future__ import annotations

from upshot.serializers.base import Codecs, Serializer
from upshot.serializers.pickled import PickleSerializer
from upshot.serializers.shaping import shape
from upshot.serializers.typed_json import JsonSerializer
from upshot.serializers.typed_msgpack import MsgpackSerializer

__all__ = [
    "Codecs",
    "JsonSerializer",
    "MsgpackSerializer",
    "PickleSerializer",
    "Serializer",
    "shape",
]
