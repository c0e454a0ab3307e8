"""Databases whose bytes are not UTF-8, or cannot be made UTF-8: nothing of them ends a stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import pgrepl
from pgrepl.codec import _pure
from tests.live.program import run
from tests.live.streams import PATIENCE, Connect
from tests.support.clusters import Cluster

# Encoding, bytes that UTF-8 does not have, and what they are.
KANJI = b"\xc6\xfc\xcb\xdc"


@contextlib.contextmanager
def database_in(cluster: Cluster, encoding: str) -> Iterator[tuple[str, psycopg.Connection[Any]]]:
    """A database in an encoding, and a session of its own that sends bytes as they are."""
    name = f"in_{encoding.lower()}"
    cluster.execute(f"DROP DATABASE IF EXISTS {name}")
    cluster.execute(
        f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0"
        " LC_COLLATE 'C' LC_CTYPE 'C'"
    )
    try:
        with psycopg.connect(
            cluster.dsn(dbname=name), autocommit=True, client_encoding="SQL_ASCII"
        ) as session:
            execute(session, b"SET client_encoding = " + encoding.encode())
            yield name, session
    finally:
        cluster.execute(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
            " WHERE active_pid IS NOT NULL AND database = %s",
            [name],
        )
        for _ in range(100):
            with contextlib.suppress(psycopg.errors.ObjectInUse):
                cluster.execute(
                    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                    " WHERE database = %s",
                    [name],
                )
                break
            cluster.execute("SELECT pg_sleep(0.05)")
        cluster.execute(f"DROP DATABASE {name} WITH (FORCE)")


def execute(session: psycopg.Connection[Any], statement: bytes) -> None:
    result = session.pgconn.exec_(statement)
    assert result.status in (1, 2), result.error_message


def fill(session: psycopg.Connection[Any], slot: str, word: bytes) -> None:
    """A table, a type and a message that have a word in their names, and rows."""
    execute(session, b'CREATE TYPE "y_' + word + b"\" AS ENUM ('a')")
    execute(
        session,
        b'CREATE TABLE "t_' + word + b'" (id int PRIMARY KEY, "c_' + word + b'" text,'
        b' y "y_' + word + b'")',
    )
    execute(session, b"CREATE PUBLICATION p FOR ALL TABLES")
    execute(session, b"SELECT pg_create_logical_replication_slot('%b', 'pgoutput')" % slot.encode())
    execute(session, b"SELECT pg_logical_emit_message(true, '" + word + b"', '" + word + b"')")
    execute(session, b'INSERT INTO "t_' + word + b"\" VALUES (1, '" + word + b"', 'a')")
    execute(session, b'INSERT INTO "t_' + word + b"\" VALUES (2, 'plain', 'a')")


def shown(word: bytes) -> str:
    return word.decode("utf-8", "backslashreplace")


def changes_of(dsn: str, slot: str, is_async: bool, twin: Any, **keywords: Any) -> list[Any]:
    """All changes up to the row with the key 2."""
    found: list[Any] = []

    def is_last(change: Any) -> bool:
        found.append(change)
        return isinstance(change, pgrepl.Insert) and change.new["id"] == 2

    options: dict[str, Any] = {"publications": ["p"], "messages": True}
    if not is_async:
        with (
            pgrepl.connect(dsn, _codec=twin, **keywords) as connection,
            connection.stream(slot, **options) as stream,
        ):
            for transaction in stream.transactions():
                if True in [is_last(change) for change in transaction]:
                    return found

    async def consume() -> list[Any]:
        async with (
            pgrepl.AsyncConnection.connect(dsn, _codec=twin, **keywords) as connection,
            connection.stream(slot, **options) as stream,
        ):
            async for transaction in stream.transactions():
                if True in [is_last(change) async for change in transaction]:
                    break
        return found

    return asyncio.run(asyncio.wait_for(consume(), PATIENCE))


BOTH_FLAVOURS = pytest.mark.parametrize("is_async", [False, True], ids=["blocking", "asyncio"])


@BOTH_FLAVOURS
@pytest.mark.parametrize("word", [b"caf\xe9", "caf\u00e9".encode()], ids=["latin-1", "utf-8"])
def test_a_database_that_does_not_say_what_its_bytes_mean(
    cluster: Cluster, is_async: bool, word: bytes
) -> None:
    """What is no UTF-8 is one column's error; the rest, and what comes after it, is there."""
    twin = _pure if is_async else pgrepl.codec.codec
    with database_in(cluster, "SQL_ASCII") as (name, session):
        fill(session, "in_sql_ascii_slot", word)
        dsn = cluster.dsn(dbname=name)
        message, first, second = changes_of(dsn, "in_sql_ascii_slot", is_async, twin)
        assert (message.prefix, message.content) == (shown(word), word)
        assert first.relation.name == f"t_{shown(word)}"
        assert first.new.keys() == ("id", f"c_{shown(word)}", "y")
        assert (first.new["id"], first.new.raw(1), first.new["y"]) == (1, word, "a")
        if shown(word) == "caf\u00e9":
            assert first.new[1] == "caf\u00e9"
        else:
            with pytest.raises(pgrepl.DecodeError, match=r"row\.raw\(\) gives, in column"):
                _ = first.new[1]
        assert second.new[1] == "plain"


@BOTH_FLAVOURS
def test_somebody_who_knows_what_they_mean(cluster: Cluster, is_async: bool) -> None:
    twin = _pure if is_async else pgrepl.codec.codec
    with database_in(cluster, "SQL_ASCII") as (name, session):
        fill(session, "in_sql_ascii_slot", b"caf\xe9")
        dsn = cluster.dsn(dbname=name)
        found = changes_of(dsn, "in_sql_ascii_slot", is_async, twin, client_encoding="LATIN1")
        assert found[1].new[1] == "caf\u00e9"
        with (
            pgrepl.connect(dsn, client_encoding="LATIN1") as connection,
            pytest.raises(pgrepl.UsageError, match="expected binary=False"),
        ):
            connection.stream("in_sql_ascii_slot", publications=["p"], binary=True)


def test_who_insists_on_utf8_has_it_checked_by_the_server(cluster: Cluster) -> None:
    """And is told what to do."""
    with database_in(cluster, "SQL_ASCII") as (name, session):
        fill(session, "in_sql_ascii_slot", b"caf\xe9")
        with pytest.raises(pgrepl.ServerError, match="client_encoding=SQL_ASCII") as caught:
            changes_of(
                cluster.dsn(dbname=name), "in_sql_ascii_slot", False, _pure, client_encoding="UTF8"
            )
        assert caught.value.sqlstate == "22021"


def test_a_raw_stream_has_the_bytes(cluster: Cluster, connect: Connect) -> None:
    with database_in(cluster, "SQL_ASCII") as (name, session):
        fill(session, "in_sql_ascii_slot", b"caf\xe9")
        options = {"proto_version": "1", "publication_names": "p"}
        with (
            pgrepl.connect(cluster.dsn(dbname=name)) as connection,
            connection.stream_raw("in_sql_ascii_slot", options=options) as stream,
        ):
            received = b""
            for message in stream:
                received += bytes(message)
                if b"plain" in received:
                    break
        assert received.count(b"caf\xe9") > 3


@pytest.mark.parametrize(
    ("encoding", "word", "value"),
    [
        ("LATIN1", b"caf\xe9", "caf\u00e9"),
        ("EUC_JIS_2004", KANJI, "\u65e5\u672c"),
        ("MULE_INTERNAL", b"\x81\xe9", None),
    ],
)
def test_as_the_database_stores_it(
    cluster: Cluster, encoding: str, word: bytes, value: str | None
) -> None:
    """Read by Python, where Python has the encoding: never as something else. By itself the server
    converts what it can, and one thing it cannot is said at once."""
    slot = f"in_{encoding.lower()}_slot"
    with database_in(cluster, encoding) as (name, session):
        fill(session, slot, word)
        dsn = cluster.dsn(dbname=name)
        if value is None:
            with pytest.raises(pgrepl.ServerError, match="client_encoding=SQL_ASCII") as caught:
                pgrepl.connect(dsn)
            assert caught.value.sqlstate == "0A000"
        else:
            _, first, _ = changes_of(dsn, slot, False, _pure)
            assert (first.relation.name, first.new[1]) == (f"t_{value}", value)
        _, first, _ = changes_of(dsn, slot, False, _pure, client_encoding="SQL_ASCII")
        assert first.new.raw(1) == word
        if value is not None:
            assert first.new[1] == value
        else:
            with pytest.raises(pgrepl.DecodeError):
                _ = first.new[1]


def test_the_program_goes_on(cluster: Cluster) -> None:
    pytest.importorskip("click")
    with database_in(cluster, "SQL_ASCII") as (name, session):
        fill(session, "in_program_slot", b"caf\xe9")
        end = session.execute("SELECT pg_current_wal_lsn()").fetchone()
        assert end is not None
        words = (
            "-S",
            "in_program_slot",
            "-P",
            "p",
            "--format",
            "json",
            "-n",
            "-E",
            end[0].decode(),
        )
        status, output, complaint = run("stream", cluster.dsn(dbname=name), *words)
    assert (status, complaint) == (0, "")
    rows = [each["new"] for each in map(json.loads, output.splitlines()) if "new" in each]
    column = r"c_caf\xe9"
    assert rows == [
        {"id": "1", column: {"hex": "636166e9"}, "y": "a"},
        {"id": "2", column: "plain", "y": "a"},
    ]
