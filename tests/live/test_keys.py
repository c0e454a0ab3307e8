"""By what a changed row can be found: every value of a key that the server sends is there.

Where a partitioned table is published as one, a change has the table's description and the
partition's key, and the two need not agree.
"""

from __future__ import annotations

import datetime
import json
import pickle
from types import ModuleType
from typing import Any

import pytest

import pgrepl
from pgrepl import UNCHANGED
from pgrepl.cli.stream.formats import JsonFormat
from tests.live.streams import Connect, create_slot, receive_transactions, start_pgoutput
from tests.support.clusters import Database
from tests.support.flavours import Flavour


class Tables:
    """A database whose tables are published, partitioned ones as one."""

    def __init__(self, database: Database, connect: Connect, codec: ModuleType) -> None:
        self._database = database
        self._connect = connect
        self._decoder = codec.Decoder()

    def changes(self, setup: str, *statements: str) -> list[Any]:
        """The changes that statements make, each a transaction of its own."""
        database = self._database
        database.execute(
            setup + "; CREATE PUBLICATION p FOR ALL TABLES WITH (publish_via_partition_root = true)"
        )
        slot = create_slot(database)
        for statement in statements:
            database.execute(statement)
        with self._connect(database.dsn()) as connection:
            start_pgoutput(connection, slot)
            messages = [
                self._decoder.feed(m) for m in receive_transactions(connection, len(statements))
            ]
        kinds = pgrepl.Insert | pgrepl.Update | pgrepl.Delete | pgrepl.Truncate
        return [message for message in messages if isinstance(message, kinds)]


@pytest.fixture
def tables(database: Database, connect: Connect, flavour: Flavour) -> Tables:
    return Tables(database, connect, flavour.codec)


ROOT = "CREATE TABLE root (id int, day date NOT NULL, note text) PARTITION BY RANGE (day)"
LEAF = "CREATE TABLE leaf PARTITION OF root FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')"
WRITES = (
    "INSERT INTO root VALUES (4, '2024-05-01', NULL)",
    "UPDATE root SET note = 'a'",
    "UPDATE root SET id = 5",
    "DELETE FROM root",
)
DAY = datetime.date(2024, 5, 1)


def test_of_a_partition_alone(tables: Tables) -> None:
    setup = f"{ROOT}; {LEAF}; ALTER TABLE leaf ADD PRIMARY KEY (id)"
    _, other, update, delete = tables.changes(setup, *WRITES)
    assert update.relation.key_columns == ()
    assert (update.key.asdict(), update.old) == ({"id": 4}, None)
    assert (delete.key.asdict(), delete.old) == ({"id": 5}, None)
    key = delete.identity
    assert (key is delete.key, key[0], key["id"], key.raw("id")) == (True, 5, 5, b"5")
    assert [column.name for column in key.columns] == ["id"]
    as_text = pgrepl.Row(delete.relation, [key.raw(0).decode()], places=key.places)
    line = JsonFormat().line(pgrepl.Delete(delete.relation, as_text, None), 0)
    assert json.loads(line)["key"] == {"id": "5"}
    # Nothing says by what this row can be found, and no condition at all would find every row.
    assert (other.key, other.old) == (None, None)
    with pytest.raises(pgrepl.UsageError, match=r"public\.root, whose replica identity is 'd'"):
        other.identity  # noqa: B018


def test_of_a_partition_other_than_the_tables(tables: Tables) -> None:
    setup = (
        f"{ROOT}; ALTER TABLE root ADD PRIMARY KEY (id, day); {LEAF};"
        " CREATE UNIQUE INDEX i ON leaf (id); ALTER TABLE leaf REPLICA IDENTITY USING INDEX i"
    )
    _, other, update, delete = tables.changes(setup, *WRITES)
    assert [column.name for column in update.relation.key_columns] == ["id", "day"]
    # `day` is no part of the key that came: None would say that it is NULL.
    assert (update.key.asdict(), delete.key.asdict()) == ({"id": 4}, {"id": 5})
    assert other.identity.asdict() == {"id": 4, "day": DAY}


def test_full_of_a_partition_alone(tables: Tables) -> None:
    setup = f"{ROOT}; {LEAF}; ALTER TABLE leaf REPLICA IDENTITY FULL"
    _, other, update, delete = tables.changes(setup, *WRITES)
    assert other.identity.asdict() == {"id": 4, "day": DAY}
    assert update.identity.asdict() == {"id": 4, "day": DAY, "note": "a"}
    assert delete.identity.asdict() == {"id": 5, "day": DAY, "note": "a"}


def test_full_of_the_table_alone(tables: Tables) -> None:
    # The server calls the partition's key a full row. What it says no more of is at least not made
    # a key, nor taken for what an unchanged value was.
    setup = (
        f"{ROOT}; ALTER TABLE root REPLICA IDENTITY FULL; {LEAF};"
        " ALTER TABLE leaf ADD PRIMARY KEY (id), ALTER note SET STORAGE EXTERNAL"
    )
    writes = (*WRITES[:1], "UPDATE root SET note = repeat('y', 9000)", *WRITES[2:])
    _, other, update, delete = tables.changes(setup, *writes)
    assert (other.key, other.old) == (None, None)
    with pytest.raises(pgrepl.UsageError, match="the same replica identity"):
        other.identity  # noqa: B018
    assert update.identity["id"] == 4
    assert update.new["note"] is update.complete()["note"] is UNCHANGED
    assert delete.identity["id"] == 5


def test_a_key_that_is_stored_out_of_line(tables: Tables) -> None:
    setup = (
        "CREATE TABLE t (id text PRIMARY KEY, n int, note text);"
        " ALTER TABLE t ALTER id SET STORAGE EXTERNAL, ALTER note SET STORAGE EXTERNAL"
    )
    long = "repeat('k', 2200)"
    _, update = tables.changes(
        setup, f"INSERT INTO t VALUES ({long}, 1, repeat('x', 9000))", "UPDATE t SET n = 2"
    )
    # The key comes though it did not change, and is what the new row leaves out.
    assert update.key.asdict() == update.identity.asdict() == {"id": "k" * 2200}
    assert update.new["id"] is update.new["note"] is UNCHANGED
    assert update.complete().asdict() == {"id": "k" * 2200, "n": 2, "note": UNCHANGED}


def test_a_full_row_completes_the_new_one(tables: Tables) -> None:
    setup = (
        "CREATE TABLE t (id int PRIMARY KEY, n int, note text);"
        " ALTER TABLE t ALTER note SET STORAGE EXTERNAL; ALTER TABLE t REPLICA IDENTITY FULL"
    )
    _, update, again = tables.changes(
        setup,
        "INSERT INTO t VALUES (1, NULL, repeat('x', 9000))",
        "UPDATE t SET id = 2",
        "UPDATE t SET note = NULL",
    )
    assert update.new["note"] is UNCHANGED
    assert update.complete().asdict() == {"id": 2, "n": None, "note": "x" * 9000}
    assert update.identity.asdict() == {"id": 1, "n": None, "note": "x" * 9000}
    assert again.complete() is again.new
    assert update.lsn < again.lsn


def test_every_change_tells_where_it_begins(tables: Tables, database: Database) -> None:
    [(before,)] = database.execute("SELECT pg_current_wal_lsn()::text")
    changes = tables.changes(
        "CREATE TABLE t (id int PRIMARY KEY)",
        "INSERT INTO t VALUES (1), (2)",
        "DELETE FROM t WHERE id = 1",
        "TRUNCATE t",
    )
    [(after,)] = database.execute("SELECT pg_current_wal_lsn()::text")
    positions = [change.lsn for change in changes]
    assert all(type(position) is pgrepl.Lsn for position in positions)
    assert positions == sorted(set(positions))
    assert pgrepl.Lsn(before) < positions[0] < positions[-1] < pgrepl.Lsn(after)
    assert pickle.loads(pickle.dumps(changes[0])).lsn == positions[0]
