"""What the first argument of an app may be."""

from __future__ import annotations

from upshot.errors import ConfigError
from upshot.url import mask

__all__ = ["check_main"]


def check_main(main: object) -> str | None:
    """Return the name of a module; None if none was given.

    A file that is run may be called what no `import` can say, such as `my-jobs.py`: hyphens, and
    digits at the beginning, are fine.

    Raises:
        ConfigError: it can be no module's name, such as a URL that was meant for `broker=`.
    """
    if main is None or (isinstance(main, str) and all(map(_is_module, main.split(".")))):
        return main
    given = mask(repr(main))
    hint = f"; did you mean broker={given}?" if "://" in given else ", such as 'shop.jobs'"
    raise ConfigError(f"App({given}): {given} is no module's name{hint}")


def _is_module(part: str) -> bool:
    return part != "" and f"_{part.replace('-', '_')}".isidentifier()
