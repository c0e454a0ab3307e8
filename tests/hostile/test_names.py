"""Names that a server gives its tables and columns are text, whatever they say, and no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pgrepl.aio.connection import connect as connect_async
from pgrepl.codec import Row
from pgrepl.lsn import Lsn
from pgrepl.messages import Begin, Column, Commit, Insert, Relation
from tests.hostile.decoded import decoded, said, stream_of
from tests.hostile.sessions import PATIENCE, address
from tests.support.event_loops import running
from tests.support.flavours import ASYNCHRONOUS, Flavour
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


def names_in(names: list[str]) -> tuple[bytes, tuple[str, ...]]:
    """A transaction with a row of these columns, and its values."""
    columns = tuple(Column(name, 25, -1, False) for name in names)
    values = tuple(str(number) for number in range(len(names)))
    relation = Relation(7, "x'; DROP", "__class__", "d", columns)
    transaction = (
        said(Begin(Lsn(0x3000), 0, 9), 0x2F00)
        + said(relation, 0x2F00)
        + said(Insert(relation, Row(relation, values)), 0x2F10)
        + said(Commit(Lsn(0x3000), Lsn(0x3010), 0), 0x3000)
    )
    return transaction, values


def expect_plain_text(insert: Any, names: list[str], values: tuple[str, ...]) -> None:
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
    assert (repr(row) + repr(insert.relation)).isprintable()


def test_v16_names_are_plain_text(connect: Callable[..., Any], names: list[str]) -> None:
    transaction, values = names_in(names)
    with ScriptedServer(decoded(transaction, _until_the_end)) as server:
        connection, stream = stream_of(connect, server)
        expect_plain_text(next(each for each in stream if isinstance(each, Insert)), names, values)
        connection.close()
        stream.stop()


@pytest.mark.flavours(*ASYNCHRONOUS)
def test_v16_names_are_plain_text_to_asyncio(flavour: Flavour, names: list[str]) -> None:
    transaction, values = names_in(names)

    async def main(server: ScriptedServer) -> None:
        connection = await connect_async(**address(server), _codec=flavour.codec)
        stream = await connection.stream("s", publications=["p"])
        async for each in stream:
            if isinstance(each, Insert):
                expect_plain_text(each, names, values)
                break
        await connection.close()
        await stream.stop()

    with (
        ScriptedServer(decoded(transaction, _until_the_end)) as server,
        running(flavour.loop, PATIENCE) as run,
    ):
        run(main(server))


def _until_the_end(peer: Any) -> None:
    while peer.recv_exactly(1):
        pass
