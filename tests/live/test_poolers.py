"""Poolers that pass replication on, and startup parameters not: a script before a real server.

PgBouncer does so from 1.23 on. It lets through the parameters that it tracks, and refuses all other
ones or, where ignore_startup_parameters names them, drops them without a word.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator
from typing import Any, Final

import pytest

import pgrepl
from tests.live.streams import PATIENCE, TABLE, Connect, create_slot, wait_until_free
from tests.live.test_intermediaries import relay_messages
from tests.support import builders
from tests.support.clusters import Database
from tests.support.scripted import Peer, Script, ScriptedServer, negotiate

#: What a session is about, and what PgBouncer tracks, in lower case.
PASSED: Final = frozenset(
    {"user", "database", "replication", "client_encoding", "datestyle", "timezone"}
    | {"standard_conforming_strings", "application_name"}
)
VALUES: Final = ("0.30000000000000004", "2024-03-01", "1 year 2 days", r"\x00ff")
QUESTION: Final = (
    "SELECT 0.1::float8 + 0.2::float8, date '2024-03-01', interval '1 year 2 days',"
    r" '\x00ff'::bytea"
)


def pooler(database: Database, *, drops: bool, passed: frozenset[str] = PASSED) -> Script:
    """Passes on what comes behind the StartupMessage; of its parameters, those that it knows."""

    def script(peer: Peer) -> None:
        startup = negotiate(peer)
        peer.expects_settings = False  # the server takes them
        kept = {}
        for name, value in startup.parameters.items():
            if name.lower() in passed:
                kept[name] = value
            elif not drops:
                text = f"unsupported startup parameter: {name}"
                peer.send(builders.error_response(text, sqlstate="08P01", severity="FATAL"))
                return
        body = b"".join(f"{k}\0{v}\0".encode() for k, v in kept.items()) + b"\0"
        cluster = database.cluster
        with socket.create_connection((cluster.host, cluster.port), timeout=10) as upstream:
            upstream.sendall(struct.pack("!ii", len(body) + 8, startup.code) + body)
            relay_messages(peer, upstream, [])

    return script


@pytest.fixture(params=["refuses", "drops"])
def through(request: pytest.FixtureRequest, database: Database) -> Iterator[dict[str, Any]]:
    """The keywords to connect through a pooler, to a database whose own settings would give values
    other forms."""
    for setting in (
        "extra_float_digits = -1",
        "bytea_output = 'escape'",
        "IntervalStyle = 'iso_8601'",
        "DateStyle = 'German'",
    ):
        database.execute(f'ALTER DATABASE "{database.name}" SET {setting}')
    drops = request.param == "drops"
    passed = PASSED - {"datestyle", "client_encoding"} if drops else PASSED
    with ScriptedServer(pooler(database, drops=drops, passed=passed)) as server:
        yield {
            "host": server.host,
            "port": server.port,
            "user": "postgres",
            "dbname": database.name,
            "sslmode": "disable",
        }


def test_commands(connect: Connect, through: dict[str, Any]) -> None:
    with connect(**through) as connection:
        assert connection.query(QUESTION)[0].rows == [VALUES]
        assert connection.show("client_encoding") == "UTF8"
    with connect(**through, replication="physical") as connection:
        assert connection.identify_system().dbname is None


@pytest.mark.parametrize("is_async", [False, True], ids=["blocking", "asyncio"])
def test_streams(through: dict[str, Any], database: Database, is_async: bool) -> None:
    """Of level 1 too, which asks nothing before."""
    database.execute(TABLE)
    database.execute("CREATE TABLE sample (f float8, d date, i interval, b bytea)")
    slot = create_slot(database)
    database.execute(f"INSERT INTO sample {QUESTION}")
    with pgrepl.connect(**through) as connection:
        connection.start_streaming(
            f"START_REPLICATION SLOT {slot} LOGICAL 0/0 (proto_version '1', publication_names 'p')"
        )
        decoder = pgrepl.Decoder(typed=False)
        message: Any = None
        while not isinstance(message, pgrepl.Insert):
            received: Any = connection.receive_wal_message(timeout=PATIENCE)
            message = decoder.feed(received) if hasattr(received, "data") else None
        assert message.new.astuple() == VALUES
    wait_until_free(database, slot)
    if not is_async:
        with (
            pgrepl.connect(**through) as connection,
            connection.stream(slot, publications=["p"], typed=False) as stream,
        ):
            [change] = next(stream.transactions())
            assert change.new.astuple() == VALUES
        return

    async def first() -> list[Any]:
        rows: list[Any] = []
        async with (
            pgrepl.AsyncConnection.connect(**through) as connection,
            connection.stream(slot, publications=["p"], typed=False) as stream,
        ):
            async for transaction in stream.transactions():
                rows += [change.new.astuple() async for change in transaction]
                break
        return rows

    assert asyncio.run(asyncio.wait_for(first(), PATIENCE)) == [VALUES]


@pytest.mark.parametrize(
    ("keywords", "refused", "hint"),
    [
        ({}, {"replication"}, "passes replication on from version 1.23 on"),
        ({"options": "-c geqo=off"}, {"options"}, "add it to ignore_startup_parameters"),
    ],
)
def test_what_a_pooler_does_not_let_through(
    connect: Connect,
    database: Database,
    keywords: dict[str, str],
    refused: set[str],
    hint: str,
) -> None:
    script = pooler(database, drops=False, passed=PASSED - refused)
    with (
        ScriptedServer(script) as server,
        pytest.raises(pgrepl.ServerError, match=hint) as caught,
        contextlib.closing(
            connect(
                host=server.host,
                port=server.port,
                user="postgres",
                dbname=database.name,
                sslmode="disable",
                **keywords,
            )
        ),
    ):
        pass
    assert not caught.value.retryable
