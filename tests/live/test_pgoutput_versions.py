"""Every version of pgoutput, as real servers speak it: transactions, streamed or prepared or both,
put together here by hand, are what was committed, and nothing else.

The same changes are read by each version and mode that the server knows, by its SQL function.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import pytest

from pgrepl.codec import Row
from pgrepl.messages import (
    UNCHANGED,
    Begin,
    BeginPrepare,
    Commit,
    CommitPrepared,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Origin,
    Prepare,
    Relation,
    RollbackPrepared,
    StreamAbort,
    StreamCommit,
    StreamPrepare,
    StreamStart,
    StreamStop,
    Truncate,
    Type,
    Update,
)
from tests.live.writers import Writer, write_all_kinds
from tests.support.clusters import Cluster, Database

Change: TypeAlias = Insert | Update | Delete | Truncate | Message

SEED = int(os.environ.get("PGREPL_SEED", "20261122"))  # the same changes in every run
WRITERS = 4
TABLES = ("item", *(f"own{number}" for number in range(WRITERS)))


class Mode(NamedTuple):
    """What a server is asked for; with `two_phase`, of a slot that was made for it."""

    proto_version: int
    streaming: str
    two_phase: bool

    def __str__(self) -> str:
        return f"{self.proto_version}, {self.streaming}{', two_phase' * self.two_phase}"


MODES = (
    Mode(1, "off", False),
    Mode(2, "on", False),
    Mode(3, "on", False),
    Mode(3, "off", True),
    Mode(3, "on", True),
    Mode(4, "on", True),
    Mode(4, "parallel", False),
    Mode(4, "parallel", True),
)
NEWEST_VERSION = {14: 2, 15: 3}  # of pgoutput, by the server's; 4 from 16 on


# What is written, and read


@dataclass
class Recording:
    """What was written to a server, and what it makes of that in each mode."""

    major: int
    rows: dict[str, dict[str, dict[str, str | None]]]  # by table and id
    payloads: dict[Mode, list[tuple[int, bytes]]]  # with their positions


@pytest.fixture(scope="module")
def recording(cluster: Cluster) -> Iterator[Recording]:
    with cluster.new_database() as database:
        database.execute(
            "CREATE TYPE mood AS ENUM ('sad', 'ok');"
            "CREATE TABLE item (id int PRIMARY KEY, note text, m mood);"
            "ALTER TABLE item ALTER note SET STORAGE EXTERNAL;"
            + "".join(
                f"CREATE TABLE {name} (id int PRIMARY KEY, note text);" for name in TABLES[1:]
            )
            + "CREATE PUBLICATION p FOR ALL TABLES"
        )
        modes = [
            mode for mode in MODES if mode.proto_version <= NEWEST_VERSION.get(cluster.major, 4)
        ]
        for two_phase in {mode.two_phase for mode in modes}:
            database.execute(
                "SELECT pg_create_logical_replication_slot(%s, 'pgoutput', false, %s)",
                [database.slot(str(two_phase).lower()), two_phase],
            )
        write(database)
        payloads = {mode: list(read(database, mode)) for mode in modes}
        yield Recording(cluster.major, dict(rows(database)), payloads)


def write(database: Database) -> None:
    draw = random.Random(SEED)
    sessions = [database.connect() for _ in range(WRITERS)]
    try:
        writers = [Writer(session, n, draw) for n, session in enumerate(sessions)]
        write_all_kinds(writers[0], writers[1])
        for _ in range(400):
            draw.choice(writers).step()
        for writer in writers:
            writer.finish()
        # An abort is not flushed by itself, and what is not flushed is not decoded.
        writers[0].begin()
        writers[0].insert(1)
        writers[0].end("COMMIT")
    finally:
        for session in sessions:
            session.close()


def read(database: Database, mode: Mode) -> Iterator[tuple[int, bytes]]:
    options = {
        "proto_version": str(mode.proto_version),
        "publication_names": "p",
        "messages": "true",
        **({"streaming": mode.streaming} if mode.streaming != "off" else {}),
        **({"two_phase": "true"} if mode.two_phase else {}),
    }
    flat = [text for pair in options.items() for text in pair]
    slot = database.slot(str(mode.two_phase).lower())
    with database.connect(options="-c logical_decoding_work_mem=64kB") as session:
        yield from session.execute(
            "SELECT (lsn - '0/0')::bigint, data FROM pg_logical_slot_peek_binary_changes("
            f"%s, NULL, NULL, VARIADIC ARRAY[{', '.join(['%s'] * len(flat))}])".encode(),
            [slot, *flat],
        )


def rows(database: Database) -> Iterator[tuple[str, dict[str, dict[str, str | None]]]]:
    """What the tables hold, as text."""
    for table in TABLES:
        names = [
            name
            for (name,) in database.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0",
                [table],
            )
        ]
        columns = ", ".join(f"{name}::text" for name in names)
        found = database.execute(f"SELECT {columns} FROM {table}")
        yield table, {row[0]: dict(zip(names, row, strict=True)) for row in found}


# How it is put together


@dataclass
class Assembler:
    """What a consumer does with the messages, in the plainest way."""

    transactions: list[tuple[int, list[Change]]] = field(default_factory=list)
    at_once: list[Message] = field(default_factory=list)
    streams: dict[int, list[Change]] = field(default_factory=dict)
    prepared: dict[str, tuple[int, list[Change]]] = field(default_factory=dict)
    never_streamed: set[int] = field(default_factory=set)
    current: tuple[int, list[Change]] | None = None
    block: int | None = None

    def take(self, message: LogicalMessage) -> None:
        match message:
            case Relation() | Type() | Origin():
                assert (getattr(message, "xid", self.block) is None) == (self.block is None)
            case Message(transactional=False):
                self.at_once.append(message)
            case Insert() | Update() | Delete() | Truncate() | Message():
                self._change(message)
            case StreamStart(xid, first_segment):
                assert (xid not in self.streams) == first_segment
                self.block = xid
                self.streams.setdefault(xid, [])
            case StreamStop():
                self.block = None
            case StreamAbort(xid, subxid) if xid == subxid:
                del self.streams[xid]
            case StreamAbort(xid, subxid) if xid in self.streams:
                self.streams[xid] = [each for each in self.streams[xid] if each.xid != subxid]
            case StreamAbort(xid):
                # PostgreSQL 18 drops what it knows to be aborted before it streams any of it, and
                # may still tell of a subtransaction's abort.
                self.never_streamed.add(xid)
            case _:
                self._outcome(message)

    def _change(self, message: Change) -> None:
        if self.block is not None:
            assert message.xid is not None
            self.streams[self.block].append(message)
        else:
            assert message.xid is None
            assert self.current is not None
            self.current[1].append(message)

    def _outcome(self, message: LogicalMessage) -> None:
        match message:
            case Begin(xid=xid) | BeginPrepare(xid=xid):
                assert self.current is None
                self.current = (xid, [])
            case Commit():
                assert self.current is not None
                self.transactions.append(self.current)
                self.current = None
            case Prepare(xid=xid, gid=gid):
                assert self.current is not None
                assert self.current[0] == xid
                self.prepared[gid] = self.current
                self.current = None
            case StreamCommit(xid):
                self.transactions.append((xid, self.streams.pop(xid)))
            case StreamPrepare(xid=xid, gid=gid):
                self.prepared[gid] = (xid, self.streams.pop(xid))
            case CommitPrepared(xid=xid, gid=gid):
                assert self.prepared[gid][0] == xid
                self.transactions.append(self.prepared.pop(gid))
            case RollbackPrepared(xid=xid, gid=gid):
                assert self.prepared.pop(gid)[0] == xid


def replica(changes: Iterator[Change]) -> dict[str, dict[str, dict[str, Any]]]:
    """The tables after these changes, by table and id."""
    tables: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in TABLES}
    for change in changes:
        match change:
            case Insert(relation, new):
                assert new["id"] not in tables[relation.name]
                tables[relation.name][new["id"]] = new.asdict()
            case Update(relation, key, None, new):
                table = tables[relation.name]
                before = table.pop(id_of(new if key is None else key))
                kept = {name: before[name] for name, v in new.items() if v is UNCHANGED}
                table[new["id"]] = {**new.asdict(), **kept}
            case Delete(relation, key, None) if key is not None:
                del tables[relation.name][id_of(key)]
            case Truncate(relations):
                for relation in relations:
                    tables[relation.name].clear()
            case Message(True, _, prefix, content):
                assert (prefix, content) == ("all", b"together")
            case other:
                pytest.fail(f"nobody did this: {other!r}")
    return tables


def id_of(row: Row) -> str:
    assert isinstance(row["id"], str)
    return row["id"]


# What must come of it


@pytest.fixture(params=MODES, ids=str)
def mode(request: pytest.FixtureRequest, recording: Recording) -> Mode:
    chosen: Mode = request.param
    if chosen not in recording.payloads:
        pytest.skip(f"PostgreSQL {recording.major} has no pgoutput {chosen.proto_version}")
    return chosen


def decode(codec: Any, recording: Recording, mode: Mode) -> list[LogicalMessage]:
    decoder = codec.Decoder(mode.proto_version, mode.streaming, typed=False)
    return [decoder.feed(payload, lsn=lsn) for lsn, payload in recording.payloads[mode]]


def test_what_is_delivered_is_what_was_committed(
    recording: Recording, mode: Mode, codec: Any
) -> None:
    assembler = Assembler()
    for message in decode(codec, recording, mode):
        assembler.take(message)
    assert assembler.current is None
    assert assembler.block is None
    assert not assembler.prepared
    xids = [xid for xid, _ in assembler.transactions]
    assert len(set(xids)) == len(xids)
    assert not assembler.never_streamed.intersection(xids)
    assert not assembler.never_streamed or recording.major >= 18
    delivered = replica(c for _, changes in assembler.transactions for c in changes)
    # A column that was added later is NULL where the row was not written since.
    for table, expected in recording.rows.items():
        names = next(iter(expected.values()), {})
        found = {key: dict.fromkeys(names) | row for key, row in delivered[table].items()}
        assert found == expected, table


def test_every_mode_delivers_the_same(recording: Recording, mode: Mode, codec: Any) -> None:
    def contents(mode: Mode) -> dict[int, list[object]]:
        assembler = Assembler()
        for message in decode(codec, recording, mode):
            assembler.take(message)
        assert len(assembler.at_once) > 10
        return {xid: [plain(each) for each in changes] for xid, changes in assembler.transactions}

    def plain(change: Change) -> object:
        return [getattr(change, name) for name in change.__match_args__ if name != "xid"]

    assert contents(mode) == contents(MODES[0])


def test_every_kind_of_message_comes(recording: Recording, mode: Mode, codec: Any) -> None:
    expected = {Begin, Commit, Relation, Type, Insert, Update, Delete, Truncate, Message}
    if mode.streaming != "off":
        expected |= {StreamStart, StreamStop, StreamCommit, StreamAbort}
    if mode.two_phase:
        expected |= {BeginPrepare, Prepare, CommitPrepared, RollbackPrepared}
    if mode.two_phase and mode.streaming != "off":
        expected |= {StreamPrepare}
    messages = decode(codec, recording, mode)
    found = {type(message) for message in messages}
    if mode.streaming == "off" and recording.major >= 18:
        # It tells of an abort where it found a large transaction aborted and sent nothing of it.
        found.discard(StreamAbort)
    assert found == expected
    updates = [message for message in messages if isinstance(message, Update)]
    assert any(UNCHANGED in update.new.values() for update in updates)
    aborts = [message for message in messages if isinstance(message, StreamAbort)]
    assert mode.streaming == "off" or any(abort.xid != abort.subxid for abort in aborts)
    for abort in aborts:
        assert (abort.abort_lsn is None) == (mode.streaming != "parallel")
        assert (abort.abort_datetime is None) == (mode.streaming != "parallel")


def test_what_is_streamed_names_its_part(recording: Recording, mode: Mode, codec: Any) -> None:
    block: int | None = None
    parts: dict[int, set[int]] = {}
    for message in decode(codec, recording, mode):
        if isinstance(message, StreamStart):
            block = message.xid
        elif isinstance(message, StreamStop):
            block = None
        elif block is not None and not isinstance(message, Origin):
            xid = getattr(message, "xid", None)
            assert xid is not None
            assert not isinstance(message, Message) or xid == block
            parts.setdefault(block, set()).add(xid)
    # Transactions of several parts, and no part of two.
    assert any(len(xids) > 1 for xids in parts.values()) == (mode.streaming != "off")
    assert sum(map(len, parts.values())) == len(set().union(*parts.values()))
