"""Passwords of private servers, which can be told from all other text."""

from __future__ import annotations

import secrets
from typing import Final

__all__ = ["PASSWORD_MARK", "new_password"]

PASSWORD_MARK: Final = "notToBeShown"
"""What every password begins with that `new_password` makes; look for it in all that is printed."""


def new_password() -> str:
    """Return a password that nothing has had before: `PASSWORD_MARK` and 128 random bits in hex."""
    return PASSWORD_MARK + secrets.token_hex(16)
