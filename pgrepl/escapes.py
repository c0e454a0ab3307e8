"""Text that came from elsewhere, so that it cannot do anything to a terminal.

What does not print is written by its number, as PostgreSQL's ``E'...'`` strings have it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["escaped", "printable"]

_NAMED_ESCAPES: Final = {"\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t"}
_FEW: Final = 16
"""Different characters that are replaced one by one."""


def printable(text: str) -> str:
    """Return text for one line, with what does not print escaped; a backslash stays as it is."""
    return escaped(text, _escape)


def escaped(text: str, escape: Callable[[str], str]) -> str:
    """Return text with what does not print escaped, each character as `escape` says."""
    if text.isprintable():
        return text
    odd = [character for character in set(text) if not character.isprintable()]
    if len(odd) > _FEW:
        return "".join(c if c.isprintable() else escape(c) for c in text)
    # Character by character would be slow where long text has a line end here and there.
    for character in odd:
        text = text.replace(character, escape(character))
    return text


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python has a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return _NAMED_ESCAPES.get(character, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
