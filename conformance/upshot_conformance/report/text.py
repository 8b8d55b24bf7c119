"""Makes text from anywhere fit for a report: no passwords, no terminal escapes, no end of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from upshot.errors import UrlError
from upshot.url import Url, mask

__all__ = ["LONGEST", "Scrubber", "plain"]

LONGEST: Final = 20_000
"""Characters of a message that are kept; what pytest prints of one failure is rarely longer."""

_ESCAPES: Final = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])"
)
"""What terminals obey: colours and cursor (CSI), titles and links (OSC), and the short ones."""

_UNSHOWABLE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
    "\ufeff\ufffe\uffff]"
)
"""Characters that XML forbids, that no encoding has, or that reorder the text around them."""


def plain(text: str) -> str:
    """Return the text without terminal escapes, and with `\\x00` for what cannot be shown."""
    text = _ESCAPES.sub("", text.replace("\r\n", "\n"))
    return _UNSHOWABLE.sub(lambda found: ascii(found[0])[1:-1], text)


class Scrubber:
    """Hides the passwords of some URLs in any text, however they are written.

    Args:
        urls: as given, passwords included; one that cannot be read is passed over.
    """

    def __init__(self, urls: Iterable[str]) -> None:
        self._urls = list(_parsed(urls))
        self._known: dict[str, str] = {"": ""}  # one reason is told by many tests

    def __call__(self, text: str) -> str:
        """Return the text plain, and without the passwords; at most about `LONGEST` long.

        It is scrubbed before and after it is made plain: an escape may stand inside a password.
        It is cut last, so that no half of a password is left.
        """
        if text not in self._known:
            shown = self._without_secrets(plain(self._without_secrets(text)))
            self._known[text] = _cut(shown)
        return self._known[text]

    def _without_secrets(self, text: str) -> str:
        for url in self._urls:
            text = url.scrub(text)
        return mask(text)


def _parsed(urls: Iterable[str]) -> Iterable[Url]:
    for text in urls:
        try:
            yield Url.parse(text)
        except UrlError:
            continue  # it was never connected to, and `mask` needs no reading


def _cut(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
