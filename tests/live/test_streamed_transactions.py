"""Transactions that real servers stream before they end: put together again they are what was
committed, whatever was rolled back, each change once and in the order of commits.

Twenty sessions write at the same time while the stream is read, twice as much with PGREPL_LONG=1.
What must come of it says the server itself, by its SQL function and without streaming, and the
tables.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import pytest

from pgrepl.codec.spool import Spool
from pgrepl.messages import (
    Insert,
    Message,
    StreamAbort,
    StreamCommit,
    StreamStart,
    StreamStop,
)
from tests.live.streams import (
    PATIENCE,
    TABLE,
    Connect,
    confirmed,
    create_slot,
    wait_until_free,
)
from tests.live.test_pgoutput_versions import NEWEST_VERSION, SEED
from tests.live.writers import Writer
from tests.support.clusters import Database
from tests.support.flavours import Flavour
from tests.support.spooling import batch_of, read_transactions

WRITERS = 20
STEPS = 60 if os.environ.get("PGREPL_LONG") == "1" else 30
LITTLE_MEMORY = "-c logical_decoding_work_mem=64kB"
THE_END = "the end"


class Mode(NamedTuple):
    proto_version: int
    streaming: str
    two_phase: bool

    def __str__(self) -> str:
        return f"{self.streaming}{', two_phase' * self.two_phase}"

    def options(self) -> dict[str, str]:
        return {
            "proto_version": str(self.proto_version),
            "messages": "true",
            **({"streaming": self.streaming} if self.streaming != "off" else {}),
            **({"two_phase": "true"} if self.two_phase else {}),
        }


MODES = (
    Mode(2, "on", False),
    Mode(3, "on", True),
    Mode(4, "parallel", False),
    Mode(4, "parallel", True),
)


@pytest.fixture(params=MODES, ids=str)
def mode(request: pytest.FixtureRequest, database: Database) -> Mode:
    chosen: Mode = request.param
    newest = NEWEST_VERSION.get(database.cluster.major, 4)
    if chosen.proto_version > newest:
        pytest.skip(f"PostgreSQL {database.cluster.major} speaks version {newest} of pgoutput")
    return chosen


# What is written


class Troubled(Writer):
    """A writer that also has blocks of PL/pgSQL which catch what went wrong in them.

    It truncates no table: PostgreSQL 18 fails now and then ("could not open relation") where it
    streams a TRUNCATE whose transaction is rolled back at that moment.
    """

    def _change_own(self) -> None:
        self._run(
            f"INSERT INTO {self._own} (id, note)"
            " SELECT i, 'own' FROM generate_series(%s::int, %s) i",
            [self._next, self._next + 9],
        )
        self._next += 10

    def step(self) -> None:
        if self.open and self._draw.random() < 0.2:
            self.catch(self._draw.choice((1, 200)))
        else:
            super().step()

    def catch(self, count: int) -> None:
        first = self._next
        self._next += 3 * count
        rows = [f"SELECT i, 'caught' FROM generate_series({first + n * count}, " for n in range(3)]
        ends = [f"{first + n * count + count - 1}) i" for n in range(3)]
        outer, inner, again = (
            f"INSERT INTO item (id, note) {row}{end};" for row, end in zip(rows, ends, strict=True)
        )
        self._run(
            f"DO $$ BEGIN {outer} BEGIN {inner} RAISE EXCEPTION 'no';"
            f" EXCEPTION WHEN raise_exception THEN {again} END; END $$"
        )


def prepare(database: Database, two_phase: bool) -> tuple[str, str]:
    """Tables, a publication, and two slots with nothing between them."""
    own = "".join(f"CREATE TABLE own{n} (id int PRIMARY KEY, note text);" for n in range(WRITERS))
    database.execute(
        "CREATE TYPE mood AS ENUM ('sad', 'ok');"
        "CREATE TABLE item (id int PRIMARY KEY, note text, m mood);"
        f"ALTER TABLE item ALTER note SET STORAGE EXTERNAL; {own}"
        "CREATE PUBLICATION p FOR ALL TABLES"
    )
    slots = database.slot("streamed"), database.slot("whole")
    for slot in slots:
        database.execute(
            "SELECT pg_create_logical_replication_slot(%s, 'pgoutput', false, %s)",
            [slot, two_phase],
        )
    return slots


def write(database: Database, seed: int, steps: int) -> None:
    def run(number: int) -> None:
        with contextlib.closing(database.connect()) as session:
            writer = Troubled(session, number, random.Random(seed + number))
            for _ in range(steps):
                writer.step()
            writer.finish()

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(run, range(WRITERS)))
    database.execute("SELECT pg_logical_emit_message(true, %s, '')", [THE_END])


# How it is read


@dataclass
class Delivered:
    """A transaction as it came; `changes` without what is of streaming alone."""

    kind: str
    xid: int | None
    gid: str | None
    end_lsn: int
    changes: list[tuple[type[Any], list[Any]]]

    @classmethod
    def of(cls, made: Any, changes: Iterable[Any]) -> Delivered:
        plain = [
            (type(each), [getattr(each, name) for name in each.__match_args__ if name != "xid"])
            for each in changes
        ]
        return cls(made.kind, made.xid, made.gid, made.end_lsn, plain)

    @property
    def is_last(self) -> bool:
        return any(kind is Message and THE_END in values for kind, values in self.changes)


@dataclass
class Consumer:
    """Reads a slot, and acknowledges what it has read."""

    codec: Any
    connect: Connect
    database: Database
    slot: str
    mode: Mode
    streamed: int = 0
    delivered: list[Delivered] = field(default_factory=list)

    def read(self, until: Callable[[Delivered], bool]) -> None:
        """Read until a transaction, which is acknowledged, and then stop."""
        options = self.mode._asdict() | {"memory_limit": 1 << 20, "messages": True}
        with (
            self.connect(self.database.dsn(), options=LITTLE_MEMORY) as connection,
            connection.stream(self.slot, publications=["p"], **options) as stream,
        ):
            for made in stream.transactions():
                changes = list(made)
                self.streamed += any(getattr(change, "xid", None) for change in changes)
                transaction = Delivered.of(made, changes)
                self.delivered.append(transaction)
                assert stream.stats().delivered == transaction.end_lsn
                if until(transaction):
                    stream.ack(made)
                    break


def whole(codec: Any, database: Database, slot: str, mode: Mode) -> list[Delivered]:
    """What the server says of the same changes when it streams nothing."""
    version = 3 if mode.two_phase else 1
    options = Mode(version, "off", mode.two_phase).options() | {"publication_names": "p"}
    flat = [text for pair in options.items() for text in pair]
    payloads = database.execute(
        "SELECT data FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL, "
        f"VARIADIC ARRAY[{', '.join(['%s'] * len(flat))}])",
        [slot, *flat],
    )
    decoder = codec.Decoder(version, ordered=True)
    # One at a time: each is in a chunk of its own.
    batches = (batch_of(codec, [bytes(payload)]) for (payload,) in payloads)
    read = read_transactions(decoder, Spool(), batches)
    return [Delivered.of(made, changes) for made, changes in read]


# What must come of it


def expect_same(found: list[Delivered], expected: list[Delivered]) -> None:
    # The server passes over what is empty in the end, unless it has streamed some of it before.
    found = [made for made in found if made.kind != "commit" or made.changes]
    expected = [made for made in expected if made.kind != "commit" or made.changes]
    outlines = [[(t.kind, t.xid, t.gid, t.end_lsn) for t in each] for each in (found, expected)]
    assert outlines[0] == outlines[1]
    # Of what is prepared and then rolled back a server sends what it can still read.
    in_vain = {t.gid for t in expected if t.kind == "rollback prepared"}
    for one, other in zip(found, expected, strict=True):
        assert one.gid in in_vain or one.changes == other.changes


def committed_rows(database: Database) -> dict[str, set[int]]:
    tables = ["item", *(f"own{number}" for number in range(WRITERS))]
    return {
        table: {key for (key,) in database.execute(f"SELECT id FROM {table}")} for table in tables
    }


def delivered_rows(delivered: Iterable[Delivered]) -> dict[str, set[int]]:
    """The keys that these transactions leave, each change applied once."""
    tables: dict[str, set[int]] = {}
    prepared: dict[str | None, list[Any]] = {}
    for transaction in delivered:
        changes: list[Any] = transaction.changes
        match transaction.kind:
            case "prepare":
                assert transaction.gid not in prepared
                prepared[transaction.gid] = changes
                continue
            case "commit prepared":
                changes = prepared.pop(transaction.gid)
            case "rollback prepared":
                del prepared[transaction.gid]
        for kind, values in changes:
            apply(kind.__name__, values, tables)
    assert not prepared
    return tables


def apply(kind: str, values: list[Any], tables: dict[str, set[int]]) -> None:
    if kind == "Message":
        return
    if kind == "Truncate":
        for relation in values[0]:
            tables[relation.name] = set()
        return
    relation, *rows = values
    keys = tables.setdefault(relation.name, set())
    if kind == "Insert":
        assert rows[0]["id"] not in keys
        keys.add(rows[0]["id"])
        return
    gone = rows[0]["id"] if rows[0] is not None else rows[-1]["id"]
    keys.remove(gone)
    if kind == "Update":
        keys.add(rows[-1]["id"])


def test_delivered_is_what_was_committed(
    flavour: Flavour, connect: Connect, database: Database, mode: Mode
) -> None:
    slot, other = prepare(database, mode.two_phase)
    consumer = Consumer(flavour.codec, connect, database, slot, mode)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(consumer.read, lambda transaction: transaction.is_last)
        write(database, SEED, STEPS)
        reading.result(PATIENCE)
    assert consumer.streamed > 20
    expect_same(consumer.delivered, whole(flavour.codec, database, other, mode))
    expected = {table: keys for table, keys in committed_rows(database).items() if keys}
    found = delivered_rows(consumer.delivered)
    assert {table: keys for table, keys in found.items() if keys} == expected


def test_one_outcome_for_each_prepared_transaction(
    flavour: Flavour, connect: Connect, database: Database
) -> None:
    """Across restarts of a consumer that acknowledges where it stops."""
    if database.cluster.major < 15:
        pytest.skip("two-phase decoding came with PostgreSQL 15")
    mode = Mode(3, "on", True)
    slot, other = prepare(database, mode.two_phase)
    write(database, SEED + 1, 60)
    consumer = Consumer(flavour.codec, connect, database, slot, mode)
    restarts = 0

    def reaches(stop: int, made: Delivered) -> bool:
        return made.is_last or len(consumer.delivered) >= stop

    while not (consumer.delivered and consumer.delivered[-1].is_last):
        stop = len(consumer.delivered) + 40
        consumer.read(partial(reaches, stop))
        wait_until_free(database, slot)
        assert confirmed(database, slot) <= consumer.delivered[-1].end_lsn
        restarts += 1
    assert restarts > 3
    # Every stop was clean, so nothing comes again.
    found = consumer.delivered
    expect_same(found, whole(flavour.codec, database, other, mode))
    outcomes = [str(made.gid) for made in found if made.kind.endswith(" prepared")]
    assert len(outcomes) > 5
    assert sorted(outcomes) == sorted(str(made.gid) for made in found if made.kind == "prepare")
    delivered_rows(found)


def test_two_phase_that_is_turned_on_after_a_transaction_was_prepared(
    connect: Connect, database: Database
) -> None:
    """The server then sends it when it is committed, with the positions that it had long before."""
    if database.cluster.major < 15:
        pytest.skip("two-phase decoding came with PostgreSQL 15")
    database.execute(TABLE)
    slot = create_slot(database)

    def insert(number: int, end: str = "COMMIT") -> None:
        with database.connect() as session:
            session.execute("BEGIN")
            session.execute("INSERT INTO item VALUES (%s)", [number])
            session.execute(end)

    def read(count: int, two_phase: bool) -> list[tuple[str, list[int]]]:
        found: list[tuple[str, list[int]]] = []
        with (
            connect(database.dsn()) as connection,
            connection.stream(slot, publications=["p"], two_phase=two_phase) as stream,
        ):
            for transaction in itertools.islice(stream.transactions(), count):
                found.append((transaction.kind, [change.new["id"] for change in transaction]))
                stream.ack(transaction)
        wait_until_free(database, slot)
        return found

    gid = database.slot("gid")
    insert(1, f"PREPARE TRANSACTION '{gid}'")
    insert(2)
    assert read(1, two_phase=False) == [("commit", [2])]
    insert(3)
    database.execute(f"COMMIT PREPARED '{gid}'")
    insert(4)
    assert read(4, two_phase=True) == [
        ("commit", [3]),
        ("prepare", [1]),
        ("commit prepared", []),
        ("commit", [4]),
    ]


def test_what_a_server_says_of_savepoints(codec: Any, database: Database) -> None:
    """One StreamAbort for each subtransaction that was streamed, nested ones too."""
    slot, _ = prepare(database, False)
    with contextlib.closing(database.connect()) as session:
        writer = Writer(session, 0, random.Random(0))
        writer.begin()
        writer.insert(300)
        xids: list[int] = []
        for _ in range(3):
            writer.savepoint()
            writer.insert(300)
            (row,) = session.execute("SELECT xmin::text FROM item ORDER BY id DESC LIMIT 1")
            xids.append(int(row[0]))
        session.execute("SELECT pg_logical_emit_message(false, 'at', 'once')")
        session.execute("ROLLBACK TO s1")
        writer.insert(300)
        writer.end("COMMIT")
    with contextlib.closing(database.connect(options=LITTLE_MEMORY)) as session:
        payloads = session.execute(
            "SELECT data FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL,"
            " 'proto_version', '2', 'publication_names', 'p', 'streaming', 'on', 'messages', 'on')",
            [slot],
        ).fetchall()
    decoder = codec.Decoder(2, "on", typed=False, ordered=True)
    messages = [decoder.feed(bytes(payload)) for (payload,) in payloads]
    aborts = [each.subxid for each in messages if isinstance(each, StreamAbort)]
    assert sorted(aborts) == xids
    end = next(at for at, each in enumerate(messages) if isinstance(each, StreamCommit))
    last = max(at for at, each in enumerate(messages) if isinstance(each, StreamAbort))
    assert last < end
    # What is not transactional is sent at once, and so never in a block.
    at = next(at for at, each in enumerate(messages) if isinstance(each, Message))
    around = [each for each in messages[:at] if isinstance(each, StreamStart | StreamStop)]
    assert isinstance(around[-1], StreamStop)
    batch = batch_of(codec, [bytes(payload) for (payload,) in payloads])
    decoder = codec.Decoder(2, "on", typed=False, ordered=True)
    found = {
        made.kind: [change for change in changes if isinstance(change, Insert)]
        for made, changes in read_transactions(decoder, Spool(), [batch])
    }
    assert [len(found[kind]) for kind in ("message", "commit")] == [0, 600]
