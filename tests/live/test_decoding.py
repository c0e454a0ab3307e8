"""What pgoutput says, decoded as it comes: every message of protocol version 1."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from types import ModuleType
from typing import Any, TypeVar

import pytest

import pgrepl
from pgrepl import (
    UNCHANGED,
    Begin,
    Column,
    Commit,
    Delete,
    Insert,
    Message,
    Origin,
    Relation,
    Row,
    Truncate,
    Type,
    Update,
)
from tests.live.streams import (
    TABLE,
    Connect,
    create_slot,
    peek,
    receive_data,
    receive_transactions,
    start_pgoutput,
    streaming,
)
from tests.support.clusters import Database
from tests.support.flavours import Flavour

_Message = TypeVar("_Message")


class Changes:
    """Decoded messages of a stream, a transaction at a time."""

    def __init__(self, connection: pgrepl.Connection, codec: ModuleType) -> None:
        self._connection = connection
        self._decoder = codec.Decoder(typed=False)

    def transaction(self) -> list[Any]:
        """The next transaction's messages, Begin and Commit included."""
        return [self._decoder.feed(m) for m in receive_transactions(self._connection, 1)]

    def rows(self) -> list[Any]:
        """The inserts, updates and deletes of the next transaction."""
        return [m for m in self.transaction() if isinstance(m, Insert | Update | Delete)]

    def of(self, kind: type[_Message]) -> list[_Message]:
        """The messages of one kind in the next transaction."""
        return [message for message in self.transaction() if isinstance(message, kind)]

    def message(self) -> Any:
        """The next message, whatever it belongs to."""
        return self._decoder.feed(receive_data(self._connection))


@pytest.fixture
def changes(database: Database, connect: Connect, flavour: Flavour) -> Iterator[Changes]:
    """The stream of a slot that begins with an empty table `item`."""
    database.execute(TABLE)
    with streaming(connect, database, create_slot(database)) as connection:
        yield Changes(connection, flavour.codec)


def oid_of(database: Database, name: str) -> int:
    [(oid,)] = database.execute("SELECT %s::regclass::oid::int8", [name])
    return int(oid)


def test_a_transaction(database: Database, changes: Changes) -> None:
    with database.connect() as writer, writer.transaction():
        writer.execute("INSERT INTO item VALUES (1, 'ein Stück'), (2, NULL)")
        [(xid, clock)] = writer.execute("SELECT txid_current(), clock_timestamp()").fetchall()
    [(end, now)] = database.execute("SELECT pg_current_wal_insert_lsn()::text, clock_timestamp()")
    begin, relation, first, second, commit = changes.transaction()
    assert relation == Relation(
        oid_of(database, "item"),
        "public",
        "item",
        "d",
        (Column("id", 23, -1, True), Column("note", 25, -1, False)),
    )
    assert [first, second] == [
        Insert(relation, Row(relation, ("1", "ein Stück"))),
        Insert(relation, Row(relation, ("2", None))),
    ]
    assert first.new["note"] == "ein Stück"
    assert first.relation is second.relation is relation
    assert begin == Begin(commit.commit_lsn, commit.commit_time, xid % 2**32)
    assert clock <= commit.commit_datetime <= now
    assert begin.final_lsn < commit.end_lsn <= pgrepl.Lsn(end)


def test_updates(database: Database, changes: Changes) -> None:
    database.execute("INSERT INTO item VALUES (1, 'a')")
    changes.transaction()
    database.execute(
        "UPDATE item SET note = 'b'; UPDATE item SET id = 2; UPDATE item SET note = NULL"
    )
    same_key, other_key, null = changes.of(Update)
    assert (same_key.key, same_key.old) == (None, None)
    assert same_key.new.asdict() == {"id": "1", "note": "b"}
    assert other_key.key is not None
    assert other_key.key.asdict() == {"id": "1"}
    assert other_key.old is None
    assert other_key.new.astuple() == ("2", "b")
    assert null.new.astuple() == ("2", None)


def test_deletes(database: Database, changes: Changes) -> None:
    database.execute("INSERT INTO item VALUES (1, 'a'), (2, NULL)")
    changes.transaction()
    database.execute("DELETE FROM item")
    first, second = changes.of(Delete)
    assert first.key is not None
    assert second.key is not None
    assert [first.key.asdict(), second.key.asdict()] == [{"id": "1"}, {"id": "2"}]
    assert (first.old, second.old) == (None, None)


def test_full_identity(database: Database, changes: Changes) -> None:
    database.execute("ALTER TABLE item REPLICA IDENTITY FULL; INSERT INTO item VALUES (1, NULL)")
    _, relation, insert, _ = changes.transaction()
    assert relation.replica_identity == "f"
    assert all(column.is_key for column in relation.columns)
    database.execute("UPDATE item SET note = 'b'; UPDATE item SET id = 2; DELETE FROM item")
    first, second, delete = changes.rows()
    assert first == Update(relation, None, insert.new, Row(relation, ("1", "b")))
    assert second == Update(relation, None, first.new, Row(relation, ("2", "b")))
    assert delete == Delete(relation, None, second.new)


def test_identity_of_an_index(database: Database, changes: Changes) -> None:
    database.execute(
        "CREATE TABLE t (a int, b text NOT NULL, c int NOT NULL);"
        " CREATE UNIQUE INDEX i ON t (c, b); ALTER TABLE t REPLICA IDENTITY USING INDEX i;"
        " INSERT INTO t VALUES (1, 'x', 2)"
    )
    _, relation, *_ = changes.transaction()
    assert relation.replica_identity == "i"
    assert [column.name for column in relation.key_columns] == ["b", "c"]
    database.execute("UPDATE t SET a = 3; UPDATE t SET c = 4; DELETE FROM t")
    plain, keyed, delete = changes.rows()
    assert (plain.key, plain.old) == (None, None)
    assert keyed.key.asdict() == {"b": "x", "c": "2"}
    assert delete.key.asdict() == {"b": "x", "c": "4"}


def test_no_identity(database: Database, changes: Changes) -> None:
    database.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
    _, relation, insert, _ = changes.transaction()
    assert relation.key_columns == ()
    assert insert.new.asdict() == {"a": "1"}


def test_unchanged_toast(database: Database, changes: Changes) -> None:
    database.execute(
        "ALTER TABLE item ALTER note SET STORAGE EXTERNAL, ADD n int;"
        " INSERT INTO item VALUES (1, repeat('x', 100000), 1)"
    )
    [insert] = changes.of(Insert)
    assert insert.new["note"] == "x" * 100_000
    database.execute("UPDATE item SET n = 2; UPDATE item SET note = 'short', n = 3")
    unchanged, changed = changes.of(Update)
    assert unchanged.new["note"] is UNCHANGED
    assert unchanged.new.astuple()[::2] == ("1", "2")
    assert changed.new.astuple() == ("1", "short", "3")
    database.execute(
        "UPDATE item SET note = repeat('y', 100000); ALTER TABLE item REPLICA IDENTITY FULL;"
        " UPDATE item SET n = 4"
    )
    _, full = changes.of(Update)
    assert full.new["note"] is UNCHANGED
    # What the new row leaves out the old one has.
    assert full.old is not None
    assert full.old["note"] == "y" * 100_000


def test_truncate(database: Database, changes: Changes) -> None:
    database.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (a int REFERENCES a)")
    database.execute("TRUNCATE item; TRUNCATE item, a, b RESTART IDENTITY; TRUNCATE a CASCADE")
    plain, several, cascade = changes.of(Truncate)
    assert [relation.name for relation in plain.relations] == ["item"]
    assert (plain.cascade, plain.restart_identity) == (False, False)
    assert [relation.name for relation in several.relations] == ["item", "a", "b"]
    assert (several.cascade, several.restart_identity) == (False, True)
    assert {relation.name for relation in cascade.relations} == {"a", "b"}
    assert (cascade.cascade, cascade.restart_identity) == (True, False)


def test_types(database: Database, changes: Changes) -> None:
    database.execute(
        "CREATE SCHEMA \"the Types\"; CREATE TYPE \"the Types\".mood AS ENUM ('sad', 'über');"
        " CREATE DOMAIN percent AS int CHECK (VALUE <= 100); CREATE TYPE pair AS (x int, y text);"
        ' CREATE TABLE t (m "the Types".mood, d percent, p pair, many pair[], n numeric(7, 2),'
        " v varchar(9)); INSERT INTO t VALUES"
        " ('über', 99, (1, 'a b'), ARRAY[(2, 'c')::pair, NULL], 12345.67, 'v')"
    )
    messages = changes.transaction()
    types = {m.name: m for m in messages if isinstance(m, Type)}
    [relation] = [m for m in messages if isinstance(m, Relation)]
    mood, domain, pair, many, number, text = relation.columns
    assert types["mood"] == Type(mood.type_oid, "the Types", "mood")
    assert types["pair"] == Type(pair.type_oid, "public", "pair")
    assert types["_pair"] == Type(many.type_oid, "public", "_pair")
    # A domain goes by its own number and the name of what it is made from.
    assert types["int4"] == Type(domain.type_oid, "pg_catalog", "int4")
    assert (number.type_oid, number.type_modifier) == (1700, (7 << 16 | 2) + 4)
    assert (text.type_oid, text.type_modifier) == (1043, 9 + 4)
    assert [m.new.astuple() for m in messages if isinstance(m, Insert)] == [
        ("über", "99", '(1,"a b")', '{"(2,c)",NULL}', "12345.67", "v")
    ]


def test_origin(database: Database, changes: Changes) -> None:
    name = database.slot("origin")
    with database.connect() as writer:
        writer.execute("SELECT pg_replication_origin_create(%s)", [name])
        writer.execute("SELECT pg_replication_origin_session_setup(%s)", [name])
        with writer.transaction():
            writer.execute(
                "SELECT pg_replication_origin_xact_setup('A/BC', '2020-02-02 02:02:02Z')"
            )
            writer.execute("INSERT INTO item VALUES (1, '')")
        writer.execute("SELECT pg_replication_origin_session_reset()")
        writer.execute("SELECT pg_replication_origin_drop(%s)", [name])
    begin, origin, _, insert, commit = changes.transaction()
    assert origin == Origin(pgrepl.Lsn("A/BC"), name)
    assert isinstance(insert, Insert)
    assert begin.commit_datetime == commit.commit_datetime
    assert commit.commit_datetime == datetime(2020, 2, 2, 2, 2, 2, tzinfo=UTC)


def test_logical_messages(database: Database, connect: Connect, flavour: Flavour) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    with connect(database.dsn()) as connection:
        start_pgoutput(connection, slot, messages="true")
        changes = Changes(connection, flavour.codec)
        content = bytes(range(256)) * 300
        with database.connect() as writer:
            [(alone,)] = writer.execute(
                "SELECT pg_logical_emit_message(false, 'sofort ✓', %b::bytea) - '0/0'", [content]
            ).fetchall()
            with writer.transaction():
                writer.execute("INSERT INTO item VALUES (1, '')")
                writer.execute("SELECT pg_logical_emit_message(true, '', '')")
        message = changes.message()
        assert (message.transactional, message.prefix) == (False, "sofort ✓")
        assert message.content == content
        # The function returns the end of the record, the message tells its beginning or end.
        assert 0 <= alone - message.lsn <= len(content) + 8192
        begin, _, _, inside, commit = changes.transaction()
        assert inside == Message(True, inside.lsn, "", b"")
        assert begin.final_lsn == commit.commit_lsn >= inside.lsn > message.lsn


def test_relation_is_told_again_when_it_changes(database: Database, changes: Changes) -> None:
    database.execute("INSERT INTO item VALUES (1, 'a')")
    _, before, insert, _ = changes.transaction()
    database.execute(
        "INSERT INTO item VALUES (2, 'b'); ALTER TABLE item RENAME note TO remark;"
        " ALTER TABLE item ADD n int DEFAULT 7; INSERT INTO item VALUES (3, 'c');"
        " ALTER TABLE item DROP remark; INSERT INTO item VALUES (4, 8)"
    )
    rows = [m.new.asdict() for m in changes.transaction() if isinstance(m, Insert)]
    assert rows == [
        {"id": "2", "note": "b"},
        {"id": "3", "remark": "c", "n": "7"},
        {"id": "4", "n": "8"},
    ]
    # Rows keep the columns that they came with.
    assert insert.new.keys() == ("id", "note")
    assert insert.relation is before


def test_names_of_every_kind(database: Database, changes: Changes) -> None:
    database.execute(
        'CREATE SCHEMA "sch.äma"; CREATE TABLE "sch.äma"."Tab""le" ('
        '"Col umn" int PRIMARY KEY, "__class__" text, "🐘" text, "x\'y" text);'
        " INSERT INTO \"sch.äma\".\"Tab\"\"le\" VALUES (1, 'a', 'b', 'c')"
    )
    _, relation, insert, _ = changes.transaction()
    assert (relation.schema, relation.name) == ("sch.äma", 'Tab"le')
    assert insert.new.asdict() == {"Col umn": "1", "__class__": "a", "🐘": "b", "x'y": "c"}


def test_column_list_and_row_filter(database: Database, connect: Connect, flavour: Flavour) -> None:
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, shown text, hidden text);"
        " CREATE PUBLICATION p FOR TABLE t (id, shown) WHERE (id > 0)"
    )
    with streaming(connect, database, create_slot(database)) as connection:
        changes = Changes(connection, flavour.codec)
        database.execute(
            "INSERT INTO t VALUES (1, 'a', 'x'), (-1, 'b', 'y');"
            " UPDATE t SET id = CASE id WHEN 1 THEN -2 ELSE 3 END"
        )
        _, relation, insert, *rest, _ = changes.transaction()
        assert [column.name for column in relation.columns] == ["id", "shown"]
        assert insert.new.astuple() == ("1", "a")
        # One row leaves what is published, the other one comes in.
        [delete] = [m for m in rest if isinstance(m, Delete)]
        [arrival] = [m for m in rest if isinstance(m, Insert)]
        assert delete.key is not None
        assert delete.key.asdict() == {"id": "1"}
        assert arrival.new.astuple() == ("3", "b")


def test_binary_values(database: Database, connect: Connect, flavour: Flavour) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    with connect(database.dsn()) as connection:
        start_pgoutput(connection, slot, binary="true")
        database.execute("INSERT INTO item VALUES (258, 'é')")
        [insert] = Changes(connection, flavour.codec).of(Insert)
    assert insert.new.astuple() == (b"\0\0\1\2", "é".encode())


def test_values_of_many_types(database: Database, changes: Changes) -> None:
    values = {
        "int8": "-9223372036854775808",
        "numeric": "NaN",
        "float8": "1e-300",
        "bool": "t",
        "bytea": r"\x00ff5c27",
        "date": "4713-01-01 BC",
        "timestamptz": "infinity",
        "interval": "-1 mons +2 days -00:00:01",
        "jsonb": '{"a": [1, null, "\u00e9"]}',
        "text[]": '{a,"b c",NULL,"\\""}',
        "int4range": "[1,10)",
        "inet": "::1/64",
        "uuid": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "tsvector": "'fat':2 'rat':3",
        "point": "(1.5,-2)",
        "bit(3)": "101",
        "char(5)": "ab   ",
    }
    columns = ", ".join(f"c{i} {kind}" for i, kind in enumerate(values))
    database.execute(f"CREATE TABLE t ({columns})")
    marks = ", ".join(f"%s::{kind}" for kind in values)
    database.execute(f"INSERT INTO t VALUES ({marks})", list(values.values()))
    [insert] = changes.of(Insert)
    # What the server sends of the same row to a plain query.
    with database.connect() as reader:
        result = reader.execute("SELECT * FROM t").pgresult
        assert result is not None
        texts = [result.get_value(0, i) for i in range(len(values))]
    assert [value.encode() for value in insert.new] == texts


def test_payloads_that_came_by_sql(database: Database, codec: ModuleType) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    database.execute("INSERT INTO item VALUES (1, 'a'); DELETE FROM item")
    decoder = codec.Decoder(typed=False)
    kinds = [type(decoder.feed(payload)) for payload in peek(database, slot)]
    assert kinds == [Begin, Relation, Insert, Delete, Commit]


def test_error_tells_the_position(database: Database, connect: Connect, flavour: Flavour) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    with streaming(connect, database, slot) as connection:
        database.execute("INSERT INTO item VALUES (1, 'a')")
        begin, _, insert, _ = receive_transactions(connection, 1)
    decoder = flavour.codec.Decoder(typed=False)
    decoder.feed(begin)
    # The relation was left out.
    with pytest.raises(pgrepl.DecodeError) as caught:
        decoder.feed(insert)
    assert caught.value.tag == b"I"
    assert caught.value.lsn == insert.wal_start
