"""Decoding, compared with what the server itself says of the same changes.

test_decoding, the server's own plugin, writes every change as text: pgrepl's messages of a twin
slot must be the same, change by change. And the payloads of pgoutput that a SQL function gives must
be, byte by byte, those of a stream, whose decoding is then the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise, zip_longest
from types import ModuleType
from typing import Any, Final, TypeAlias

import psycopg
import pytest

import pgrepl
from pgrepl import messages
from pgrepl.messages import LogicalMessage
from tests.live.history import (
    SEED,
    THE_END,
    forget_an_origin,
    origins_dropped,
    prepare,
    random_types,
    write,
)
from tests.live.streams import (
    PATIENCE,
    Connect,
    create_slot,
    is_data,
    meanwhile,
    receive,
    receive_data,
    start_pgoutput,
    wait_until_free,
)
from tests.support import test_decoding_text as opinion
from tests.support.clusters import Cluster, Database
from tests.support.flavours import Flavour

Payload: TypeAlias = tuple[int, bytes]  # with its position
Received: TypeAlias = tuple[int, pgrepl.XLogData]
Told: TypeAlias = tuple[int, opinion.Event]


# What is read


@dataclass(frozen=True)
class Mode:
    """What a server is asked for, of which slot, with which settings of the session."""

    slot: str
    proto_version: int
    options: dict[str, str] = field(default_factory=dict)
    settings: str | None = None
    since: int = 14

    def __str__(self) -> str:
        return " ".join((str(self.proto_version), *self.options, *["spilled"] * self.spills))

    @property
    def spills(self) -> bool:
        return self.settings is not None and "streaming" not in self.options

    @property
    def all_options(self) -> dict[str, str]:
        version = {"proto_version": str(self.proto_version)}
        return version | {"publication_names": "p", "messages": "true"} | self.options


# With so little, most transactions of the writers are streamed, or written to a file meanwhile.
LITTLE_MEMORY: Final = "-c logical_decoding_work_mem=64kB"
TWO_PHASE: Final = {"two_phase": "true"}

PLAIN: Final = Mode("one", 1)
MODES: Final = (
    PLAIN,
    Mode("one", 1, {"binary": "true"}),
    Mode("one", 1, {}, LITTLE_MEMORY),
    Mode("one", 2, {"streaming": "on"}, LITTLE_MEMORY),
    Mode("two_phase", 3, TWO_PHASE, None, 15),
    Mode("two_phase", 3, TWO_PHASE | {"streaming": "on"}, LITTLE_MEMORY, 15),
    Mode("two_phase", 4, TWO_PHASE | {"streaming": "parallel"}, LITTLE_MEMORY, 16),
)


@dataclass(frozen=True)
class Catalog:
    """What the server knows of the tables and types that changes are about."""

    types: dict[int, str]  # names, by number
    identities: dict[opinion.Table, str]
    unpublished: set[opinion.Table]  # what test_decoding tells of and pgoutput does not
    empty_published: bool  # transactions without a change as well
    generated: dict[tuple[opinion.Table, str], str]  # virtual or stored, by table and column

    @classmethod
    def of(cls, database: Database) -> Catalog:
        classes = database.execute(
            "SELECT nspname, relname, relkind, relreplident FROM pg_class c"
            " JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname !~ '^pg_'"
        )
        generated = database.execute(
            "SELECT nspname, relname, attname, attgenerated FROM pg_attribute"
            " JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace"
            " WHERE attgenerated <> ''"
        )
        return cls(
            dict(database.execute("SELECT oid::int8, format_type(oid, NULL) FROM pg_type")),
            {(schema, name): identity for schema, name, _, identity in classes},
            {(schema, name) for schema, name, kind, _ in classes if kind != "r"},
            database.cluster.major < 15,
            {((schema, name), column): kind for schema, name, column, kind in generated},
        )


@dataclass(frozen=True)
class History:
    """A database where everything was written behind the beginning of its slots."""

    database: Database
    marked: set[int]
    catalog: Catalog


@pytest.fixture(scope="module")
def history(cluster: Cluster) -> Iterator[History]:
    with cluster.new_database() as database:
        prepare(database)
        if has_test_decoding(database):
            create_slot(database, "text", plugin="test_decoding")
        create_slot(database, "one")
        create_slot(database, "consumed")
        database.execute(
            "SELECT pg_create_logical_replication_slot(%s, 'pgoutput', false, true)",
            [database.slot("two_phase")],
        )
        with origins_dropped(database):
            marked = write(database)
            forget_an_origin(database)
            yield History(database, marked, Catalog.of(database))


@pytest.fixture(scope="module")
def text(history: History) -> list[Told]:
    """What test_decoding says of the history."""
    skip_without_test_decoding(history.database)
    try:
        return list(read_text(history.database))
    except psycopg.OperationalError as error:
        # Seen on 18: a segmentation fault in test_decoding. The server starts anew by itself.
        pytest.skip(f"the server's test_decoding has crashed, and has no opinion: {error}")


def has_test_decoding(database: Database) -> bool:
    try:
        database.execute("LOAD 'test_decoding'")
    except psycopg.errors.UndefinedFile:
        return False
    return True


def skip_without_test_decoding(database: Database) -> None:
    if not has_test_decoding(database):
        pytest.skip("this server lacks test_decoding, which is in PostgreSQL's contrib")


def read_text(database: Database) -> Iterator[Told]:
    for lsn, line in database.execute(
        "SELECT (lsn - '0/0')::int8, data FROM pg_logical_slot_peek_binary_changes("
        "%s, NULL, NULL, 'include-xids', '1', 'include-timestamp', '1')",
        [database.slot("text")],
    ):
        yield lsn, opinion.parse(line)


def read_by_sql(database: Database, mode: Mode, function: str = "peek") -> list[Payload]:
    flat = [text for pair in mode.all_options.items() for text in pair]
    with database.connect(options=mode.settings) as session:
        return session.execute(
            f"SELECT (lsn - '0/0')::int8, data FROM pg_logical_slot_{function}_binary_changes("
            f"%s, NULL, NULL, VARIADIC ARRAY[{', '.join(['%s'] * len(flat))}])".encode(),
            [database.slot(mode.slot), *flat],
        ).fetchall()


def read_stream(connect: Connect, database: Database, mode: Mode) -> list[Received]:
    """All that the stream has up to now; the slot stays where it is."""
    slot = database.slot(mode.slot)
    [(end,)] = database.execute("SELECT (pg_current_wal_flush_lsn() - '0/0')::int8")
    wait_until_free(database, slot)
    with connect(database.dsn(), options=mode.settings) as connection:
        start_pgoutput(connection, slot, **mode.all_options)
        return list(received(connection, end))


def received(connection: pgrepl.Connection, end: int) -> Iterator[Received]:
    """What comes until the server says that it has read its WAL up to there."""
    while is_data(message := receive(connection)) or message.wal_end < end:
        if is_data(message):
            assert message.wal_start == message.wal_end
            yield message.wal_start, message


def decode(
    codec: ModuleType, mode: Mode, payloads: Iterable[Payload | Received]
) -> Iterator[tuple[int, LogicalMessage]]:
    """The messages and their positions; values are the server's own text."""
    streaming = mode.options.get("streaming", "off")
    decoder = codec.Decoder(mode.proto_version, streaming, typed=False)
    for lsn, payload in payloads:
        yield lsn, decoder.feed(payload, lsn=lsn)


# What pgrepl says, and what test_decoding says, as one


def told(catalog: Catalog, decoded: Iterable[tuple[int, LogicalMessage]]) -> Iterator[Told]:
    """Messages of pgrepl's as test_decoding would put them."""
    begin: messages.Begin | None = None
    for lsn, message in decoded:
        match message:
            case messages.Begin(xid=xid):
                assert begin is None
                begin = message
                yield 0, opinion.Begin(xid)
            case messages.Commit(commit_lsn, end_lsn, commit_time):
                assert begin is not None
                assert (commit_lsn, commit_time) == (begin.final_lsn, begin.commit_time)
                assert lsn == end_lsn > commit_lsn
                yield lsn, opinion.Commit(begin.xid, message.commit_datetime)
                begin = None
            case messages.Message(transactional, position, prefix, content):
                assert transactional <= (begin is not None)
                assert position == lsn
                yield lsn, opinion.Message(transactional, prefix, content)
            case messages.Relation(schema=schema, name=name, replica_identity=identity):
                assert identity == catalog.identities[schema, name]
            case messages.Type() | messages.Origin():
                pass
            case _:
                assert begin is not None
                yield lsn, told_change(catalog, message)


def told_change(catalog: Catalog, message: LogicalMessage) -> opinion.Event:
    def table(relation: messages.Relation) -> opinion.Table:
        return relation.schema, relation.name

    def row(values: pgrepl.Row | None, *, but_nulls: bool = False) -> opinion.Row | None:
        if values is None:
            return None
        return tuple(
            opinion.Datum(column.name, catalog.types[column.type_oid], value)
            for column, value in zip(values.columns, values, strict=True)
            if not but_nulls or value is not None
        )

    def old(relation: messages.Relation, key: Any, full: Any) -> opinion.Row | None:
        assert full is None if relation.replica_identity != "f" else key is None
        return row(full if key is None else key, but_nulls=True)

    match message:
        case messages.Insert(relation, new):
            return opinion.RowChange("INSERT", table(relation), None, row(new))
        case messages.Update(relation, key, full, new):
            before = old(relation, key, full)
            return opinion.RowChange("UPDATE", table(relation), before, row(new))
        case messages.Delete(relation, key, full):
            before = old(relation, key, full)
            return opinion.RowChange("DELETE", table(relation), before, None)
        case messages.Truncate(relations, cascade, restart_identity):
            return opinion.Truncate(tuple(map(table, relations)), restart_identity, cascade)
    raise AssertionError(f"nothing that a transaction has by itself: {message!r}")


def published(catalog: Catalog, text: Iterable[Told], but: str) -> Iterator[Told]:
    """Of what test_decoding tells what pgoutput has too.

    `but` are the kinds of generated columns that are not published.
    """
    begin: opinion.Begin | None = None
    for lsn, event in text:
        match event:
            case opinion.Begin():
                assert begin is None
                if catalog.empty_published:
                    yield 0, event
                else:
                    begin = event
            case opinion.Commit() if begin is not None:
                begin = None
            case opinion.Commit():
                yield lsn, event
            case opinion.Message(transactional=False):
                assert begin is None
                yield lsn, event
            case _ if (change := published_change(catalog, event, but)) is not None:
                if begin is not None:
                    yield 0, begin
                    begin = None
                yield lsn, change


def published_change(catalog: Catalog, change: opinion.Event, but: str) -> opinion.Event | None:
    match change:
        case opinion.RowChange(_, table, old, new):

            def row(data: opinion.Row | None) -> opinion.Row | None:
                return data and tuple(
                    datum
                    for datum in data
                    if catalog.generated.get((table, datum.name), "none") not in but
                )

            shown = replace(change, old=row(old), new=row(new))
            return None if table in catalog.unpublished else shown
        case opinion.Truncate(tables):
            left = tuple(table for table in tables if table not in catalog.unpublished)
            return replace(change, tables=left) if left else None
    return change


def expect_same(ours: Iterable[object], theirs: Iterable[object]) -> None:
    for number, (one, other) in enumerate(zip_longest(ours, theirs)):
        assert one == other, f"number {number}, with PGREPL_SEED={SEED}"


@pytest.mark.parametrize("publication", ["p", "with_generated"])
def test_every_change_is_what_test_decoding_says(
    history: History, text: list[Told], connect: Connect, flavour: Flavour, publication: str
) -> None:
    if publication == "with_generated" and history.database.cluster.major < 18:
        pytest.skip("generated columns are published from PostgreSQL 18 on")
    mode = replace(PLAIN, options={"publication_names": publication})
    payloads = read_stream(connect, history.database, mode)
    but = {"p": "sv", "with_generated": "v"}[publication]
    expect_same(
        told(history.catalog, decode(flavour.codec, PLAIN, payloads)),
        published(history.catalog, text, but),
    )


def test_nothing_is_missing_from_what_is_compared(history: History, text: list[Told]) -> None:
    events = [event for _, event in text]
    changes = [event for event in events if isinstance(event, opinion.RowChange)]
    assert len(changes) > 5000
    assert {(each.kind, each.old is not None, each.new is not None) for each in changes} == {
        ("INSERT", False, True),
        ("UPDATE", False, True),
        ("UPDATE", True, True),
        ("DELETE", True, False),
    }
    data = [datum for each in changes for datum in (*(each.old or ()), *(each.new or ()))]
    assert {None, "", pgrepl.UNCHANGED} <= {datum.value for datum in data}
    kinds = ["bool", "yes", "percent", "mood", "mood[]", '"char"', '"sch.äma"."Weird] type"']
    names = history.database.execute(
        "SELECT format_type(v::regtype, NULL) FROM unnest(%s::text[]) v",
        [[*kinds, *random_types(history.database)]],
    )
    assert {datum.type_name for datum in data} >= {name for (name,) in names}
    assert {
        (each.restart_identity, each.cascade, len(each.tables) > 1)
        for each in events
        if isinstance(each, opinion.Truncate)
    } > {(False, False, False), (True, False, True), (False, True, True), (True, True, True)}
    tables = {each.table for each in changes}
    assert tables > {table for table, _ in history.catalog.generated}
    assert {history.catalog.identities[table] for table in tables} == set("dfin")
    assert tables & history.catalog.unpublished
    assert {e.transactional for e in events if isinstance(e, opinion.Message)} == {True, False}
    assert history.marked < {each.xid for each in events if isinstance(each, opinion.Begin)}
    assert any(
        isinstance(one, opinion.Begin) and isinstance(other, opinion.Commit)
        for one, other in pairwise(events)
    )


def test_inserts_alone(database: Database, connect: Connect, flavour: Flavour) -> None:
    database.execute(
        "CREATE TABLE t (a int, b text); ALTER TABLE t REPLICA IDENTITY NOTHING;"
        " CREATE PUBLICATION p FOR ALL TABLES WITH (publish = 'insert')"
    )
    skip_without_test_decoding(database)
    create_slot(database, "text", plugin="test_decoding")
    create_slot(database, PLAIN.slot)
    database.execute(
        "INSERT INTO t VALUES (1, 'a'), (NULL, NULL);"
        " UPDATE t SET b = 'x' WHERE a = 1; DELETE FROM t WHERE a = 1; TRUNCATE t"
    )
    begin, one, two, update, delete, truncate, commit = read_text(database)
    table = ("public", "t")
    new = (opinion.Datum("a", "integer", "1"), opinion.Datum("b", "text", "x"))
    assert update[1] == opinion.RowChange("UPDATE", table, None, new)
    assert delete[1] == opinion.RowChange("DELETE", table, None, None)
    assert truncate[1] == opinion.Truncate((table,), False, False)
    payloads = read_stream(connect, database, PLAIN)
    decoded = decode(flavour.codec, PLAIN, payloads)
    expect_same(told(Catalog.of(database), decoded), [(0, begin[1]), one, two, commit])


# Streams, and what SQL gives


def as_streamed(payloads: Iterable[Payload], marked: set[int]) -> Iterator[Payload]:
    """With the positions that a stream gives: 0 where the plugin has more to say at the same one.

    So it describes tables and types before the change they belong to, and begins a transaction that
    has an origin, whose name may be known no more, so that nothing of the kind follows.
    """
    for lsn, payload in payloads:
        tag = payload[:1]
        has_origin = tag == b"B" and int.from_bytes(payload[-4:]) in marked
        yield 0 if has_origin or tag in (b"R", b"Y") else lsn, payload


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_stream_is_what_sql_gives(
    history: History, connect: Connect, flavour: Flavour, mode: Mode
) -> None:
    if history.database.cluster.major < mode.since:
        pytest.skip(f"pgoutput {mode.proto_version} comes with PostgreSQL {mode.since}")
    peeked = read_by_sql(history.database, mode)
    streamed = read_stream(connect, history.database, mode)
    sent = [(lsn, bytes(message)) for lsn, message in streamed]
    expect_same(sent, as_streamed(peeked, history.marked))
    expect_same(
        (message for _, message in decode(flavour.codec, mode, streamed)),
        (message for _, message in decode(flavour.codec, mode, peeked)),
    )
    tags = {payload[:1] for _, payload in sent}
    assert tags >= {b"B", b"C", b"R", b"Y", b"I", b"U", b"D", b"T", b"M", b"O"}
    assert tags.issuperset({b"S", b"E", b"c", b"A"}) == ("streaming" in mode.options)
    assert tags.issuperset({b"b", b"P", b"K", b"r"}) == ("two_phase" in mode.options)
    assert (b"p" in tags) == ({"two_phase", "streaming"} <= mode.options.keys())
    binary = any(b"b\0\0\0\4" in payload for _, payload in sent if payload[:1] == b"I")
    assert binary == ("binary" in mode.options)


def test_what_sql_takes_is_what_it_showed(history: History) -> None:
    showed = read_by_sql(history.database, PLAIN)
    consumed = replace(PLAIN, slot="consumed")
    expect_same(read_by_sql(history.database, consumed, "get"), showed)
    assert read_by_sql(history.database, consumed) == []


def test_a_stream_that_runs_along(database: Database, connect: Connect, flavour: Flavour) -> None:
    """Its session hears of DDL when it happens, and once more when it decodes it.

    So it describes tables oftener than it must, but says nothing new.
    """
    prepare(database)
    create_slot(database, "along")
    create_slot(database, PLAIN.slot)
    with origins_dropped(database), connect(database.dsn()) as connection:
        start_pgoutput(connection, database.slot("along"), **PLAIN.all_options)
        with meanwhile(lambda: write(database)) as writing:
            along = list(received_until_the_end(connection))
            marked = writing.result(PATIENCE)
        peeked = list(as_streamed(read_by_sql(database, PLAIN), marked))
    expect_same(without_repetitions(along), without_repetitions(peeked))
    expect_same(
        changes_of(decode(flavour.codec, PLAIN, along)),
        changes_of(decode(flavour.codec, PLAIN, peeked)),
    )


def received_until_the_end(connection: pgrepl.Connection) -> Iterator[Payload]:
    last = False
    while True:
        message = receive_data(connection)
        payload = bytes(message)
        yield message.wal_start, payload
        last |= payload[:1] == b"M" and THE_END.encode() in payload
        if last and payload[:1] == b"C":
            return


def without_repetitions(payloads: Iterable[Payload]) -> Iterator[Payload]:
    """Without descriptions that say what the last one of the same table or type said."""
    described: dict[bytes, bytes] = {}
    for lsn, payload in payloads:
        if payload[:1] in (b"R", b"Y"):
            subject = payload[:5]  # tag and number
            if described.get(subject) == payload:
                continue
            described[subject] = payload
        yield lsn, payload


def changes_of(decoded: Iterable[tuple[int, LogicalMessage]]) -> Iterator[LogicalMessage]:
    for _, message in decoded:
        if not isinstance(message, messages.Relation | messages.Type):
            yield message
