"""Names that a server gives its tables and columns are text, whatever they say, and no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pgrepl.codec import Row
from pgrepl.messages import Begin, Column, Commit, Insert, Relation
from tests.hostile.decoded import decoded, said, stream_of
from tests.support.scripted import ScriptedServer

HOSTILE = (
    *("__class__", "__dict__", "__getattr__", "self", "keys", "items", "astuple", "password"),
    *('a"b', "x'; DROP TABLE t; --", "x; import os", "{0.__class__}", "%(password)s", "${HOME}"),
    *("", " ", "\n", "\x1b[2J", "‮", "🐘" * 63, "x" * 4000),
)


@pytest.fixture
def names() -> list[str]:
    # Some of them twice, as no real server would have it.
    return [*HOSTILE, *HOSTILE[:3]]


def test_v16_names_are_plain_text(connect: Callable[..., Any], names: list[str]) -> None:
    columns = tuple(Column(name, 25, -1, False) for name in names)
    values = tuple(str(number) for number in range(len(names)))

    relation = Relation(7, "x'; DROP", "__class__", "d", columns)
    transaction = (
        said(Begin(0x3000, 0, 9), 0x2F00)
        + said(relation, 0x2F00)
        + said(Insert(relation, Row(relation, values)), 0x2F10)
        + said(Commit(0x3000, 0x3010, 0), 0x3000)
    )
    with ScriptedServer(decoded(transaction, _until_the_end)) as server:
        connection, stream = stream_of(connect, server)
        insert = next(each for each in stream if isinstance(each, Insert))
        assert (insert.relation.schema, insert.relation.name) == ("x'; DROP", "__class__")
        assert [column.name for column in insert.relation.columns] == names
        assert all(type(column.name) is str for column in insert.relation.columns)
        row = insert.new
        assert tuple(row) == values
        assert [row[name] for name in HOSTILE] == list(values[: len(HOSTILE)])
        assert list(row.keys()) == names
        assert row.__class__ is type(row)
        # What a row has, it has of its own: no name of a column is one of its attributes.
        for name in HOSTILE:
            assert getattr(row, name, None) not in values
        assert "__class__" in repr(row)
        connection.close()
        stream.stop()


def _until_the_end(peer: Any) -> None:
    while peer.recv_exactly(1):
        pass
