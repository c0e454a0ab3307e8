"""The peers' works: what one can have from released packages, or write by hand in an hour.

The typed ones give the same values as pgrepl, jsonb as text included. What takes the tuple apart is
the fastest of the ways to write it in Python that were tried: slices of bytes, one struct, no
calls. It checks nothing, which favours the peers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from ..tables import Table, text_of
from .work import Loop, Work

# Insert: tag, relation's OID, 'N', number of columns. Relation: tag, OID, then the names.
_TUPLE_START: Final = 8
_NAMES_START: Final = 5

_NULL: Final = ord("n")
_LENGTH_AT: Final = struct.Struct("!i").unpack_from

_MAKERS: Final[dict[int, Callable[[bytes], Any]]] = {
    16: lambda text: text == b"t",
    20: int,
    23: int,
    25: bytes.decode,
    701: float,
    1082: lambda text: date.fromisoformat(text.decode()),
    1184: lambda text: datetime.fromisoformat(text.decode()),
    1700: lambda text: Decimal(text.decode()),
    2950: lambda text: UUID(text.decode()),
    3802: bytes.decode,
}
"""By a type's OID, what makes a value of its text with nothing but the standard library."""


def _type_oids(relation: bytes) -> tuple[int, ...]:
    """Return the columns' types from a Relation's payload."""
    position = relation.index(b"\0", relation.index(b"\0", _NAMES_START) + 1) + 2
    (count,) = struct.unpack_from("!h", relation, position)
    position += 2
    oids = []
    for _ in range(count):
        position = relation.index(b"\0", position + 1) + 1
        oids.append(struct.unpack_from("!I", relation, position)[0])
        position += 8
    return tuple(oids)


def _values_of(payload: bytes) -> list[bytes | None]:
    """Return the columns of an Insert as the bytes that came, None for NULL."""
    values: list[bytes | None] = []
    position = _TUPLE_START
    end = len(payload)
    while position < end:
        if payload[position] != _NULL:
            start = position + 5
            position = start + _LENGTH_AT(payload, position + 1)[0]
            values.append(payload[start:position])
        else:
            values.append(None)
            position += 1
    return values


def _text(data: str | bytes) -> str:
    return data if isinstance(data, str) else bytes(data).decode()


@dataclass(frozen=True, slots=True)
class _Context:
    """What psycopg's Transformer asks of a connection; these values came from none."""

    adapters: Any
    connection: None = None


def _psycopg(relation: bytes, table: Table, form: str) -> Loop:
    """psycopg 3's loaders, in C where it has that, chosen once for the relation."""
    import psycopg
    from psycopg.adapt import AdaptersMap, Transformer
    from psycopg.pq import Format
    from psycopg.types.json import set_json_loads

    if psycopg.pq.__impl__ == "python":
        raise ImportError("this psycopg has no C loaders: pip install 'psycopg[binary]'")
    context: Any = _Context(AdaptersMap(psycopg.adapters))
    set_json_loads(_text, context)
    transformer = Transformer(context)
    is_binary = form == "binary"
    transformer.set_loader_types(_type_oids(relation), Format.BINARY if is_binary else Format.TEXT)
    load = transformer.load_sequence

    def loop(payloads: Iterable[bytes]) -> Any:
        made = None
        for payload in payloads:
            made = load(_values_of(payload))
        return made

    return loop


def _by_hand(relation: bytes, table: Table, form: str) -> Loop:
    """The standard library's constructors, chosen once for the relation."""
    makers = [_MAKERS[oid] for oid in _type_oids(relation)]

    def loop(payloads: Iterable[bytes]) -> Any:
        made = None
        for payload in payloads:
            values = zip(makers, _values_of(payload), strict=True)
            made = tuple([None if text is None else make(text) for make, text in values])
        return made

    return loop


def _pypgoutput(relation: bytes, table: Table, form: str) -> Loop:
    """pypgoutput's decoder: every column a str, typed by nobody."""
    try:
        from pypgoutput.decoders import Insert
    except ImportError as error:
        raise ImportError(
            f"{error}: pip install pydantic, then pip install --no-deps pypgoutput"
        ) from error

    def loop(payloads: Iterable[bytes]) -> Any:
        made = None
        for payload in payloads:
            made = Insert(payload)
        return made

    return loop


def _texts(table: Table, row_id: int) -> Sequence[Any]:
    return [text_of(value) for value in table.values(row_id)]


PEERS: Final[dict[str, Work]] = {
    "psycopg": Work(_psycopg),
    "by-hand": Work(_by_hand),
    "pypgoutput": Work(
        _pypgoutput,
        _texts,
        lambda made, table: [column.col_data for column in made.new_tuple.column_data],
    ),
}
