"""Names and values in SQL that is shown: quoted, and as they can be copied from a terminal.

A character that does not print is written by its number, in the forms ``U&"..."`` and ``E'...'``.

Source: PostgreSQL documentation, "Lexical Structure".
"""

from __future__ import annotations

import re
from typing import Final

from ..errors import UsageError
from ..escapes import printable

__all__ = ["NO_TEXT", "identifier", "literal", "qualified"]

NO_TEXT: Final = re.compile("[\udc80-\udcff]")
"""Matches what Python has in the place of bytes that are no UTF-8."""


def identifier(name: str) -> str:
    """Quote the name of an object."""
    _refuse_zero(name)
    if name.isprintable() or NO_TEXT.search(name):  # which no notation has
        return '"' + name.replace('"', '""') + '"'
    escaped = name.replace("\\", r"\\").replace('"', '""')
    return 'U&"' + "".join(map(_numbered, escaped)) + '"'


def qualified(schema: str, name: str) -> str:
    """Quote the name of an object in a schema."""
    return f"{identifier(schema)}.{identifier(name)}"


def literal(value: str) -> str:
    """Quote a value, whatever standard_conforming_strings says."""
    _refuse_zero(value)
    doubled = value.replace("'", "''")
    if doubled.isprintable() and "\\" not in doubled:
        return f"'{doubled}'"
    return "E'" + printable(doubled.replace("\\", r"\\")) + "'"


def _refuse_zero(text: str) -> None:
    if "\0" in text:
        raise UsageError("expected text without zero bytes, which PostgreSQL cannot hold")


def _numbered(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\{code:04x}" if code < 0x10000 else f"\\+{code:06x}"
