"""The connection service file: a section of it stands in for what the conninfo leaves open.

``[name]`` lines begin a section, ``keyword=value`` lines are its contents, ``#`` begins a comment.
Values go to the end of the line as they are, without quotes or escapes. Contents are never shown: a
mistake is told by the number of its line.

Source: PostgreSQL documentation, "The Connection Service File" (libpq).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..errors import UsageError
from . import locations
from .keywords import KEYWORDS, unknown_keyword
from .values import Given

__all__ = ["look_up"]

_SPACE: Final = b" \t\n\r\f\v"
# libpq reads lines, and what ends them, into a buffer of 1024 bytes, and refuses what fills it.
_MAX_LINE: Final = 1022


def look_up(service: Given, file: Given | None) -> dict[str, Given]:
    """Return the section of this name, by keyword; `file`: which file was named, if any.

    Otherwise the user's file is read, and the system's where the former does not have the section.
    Raises `UsageError` where there is none, or it makes no sense.
    """
    for path, shown in _files(file):
        section = _section(path, shown, service.text)
        if section is not None:
            return section
    first = "~/.pg_service.conf" if file is None else _named(file)
    raise UsageError(
        f"expected a section for the service that {service.source} names in {first} or the "
        "system's pg_service.conf, found none; PGSERVICEFILE and PGSYSCONFDIR name other places"
    )


def _named(file: Given) -> str:
    # The name in a conninfo may be a piece of something else.
    return f"the service file that {file.source} names"


def _files(file: Given | None) -> Iterator[tuple[Path, str]]:
    """Yield what is to be read, with how it is called."""
    if file is not None:
        yield Path(file.text), _named(file)
    else:
        own = locations.service_file()
        if own is not None and locations.is_there(own):
            yield own, str(own)
    for path in locations.system_service_files():
        if locations.is_there(path):
            yield path, str(path)
            return


def _section(path: Path, shown: str, name: str) -> dict[str, Given] | None:
    """Return the first section of this name, None where there is none."""
    header = b"[" + name.encode("utf-8", "surrogateescape") + b"]"
    found: dict[str, Given] | None = None
    for number, line in enumerate(_lines(path, shown), 1):
        where = f"line {number} of {shown}"
        if len(line) > _MAX_LINE:
            raise UsageError(f"expected at most {_MAX_LINE} bytes in {where}, got more")
        line = line.strip(_SPACE)
        if line.startswith(b"["):
            if found is not None:
                break
            found = {} if line.startswith(header) else None
        elif found is not None and line and not line.startswith(b"#"):
            keyword, value = _setting(line, where)
            # The first one holds, unlike in a conninfo.
            found.setdefault(keyword, value)
    return found


def _lines(path: Path, shown: str) -> Iterator[bytes]:
    """Yield the lines, of one that is too long its beginning: a file may have no end."""
    try:
        with path.open("rb") as file:
            while line := file.readline(_MAX_LINE + 1):
                yield line
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its name makes no sense"
        raise UsageError(f"expected to read {shown}, and could not: {reason}") from None


def _setting(line: bytes, where: str) -> tuple[str, Given]:
    keyword, equals, value = line.decode("utf-8", "surrogateescape").partition("=")
    if keyword.startswith("ldap"):
        raise UsageError(
            f"a lookup by LDAP is not supported by pgrepl, in {where}; write the parameters there"
        )
    if not equals:
        raise UsageError(f"expected keyword=value in {where}, got another form")
    if keyword in ("service", "servicefile"):
        raise UsageError(f"expected no {keyword} inside a service, got one in {where}")
    if keyword not in KEYWORDS:
        raise unknown_keyword(keyword, f"in {where}")
    return keyword, Given(value, where)
