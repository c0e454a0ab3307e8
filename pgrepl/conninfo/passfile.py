r"""The password file: lines ``host:port:database:user:password``, the first that fits counts.

``*`` alone stands for anything in the first four fields, ``\`` takes the next character as it is, a
line that begins with ``#`` is a comment. A file that others may read is not read.

Source: PostgreSQL documentation, "The Password File" (libpq).
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ..secret import Secret

__all__ = ["PasswordFile"]

_logger: Final = logging.getLogger("pgrepl.conninfo")


class PasswordFile:
    """What a password file holds: nothing where it is missing or, with a warning, not safe."""

    def __init__(self, path: Path) -> None:
        # In a secret, since an object's attributes show in many a report.
        self._content = Secret(_content(path))

    def password(
        self, hosts: tuple[str, ...], port: str, databases: tuple[str, ...], user: str
    ) -> Secret | None:
        """Return the password for a server and a database by any of their names, None where no line
        fits.

        `port` is text, compared as such, as by libpq.
        """
        wanted = (hosts, (port,), databases, (user,))
        for line in self._content.reveal().split("\n"):
            line = line.rstrip("\r")
            # A zero byte ends a line for libpq. Nobody means one, and no password can have it.
            if not line.startswith("#") and "\0" not in line:
                rest = _rest(line, wanted)
                if rest is not None:
                    password = _unescaped(rest)
                    return Secret(password) if password else None
        return None

    def __repr__(self) -> str:
        return "<password file>"


def _content(path: Path) -> str:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return ""
    if os.name != "nt":
        if not stat.S_ISREG(status.st_mode):
            _logger.warning("the password file %s is no plain file, and is not read", path)
            return ""
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            _logger.warning(
                "the password file %s can be accessed by group or others, and is not read; "
                "its permissions should be 0600 or less",
                path,
            )
            return ""
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError:
        return ""


def _rest(line: str, wanted: Iterable[tuple[str, ...]]) -> str | None:
    """Return what comes behind the fields, None where one of them is another."""
    at = 0
    for texts in wanted:
        ends = (_behind(line, at, text) for text in texts)
        end = next((end for end in ends if end is not None), None)
        if end is None:
            return None
        at = end
    return line[at:]


def _behind(line: str, at: int, text: str) -> int | None:
    """Return the position behind the field that begins here, None where it is not `text`.

    It is compared from its beginning, not cut out first: as in libpq, the colons of ``::1`` match
    with and without a backslash.
    """
    if line.startswith("*:", at):
        return at + 2
    for character in text:
        at += line.startswith("\\", at)
        if not line.startswith(character, at):
            return None
        at += 1
    return at + 1 if line.startswith(":", at) else None


def _unescaped(field: str) -> str:
    """Return the field at the beginning, its escapes taken away."""
    text: list[str] = []
    at = 0
    while at < len(field) and field[at] != ":":
        if field[at] == "\\" and at + 1 < len(field):
            at += 1
        text.append(field[at])
        at += 1
    return "".join(text)
