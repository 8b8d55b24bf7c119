"""Results that are too large for their records, kept in a folder or in what fsspec reaches."""

from __future__ import annotations

from upshot.offload.base import Offload
from upshot.offload.folder import Folder
from upshot.offload.place import Place
from upshot.offload.remote import Remote

__all__ = ["Folder", "Offload", "Place", "Remote"]
