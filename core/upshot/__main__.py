"""`python -m upshot` is the command `upshot`."""

from __future__ import annotations

from upshot.cli import main

main()
