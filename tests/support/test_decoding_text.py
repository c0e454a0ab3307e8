"""What PostgreSQL's own output plugin test_decoding writes, read back into values.

Law: a line is understood to its last character, or refused. Names and values are as the server has
them, without the quotes that SQL puts around some; whatever else the plugin can write (streamed and
prepared transactions, rewritten tables) nobody asks for here, and it is refused as well.

Source: what servers from 14 to 18 write; PostgreSQL's documentation has examples alone, in
"test_decoding - SQL-based test/example module for WAL logical decoding".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, TypeAlias

from pgrepl.messages import UNCHANGED, Unchanged

__all__ = ["Begin", "Commit", "Datum", "Event", "Message", "RowChange", "Truncate", "parse"]


class Datum(NamedTuple):
    """A column of a row: its value is what the type's output function wrote."""

    name: str
    type_name: str  # as format_type() has it, without a modifier
    value: str | Unchanged | None


Row: TypeAlias = tuple[Datum, ...]
Table: TypeAlias = tuple[str, str]  # schema and name


@dataclass(frozen=True)
class Begin:
    """`xid` is None where the plugin was asked to leave it out."""

    xid: int | None


@dataclass(frozen=True)
class Commit:
    """`xid` and `time` are None where the plugin was not asked for them."""

    xid: int | None
    time: datetime | None


@dataclass(frozen=True)
class RowChange:
    """INSERT, UPDATE or DELETE. A row that was not logged is None.

    `old` has what the replica identity gives, without what is NULL.
    """

    kind: str
    table: Table
    old: Row | None
    new: Row | None


@dataclass(frozen=True)
class Truncate:
    """Tables emptied by one command."""

    tables: tuple[Table, ...]
    restart_identity: bool
    cascade: bool


@dataclass(frozen=True)
class Message:
    """What pg_logical_emit_message() wrote."""

    transactional: bool
    prefix: str
    content: bytes


Event: TypeAlias = Begin | Commit | RowChange | Truncate | Message

_NAME: Final = r'(?:[a-z_][a-z0-9_]*|"[^"]*(?:""[^"]*)*")'
_BEGIN: Final = re.compile(r"BEGIN(?: (\d+))?")
_COMMIT: Final = re.compile(r"COMMIT(?: (\d+))?(?: \(at ([^()]+)\))?")
_TABLE: Final = re.compile(rf"({_NAME})\.({_NAME})")
_CHANGE: Final = re.compile(
    rf"table ({_NAME}\.{_NAME}(?:, {_NAME}\.{_NAME})*): (INSERT|UPDATE|DELETE|TRUNCATE):"
)
_FLAGS: Final = re.compile(r" \(no-flags\)|( restart_seqs)?( cascade)?")
_DATUM: Final = re.compile(
    rf' ({_NAME})\[((?:"[^"]*(?:""[^"]*)*"|[^"\[\]])+(?:\[\])?)\]:'
    r"(?:B?'([^']*(?:''[^']*)*)'|([^ ']+))(?= |$)"
)
_MESSAGE: Final = re.compile(r"message: transactional: ([01]) prefix: ")
_SIZE: Final = re.compile(r", sz: (\d+) content:")

_OLD, _NEW, _NO_ROW = " old-key:", " new-tuple:", " (no-tuple-data)"

_BARE: Final[dict[str, str | Unchanged | None]] = {
    "null": None,
    "unchanged-toast-datum": UNCHANGED,
    # The literals of SQL, for what the type itself writes.
    "true": "t",
    "false": "f",
}


def parse(line: bytes) -> Event:
    """Read what the plugin wrote at once, which has line ends of its own where a value has.

    Raises `ValueError` for a line that is not understood.
    """
    # A message may hold anything; sizes are in bytes.
    text = line.decode(errors="surrogateescape")
    if begin := _BEGIN.fullmatch(text):
        return Begin(_number(begin[1]))
    if commit := _COMMIT.fullmatch(text):
        time = None if commit[2] is None else datetime.fromisoformat(commit[2])
        return Commit(_number(commit[1]), time)
    if message := _MESSAGE.match(text):
        return _message(message[1] == "1", text[message.end() :])
    if change := _CHANGE.match(text):
        tables = tuple((_unquoted(m[1]), _unquoted(m[2])) for m in _TABLE.finditer(change[1]))
        if change[2] == "TRUNCATE":
            return _truncate(tables, text[change.end() :])
        if len(tables) == 1:
            return _row_change(change[2], tables[0], text, change.end())
    raise ValueError(f"expected a line of test_decoding, got {_shown(text)}")


def _number(digits: str | None) -> int | None:
    return None if digits is None else int(digits)


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 200 else f"{text[:200]}...")


def _message(transactional: bool, rest: str) -> Message:
    """The prefix ends nowhere but where the size fits what remains."""
    found = [
        Message(transactional, rest[: size.start()], content)
        for size in _SIZE.finditer(rest)
        if len(content := rest[size.end() :].encode(errors="surrogateescape")) == int(size[1])
    ]
    if len(found) != 1:
        raise ValueError(
            f"expected a message whose prefix ends in one place, it may in {len(found)}: "
            f"{_shown(rest)}"
        )
    return found[0]


def _truncate(tables: tuple[Table, ...], rest: str) -> Truncate:
    flags = _FLAGS.fullmatch(rest)
    if flags is None or not rest:
        raise ValueError(f"expected the flags of a TRUNCATE, got {_shown(rest)}")
    return Truncate(tables, flags[1] is not None, flags[2] is not None)


def _row_change(kind: str, table: Table, text: str, at: int) -> RowChange:
    old: Row | None = None
    new: Row | None = None
    if kind == "DELETE":
        old, at = _row(text, at)
    else:
        if kind == "UPDATE" and text.startswith(_OLD, at):
            old, at = _data(text, at + len(_OLD))
            if not text.startswith(_NEW, at):
                raise ValueError(f"expected{_NEW} at {at}, got {_shown(text[at:])}")
            at += len(_NEW)
        new, at = _row(text, at)
    if at != len(text):
        raise ValueError(f"expected a column or the end at {at}, got {_shown(text[at:])}")
    return RowChange(kind, table, old, new)


def _row(text: str, at: int) -> tuple[Row | None, int]:
    if text.startswith(_NO_ROW, at):
        return None, at + len(_NO_ROW)
    return _data(text, at)


def _data(text: str, at: int) -> tuple[Row, int]:
    """The columns from `at` on, and where they end."""
    data = []
    while column := _DATUM.match(text, at):
        name, type_name, quoted, bare = column.groups()
        value = _BARE.get(bare, bare) if quoted is None else quoted.replace("''", "'")
        data.append(Datum(_unquoted(name), type_name, value))
        at = column.end()
    return tuple(data), at
