"""What the live tests of streaming share: to start a stream, to read it up to a point, and what
else a server tells of it.

Nothing here builds commands or reads payloads with pgrepl's own code, which is what is tested.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeAlias, TypeGuard, TypeVar

import pgrepl
from tests.support.clusters import Cluster, Database

_Result = TypeVar("_Result")

Connect: TypeAlias = Callable[..., pgrepl.Connection]

#: Seconds that nothing takes unless something hangs.
PATIENCE: Final = 30.0

#: One table and one publication for all of its changes.
TABLE: Final = """
    CREATE TABLE item (id int PRIMARY KEY, note text);
    CREATE PUBLICATION p FOR ALL TABLES
"""


def create_slot(database: Database, stem: str = "slot", *, plugin: str = "pgoutput") -> str:
    """Make a logical slot by SQL and return its name."""
    name = database.slot(stem)
    database.execute("SELECT pg_create_logical_replication_slot(%s, %s)", [name, plugin])
    return name


def start_pgoutput(
    connection: pgrepl.Connection, slot: str, start: int = 0, /, **options: str
) -> None:
    """Start a stream of protocol version 1 for the publication `p`, unless `options` say else.

    By default it begins behind what the server knows to be confirmed.
    """
    wanted = {"proto_version": "1", "publication_names": "p", **options}
    listed = ", ".join(f"{name} '{value}'" for name, value in wanted.items())
    position = f"{start >> 32:X}/{start & 0xFFFFFFFF:X}"
    connection.start_streaming(
        f"START_REPLICATION SLOT {slot} LOGICAL {position} ({listed})", timeout=PATIENCE
    )


@contextlib.contextmanager
def streaming(
    connect: Connect, database: Database, slot: str, *, options: str = "", **keywords: Any
) -> Iterator[pgrepl.Connection]:
    """A connection with a stream of `slot` that has begun; `options` are the server's."""
    with connect(database.dsn(), options=options or None, **keywords) as connection:
        start_pgoutput(connection, slot)
        yield connection


def is_data(message: object) -> TypeGuard[pgrepl.XLogData]:
    """True for XLogData of either twin, False for a keepalive."""
    return hasattr(message, "data")


def receive(connection: pgrepl.Connection) -> Any:
    """The next message of a stream that has more."""
    message = connection.receive_wal_message(timeout=PATIENCE)
    assert message is not None, "the stream has ended"
    return message


def receive_data(connection: pgrepl.Connection) -> Any:
    """The next XLogData."""
    while not is_data(message := receive(connection)):
        pass
    return message


def receive_transactions(connection: pgrepl.Connection, count: int) -> list[Any]:
    """XLogData up to the commit that ends the transaction of that number, counted from here."""
    messages = []
    while count:
        messages.append(receive_data(connection))
        count -= bytes(messages[-1])[:1] == b"C"
    return messages


def peek(database: Database, slot: str, **options: str) -> list[bytes]:
    """The payloads that the server gives for a slot by SQL; the slot stays where it is."""
    wanted = {"proto_version": "1", "publication_names": "p", **options}
    flat = [text for pair in wanted.items() for text in pair]
    return [
        bytes(data)
        for (data,) in database.execute(
            "SELECT data FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL, "
            f"VARIADIC ARRAY[{', '.join(['%s'] * len(flat))}])",
            [slot, *flat],
        )
    ]


def confirmed(database: Database, slot: str) -> int:
    """The slot's confirmed_flush_lsn."""
    [(position,)] = database.execute(
        "SELECT confirmed_flush_lsn - '0/0' FROM pg_replication_slots WHERE slot_name = %s", [slot]
    )
    return int(position)


def report(connection: pgrepl.Connection, database: Database, position: int) -> None:
    """Report a position as written, flushed and applied, and wait until the server dealt with it.

    The server shows the report before it moves the slot, so that only a second one, with its own
    time, tells that the first is done with.
    """
    for moment in (1, 2):
        connection.send_standby_status(position, position, position, timestamp=moment)
    eventually(
        lambda: database.execute(
            "SELECT 1 FROM pg_stat_replication WHERE pid = %s"
            " AND reply_time = timestamptz '2000-01-01 00:00 UTC' + interval '2 microseconds'",
            [connection.pid],
        ),
        "the server shows the report",
    )


def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait until the condition holds; an assertion fails if it never does."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"it never happened: {what}"
        time.sleep(0.01)


def wait_until_free(server: Cluster | Database, slot: str) -> None:
    """Wait until the last user of a slot has left it, and all that it sent is read, or never will
    be."""
    eventually(
        lambda: server.execute(
            "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND NOT active", [slot]
        ),
        "the slot is free",
    )


@contextlib.contextmanager
def meanwhile(work: Callable[[], _Result]) -> Iterator[Future[_Result]]:
    """Do some work in another thread during the body; its error comes out at the end."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        yield future
        future.result(PATIENCE)
