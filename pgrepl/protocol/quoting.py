"""The replication grammar: names and values quoted, options listed, and which server knows what.

This grammar is not SQL: keywords are upper case, a quoted identifier has no escape for a quote
inside it and is cut off behind 63 bytes, and a backslash in a literal stands for itself. From
PostgreSQL 15 on commands take their options in parentheses, before that as bare words.

Source: PostgreSQL documentation, "Streaming Replication Protocol".
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Final

from ..errors import UsageError
from .backend import ServerState

__all__ = [
    "boolean",
    "has_option_lists",
    "identifier",
    "literal",
    "option_list",
    "publication_list",
    "require",
    "timeline_id",
]

_MAX_NAME: Final = 63
_OPTION_LISTS: Final = 150000


def identifier(name: str) -> str:
    """Quote a slot, plugin, setting or option name.

    A longer name than a server keeps is refused: the server would cut it off without an error, and
    create or drop a slot of another name.
    """
    if not name or '"' in name or "\0" in name:
        raise UsageError(
            "expected a name, without quotes and zero bytes, which this grammar cannot say, "
            f"got {name!r}"
        )
    size = _size(name)
    if size > _MAX_NAME:
        raise UsageError(
            f"expected a name of at most {_MAX_NAME} bytes, behind which the server would cut it "
            f"off, got {size}: {name[:_MAX_NAME]!r}..."
        )
    return f'"{name}"'


def _size(text: str) -> int:
    """Return how many bytes a text has as it is sent; half of a surrogate pair cannot be."""
    try:
        return len(text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        raise UsageError(f"expected text that UTF-8 can say, got {text!r}") from None


def literal(value: str) -> str:
    """Quote a value."""
    if "\0" in value:
        raise UsageError(f"expected a value without zero bytes, got {value!r}")
    _size(value)
    return "'" + value.replace("'", "''") + "'"


def boolean(value: bool) -> str:
    """Return a value of an option that is on or off."""
    return "true" if value else "false"


def publication_list(names: Iterable[str]) -> str:
    """Return publication names as pgoutput's option wants them: each an SQL identifier.

    The list stands in a literal of the command, which is quoted once more around it.
    """
    if isinstance(names, str):
        raise UsageError(
            f"expected several publication names, got the text {names!r}; use [{names!r}]"
        )
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    if not quoted or '""' in quoted:
        raise UsageError("expected one publication name or more, none of them empty")
    return ",".join(quoted)


def timeline_id(timeline: int) -> str:
    """Return the number of a timeline, 1 to 2**32-1; `UsageError` for any other."""
    if not 1 <= timeline <= 0xFFFFFFFF:
        raise UsageError(f"expected a timeline from 1 to {0xFFFFFFFF}, got {timeline}")
    return str(operator.index(timeline))


def has_option_lists(state: ServerState) -> bool:
    """Whether the server takes options in parentheses."""
    return state.version >= _OPTION_LISTS


def option_list(options: Iterable[str]) -> list[str]:
    """Return options in parentheses, one word of a command, or none where there are none."""
    listed = ", ".join(options)
    return [f"({listed})"] if listed else []


def require(state: ServerState, version: int, what: str) -> None:
    """Raise `UsageError` for a server older than `version`, 170000 for instance.

    `what` begins the sentence: ``"failover slots need"``.
    """
    if state.version < version:
        raise UsageError(
            f"{what} PostgreSQL {version // 10000} or later, the server is "
            f"{state.parameters.get('server_version', 'of unknown version')}"
        )
