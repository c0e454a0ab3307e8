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

    def password(self, hosts: Iterable[str], port: int, database: str, user: str) -> Secret | None:
        """Return the password for a server by any of its names, None where no line fits."""
        wanted = (tuple(hosts), (str(port),), (database,), (user,))
        for line in self._content.reveal().split("\n"):
            line = line.rstrip("\r")
            if not line.startswith("#"):
                rest = _rest(line, wanted)
                if rest is not None:
                    password = _field(rest, 0)[0]
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
        text, end = _field(line, at)
        if end == len(line) or (line[at:end] != "*" and text not in texts):
            return None
        at = end + 1
    return line[at:]


def _field(line: str, at: int) -> tuple[str, int]:
    """Return the field that begins here, its escapes taken away, and where it ends."""
    text: list[str] = []
    while at < len(line) and line[at] != ":":
        if line[at] == "\\" and at + 1 < len(line):
            at += 1
        text.append(line[at])
        at += 1
    return "".join(text), at
