"""The tables rebuilt in memory from nothing but the stream, to be compared with the real ones."""

from __future__ import annotations

from typing import Any, TypeAlias

from ...blocking.connection import Connection
from ...codec import Row
from ...messages import UNCHANGED, Delete, Insert, LogicalMessage, Relation, Truncate, Update

__all__ = ["Replica"]

_Values: TypeAlias = tuple[Any, ...]


class Replica:
    """The rows of every table that the stream has spoken of, by primary key.

    A change that does not fit, since one before it was lost, leaves a row that differs.
    """

    def __init__(self) -> None:
        self._tables: dict[str, dict[_Values, _Values]] = {}
        self._columns: dict[str, tuple[str, ...]] = {}

    def apply(self, message: LogicalMessage) -> None:
        """Do to the replica what was done to the table."""
        match message:
            case Relation():
                self._tables.setdefault(message.name, {})
                self._columns[message.name] = tuple(column.name for column in message.columns)
            case Insert(relation, new):
                self._tables[relation.name][_key(relation, new)] = new.values()
            case Update(relation, key, _, new):
                rows = self._tables[relation.name]
                before = rows.pop(_key(relation, new) if key is None else key.values(), new)
                rows[_key(relation, new)] = tuple(
                    old if value is UNCHANGED else value
                    for old, value in zip(before, new, strict=True)
                )
            case Delete(relation, Row() as key):
                self._tables[relation.name].pop(key.values(), None)
            case Truncate(relations):
                for relation in relations:
                    self._tables[relation.name].clear()

    def __len__(self) -> int:
        """Return the number of rows in all tables."""
        return sum(map(len, self._tables.values()))

    def differing_rows(self, connection: Connection) -> int:
        """Return how many rows are not there, too many, or not the same as on the server."""
        return sum(
            len(set(rows.values()) ^ _server_rows(connection, table, self._columns[table]))
            for table, rows in self._tables.items()
        )


def _server_rows(connection: Connection, table: str, columns: tuple[str, ...]) -> set[_Values]:
    listed = ", ".join(f'"{column}"' for column in columns)
    [result] = connection.query(f'SELECT {listed} FROM public."{table}"')
    return set(result.rows)


def _key(relation: Relation, row: Row) -> _Values:
    return tuple(row[column.name] for column in relation.key_columns)
