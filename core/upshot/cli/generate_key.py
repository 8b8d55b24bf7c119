"""`upshot generate-key`: a key for `signing_keys` or `encryption_keys`."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from upshot.cli.exits import OK
from upshot.cli.printing import show_lines
from upshot.keyring import new_key

__all__ = ["generate_key"]


@click.command("generate-key")
@click.option("--id", "key_id", metavar="ID", help="What the key is called; today's date if none.")
def generate_key(key_id: str | None) -> int:
    """Print a new random key of 256 bits, as signing_keys and encryption_keys take it.

    One key for each of the two. Whoever has it can read or forge everything: keep it where
    passwords are kept. To change keys, put the new one behind the old one everywhere, then before
    it, and take the old one away when nothing is kept any more that was made with it.
    """
    show_lines(new_key(key_id or f"{datetime.now(UTC):%Y-%m-%d}"), indent="")
    return OK
