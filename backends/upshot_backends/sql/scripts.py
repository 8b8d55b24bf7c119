"""Statements that only one service understands, each in a file of its own, in that service's SQL.

A file names the tables as `{results}`, `{messages}` and so on. It has nothing to do with the
database's own scripts or procedures: nothing is installed in the server.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources

from sqlalchemy.engine import Dialect

from upshot_backends.sql.schema import Schema

__all__ = ["scripts"]


def scripts(package: str, schema: Schema, dialect: Dialect) -> Callable[[str], str]:
    """Return a function that reads `<package>/scripts/<name>.sql`, with our tables' names in it."""
    folder = resources.files(package) / "scripts"
    write = dialect.identifier_preparer.format_table
    names = {
        f"{{{table.name.removeprefix(schema.prefix)}}}": write(table) for table in schema.tables
    }

    def read(name: str) -> str:
        text = (folder / f"{name}.sql").read_text("utf-8").strip()
        for word, table in names.items():
            text = text.replace(word, table)
        return text

    return read
