"""Every type against what the server says and what psycopg makes of it, in text and in binary.

One stream brings all tables of a server in each form - text under three time zones, binary in UTC -
and each type's values are then compared with another opinion, which `CASES` names:

PSYCOPG
    what psycopg 3 loads, by type and value; where it finds that Python has no such value, the
    server's text.
TEXT
    the server's text in both forms: `str()` of the value, whose class is named where it is no str.
any SQL
    what psycopg loads for that expression; of a `str`, in text, the server's text.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time
from types import ModuleType
from typing import Any, Final

import psycopg
import pytest
from psycopg.types import TypeInfo
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.hstore import register_hstore
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range as PsycopgRange

import pgrepl
from pgrepl.json_form import json_line, json_value
from pgrepl.values import Array, Interval, Range, text_of
from tests.live.type_samples import random_values
from tests.support.clusters import Cluster, Database

PSYCOPG: Final = "psycopg"
TEXT: Final = "text"

# The last one had local mean time, offsets with seconds, until 1972.
ZONES: Final = ("UTC", "Asia/Kolkata", "Africa/Monrovia")
BINARY: Final = "binary"
STREAMS: Final = (*ZONES, BINARY)

PAIR_OVERRIDES: Final = {"public.pair": 2249, "public.mood": 25}
"""What a user has to say of types whose binary form tells nothing of them."""


@dataclass(frozen=True)
class Case:
    """What to compare a type with, values of it by hand, and the class of all of its values.

    The class is that of the text form; `object` where a value may be text for want of a better.
    """

    opinion: str
    edges: list[str] = field(default_factory=list)
    value_class: type = str
    since: int = 10


_DAYS = ["2000-01-01", "0001-01-01", "9999-12-31", "10000-01-01", "0001-12-31 BC", "infinity"]
_DAYS += ["-infinity", "4714-11-24 BC", "2000-02-29", "1900-02-28", "0004-02-29", "0005-02-28 BC"]
_MOMENTS = ["2000-01-01 00:00:00", "1999-12-31 23:59:59.999999", "0001-01-01 00:00:00", "infinity"]
_MOMENTS += ["9999-12-31 23:59:59.999999", "10000-01-01 00:00:00", "0044-03-15 12:00:00 BC"]
_MOMENTS += ["-infinity", "294276-12-31 23:59:59.999999", "1850-06-01 12:00:00", "1971-01-01 0:0:1"]

CASES: Final[dict[str, Case]] = {
    "bool": Case(PSYCOPG, ["t", "f"], bool),
    "int2": Case(PSYCOPG, ["-32768", "32767", "0"], int),
    "int4": Case(PSYCOPG, ["-2147483648", "2147483647", "-1"], int),
    "int8": Case(PSYCOPG, ["-9223372036854775808", "9223372036854775807"], int),
    "oid": Case(PSYCOPG, ["0", "4294967295"], int),
    "xid": Case(TEXT, ["3", "4294967295"], int),
    "cid": Case(TEXT, ["0", "4294967295"], int),
    "xid8": Case(TEXT, ["0", "18446744073709551615"], int, since=13),
    "float4": Case(PSYCOPG, ["0.1", "-0", "1e15", "NaN", "Infinity", "-Infinity", "1e-45"], float),
    "float8": Case(PSYCOPG, ["0.1", "-0", "1e15", "NaN", "Infinity", "5e-324", "1e-5"], float),
    "numeric": Case(
        PSYCOPG,
        ["0", "0.00", "NaN", "1e20", "1e-20", "-12345.678", "1.5000", "10000", "9999", "0.0001"]
        + ["1e131071", "-1e-16383", "123456789012345678901234567890.0987654321000"],
        object,
    ),
    "numeric(12,2)": Case(PSYCOPG, ["0", "-0.005", "9999999999.99"], object),
    "money": Case("(v::numeric * 100)::int8", ["-1234.56", "0", "92233720368547758.07"]),
    "text": Case(PSYCOPG, ["", "NULL", "\x01\x7f", "\U0010ffff"]),
    "varchar": Case(PSYCOPG, [""]),
    "char(5)": Case(PSYCOPG, ["", "ab", "é"]),
    "name": Case(PSYCOPG, ["", "a b"]),
    '"char"': Case(TEXT, ["", "a", "'", "\\"]),
    "json": Case(TEXT, ['{"a": [1, "é\\u0000"]}', " null "]),
    "jsonb": Case(TEXT, ['{"b":1,"a":[1.50,null]}', "null", '"\\""']),
    "jsonpath": Case(TEXT, ["$.a[*] ? (@ > 1)", '$."b c"'], since=12),
    "xml": Case(TEXT, ["<a>é</a>", "text"]),
    "bytea": Case(PSYCOPG, ["", "\\x00ff", "\\\\x41"], bytes),
    "uuid": Case(PSYCOPG, ["00000000-0000-0000-0000-000000000000"], object),
    "date": Case(PSYCOPG, [*_DAYS, "5874897-12-31", "0401-02-29 BC"], object),
    "time": Case(PSYCOPG, ["00:00:00", "23:59:59.999999", "24:00:00", "04:05:06.1"], object),
    "timetz": Case(PSYCOPG, ["00:00:00+00", "24:00:00-08", "24:00:00+05:53:28"], object),
    "timestamp": Case(PSYCOPG, _MOMENTS, object),
    "timestamptz": Case(PSYCOPG, _MOMENTS, object),
    "interval": Case(
        TEXT,
        ["0", "1 year 2 mons 3 days 04:05:06.789", "-1 mons +2 days -00:00:01", "-1 day 1 hour"]
        + ["1 mon -1 day", "-1 year 1 day", "-00:00:00.000001", "100:00:00", "11 mons", "1 year"]
        + ["-178956970 years -8 mons", "178956970 years 7 mons 2147483647 days", "1 day"]
        + ["-1 day +00:00:00.5", "2562047788:00:54.775807"],
        Interval,
    ),
    "inet": Case(
        PSYCOPG,
        ["192.168.1.5/24", "10.0.0.1", "0.0.0.0/0", "::1", "::/0", "::ffff:1.2.3.4", "fe80::1/64"],
        object,
    ),
    "cidr": Case(PSYCOPG, ["10.0.0.0/8", "10.0.0.1/32", "::/0", "2001:db8::/32"], object),
    "macaddr": Case(TEXT, ["08:00:2b:01:02:ff"]),
    "macaddr8": Case(TEXT, ["08:00:2b:01:02:03:04:ff"]),
    "bit(5)": Case(TEXT, ["10101", "00000"]),
    "varbit": Case(TEXT, ["", "1", "00000001", "000000010"]),
    "pg_lsn": Case(TEXT, ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"], pgrepl.Lsn),
    "point": Case(TEXT, ["(0,-0)", "(1e15,999999999999999)", "(1e-5,0.0001)", "(NaN,-Infinity)"]),
    "lseg": Case(TEXT),
    "path": Case(TEXT, ["((0,0))", "[(0,0)]"]),
    "box": Case(TEXT, ["(1,2),(3,4)"]),
    "polygon": Case(TEXT, ["((0,0))"]),
    "line": Case(TEXT, ["{1,-1,0}", "{0.1,1e20,3}"]),
    "circle": Case(TEXT, ["<(0,0),0>"]),
    "tsvector": Case(TEXT, ["", "'a':1A,2B,3C,4 'b'", "''''", "'\\\\'"]),
    "tsquery": Case(
        TEXT, ["", "a", "!a", "!!a", "!!!!!a", "a & b | c", "!(a|b)", "a <-> (b <-> c)", "a:*AB"]
    ),
    "tid": Case(TEXT, ["(0,1)", "(4294967295,65535)"]),
    "pg_snapshot": Case(TEXT, ["10:20:10,14,15", "1:1:"], since=13),
    "txid_snapshot": Case(TEXT, ["10:20:10,14,15", "1:1:"]),
    "refcursor": Case(TEXT, ["c"]),
    "regclass": Case("v::oid", ["pg_class", "-"]),
    "regproc": Case("v::oid", ["now", "-"]),
    "regtype": Case("v::oid", ["integer", "text[]"]),
    "regrole": Case("v::oid", ["postgres"]),
    "int2vector": Case("v::int2[]", ["", "1", "1 2 -3"], Array),
    "oidvector": Case("v::oid[]", ["", "1", "1 2 4294967295"], Array),
    "int4[]": Case(PSYCOPG, ["{}", "{NULL}", "[2:3]={5,6}", "{{{{{{1}}}}}}"], Array),
    "text[]": Case(PSYCOPG, ["{}", '{"",NULL,"NULL",null,"a b","{","\\\\","\\""}'], Array),
    "bool[]": Case(PSYCOPG, ["{t,f,NULL}"], Array),
    "numeric[]": Case(PSYCOPG, ["{NaN,1.50}"], Array),
    "date[]": Case(PSYCOPG, ["{2000-01-01,NULL}"], Array),
    "timestamptz[]": Case(PSYCOPG, ['{"2000-01-01 00:00:00+00",NULL}'], Array),
    "bytea[]": Case(PSYCOPG, ['{"\\\\x00ff",NULL}'], Array),
    "uuid[]": Case(PSYCOPG, ["{00000000-0000-0000-0000-000000000001}"], Array),
    "box[]": Case("ARRAY(SELECT unnest(v)::text)", [], Array),
    "int4range[]": Case(PSYCOPG, ['{"[1,5)",empty,NULL,"(,)"}'], Array),
    "int4range": Case(PSYCOPG, ["[1,5)", "empty", "(,4)", "(,)", "[5,)"], Range),
    "int8range": Case(PSYCOPG, ["[1,5]"], Range),
    "numrange": Case(PSYCOPG, ["(1.5,)", "[1.0,1.0]", "empty", "(1,2]"], Range),
    "daterange": Case(PSYCOPG, ["empty"], Range),
    "tsrange": Case(PSYCOPG, ["empty", "(,)"], Range),
    "tstzrange": Case(PSYCOPG, ["empty"], Range),
    "int4multirange": Case(PSYCOPG, ["{}", "{(,)}", "{[1,3),[5,7)}"], tuple, since=14),
    "nummultirange": Case(PSYCOPG, ["{}", "{(,1.5],(2,)}"], tuple, since=14),
    "tsmultirange": Case(PSYCOPG, ['{["2000-01-01 00:00:00",)}'], tuple, since=14),
    "hstore": Case(PSYCOPG, ["", '"a"=>"1","b"=>NULL', '"\\"\\\\"=>""'], dict),
    "hstore[]": Case(PSYCOPG, ['{"\\"a\\"=>\\"1, 2\\"",NULL}'], Array),
    "mood": Case(TEXT, ["sad", 'O\'K, "fine"']),
    "mood[]": Case("v::text[]", ['{sad,"O\'K, \\"fine\\"",NULL}'], Array),
    "positive": Case(PSYCOPG, ["1", "2147483647"], int),
    "numbers": Case(PSYCOPG, ["{1,2}"], Array),
    "pair": Case("v", ["(7,q)", '(,"a ""b"" \\\\")', '(1,"")']),
}

_SETUP: Final = """
CREATE EXTENSION hstore;
CREATE TYPE mood AS ENUM ('sad', 'O''K, "fine"');
CREATE DOMAIN positive AS int4 CHECK (VALUE > 0);
CREATE DOMAIN numbers AS int4[];
CREATE TYPE pair AS (number int4, word text);
"""


@dataclass
class Captured:
    """What one stream brought: what the server said of types, and the columns by type."""

    described: list[pgrepl.Type] = field(default_factory=list)
    oids: dict[str, int] = field(default_factory=dict)
    columns: dict[str, list[str | bytes]] = field(default_factory=dict)


class Server:
    """A database with a table for each type, and what its streams brought."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.names = [n for n, case in CASES.items() if case.since <= database.cluster.major]
        if not _can_read_xml(database):
            self.names.remove("xml")
        self._captured: dict[str, Captured] = {}
        self._table_names = {f"t{i}": name for i, name in enumerate(self.names)}
        self._create()

    def _create(self) -> None:
        database = self.database
        database.execute(_SETUP)
        for table, name in self._table_names.items():
            database.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, v {name})")
        database.execute("CREATE PUBLICATION p FOR ALL TABLES")
        for number, _ in enumerate(STREAMS):
            slot = database.slot(str(number))
            database.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
        # One transaction, so that its commit is the end of each stream.
        with database.connect() as connection, connection.transaction():
            for table, name in self._table_names.items():
                values = [*CASES[name].edges, *random_values(name)]
                insert = f"INSERT INTO {table} VALUES (%s, %s::{name})"
                connection.cursor().executemany(insert.encode(), list(enumerate(values)))

    def captured(self, stream: str) -> Captured:
        if stream not in self._captured:
            self._captured[stream] = self._capture(stream)
        return self._captured[stream]

    def _capture(self, stream: str) -> Captured:
        captured = Captured()
        zone = "UTC" if stream == BINARY else stream
        options = ["proto_version '1'", "publication_names '\"p\"'"]
        options += ["binary 'true'"] * (stream == BINARY)
        slot = self.database.slot(str(STREAMS.index(stream)))
        decoder = pgrepl.Decoder(typed=False)
        dsn = self.database.dsn(options=f"-c timezone={zone}")
        with pgrepl.connect(dsn) as connection:
            connection.start_streaming(
                f'START_REPLICATION SLOT "{slot}" LOGICAL 0/0 ({", ".join(options)})'
            )
            while message := connection.receive_wal_message(timeout=60):
                if not isinstance(message, pgrepl.XLogData):
                    continue
                match decoder.feed(message):
                    case pgrepl.Type() as described:
                        captured.described.append(described)
                    case pgrepl.Relation(name=table, columns=(_, column)):
                        name = self._table_names[table]
                        captured.oids[name] = column.type_oid
                    case pgrepl.Insert(relation, new):
                        name = self._table_names[relation.name]
                        captured.columns.setdefault(name, []).append(new[1])
                    case pgrepl.Commit() if captured.columns:
                        return captured
        raise AssertionError("the stream ended before its transaction did")

    def select(self, name: str, expression: str, stream: str) -> list[Any]:
        """What psycopg loads for an expression over the values of a type; text where it cannot."""
        zone = "UTC" if stream == BINARY else stream
        table = next(t for t, n in self._table_names.items() if n == name)
        with self.database.connect(options=f"-c timezone={zone}") as connection:
            register_hstore(_found(TypeInfo.fetch(connection, "hstore")), connection)
            register_composite(_found(CompositeInfo.fetch(connection, "pair")), connection)
            cursor = connection.cursor(binary=stream == BINARY)
            query = f"SELECT {expression} FROM {table} "
            try:
                return [v for (v,) in cursor.execute(f"{query} ORDER BY id".encode())]
            except psycopg.DataError:
                pass
            texts = self.select(name, "v::text", stream)
            return [self._one(cursor, f"{query} WHERE id = {i}", t) for i, t in enumerate(texts)]

    def read(self, name: str, texts: list[str], stream: str) -> tuple[list[str], list[str]]:
        """What the server writes of texts that it has read as values, and of its own values."""
        zone = "UTC" if stream == BINARY else stream
        table = next(t for t, n in self._table_names.items() if n == name)
        with self.database.connect(options=f"-c timezone={zone}") as connection:
            query = f"SELECT texts.v::{name}::text, own.v::text FROM {table} own JOIN "
            query += "unnest(%s::text[]) WITH ORDINALITY texts (v, n) ON id = n - 1 ORDER BY id"
            pairs = connection.execute(query.encode(), [texts]).fetchall()
        return [again for again, _ in pairs], [own for _, own in pairs]

    @staticmethod
    def _one(cursor: psycopg.Cursor[Any], query: str, text: str) -> Any:
        try:
            [(value,)] = cursor.execute(query.encode()).fetchall()
        except psycopg.DataError:
            return text
        return value


def _can_read_xml(database: Database) -> bool:
    """Whether the server was built with libxml."""
    try:
        database.execute("SELECT '<a/>'::xml")
    except psycopg.errors.FeatureNotSupported:
        return False
    return True


def _found(info: Any) -> Any:
    assert info is not None
    return info


@pytest.fixture(scope="module")
def server(cluster: Cluster) -> Iterator[Server]:
    with cluster.new_database() as database:
        yield Server(database)


@pytest.fixture
def types(codec: ModuleType) -> Any:
    """The types of each twin, with what a user would say of the types in the tables."""
    name = f"{codec.__name__}.values"
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"this install has no {name}")
    return importlib.import_module(name).Types(PAIR_OVERRIDES)


def _as_ours(value: Any) -> Any:
    """A value of psycopg's as this package has it."""
    if isinstance(value, Multirange):
        return tuple(_as_ours(part) for part in value)
    if isinstance(value, PsycopgRange):
        return Range(empty=True) if value.isempty else Range(value.lower, value.upper, value.bounds)
    if isinstance(value, list):
        return [_as_ours(part) for part in value]
    if isinstance(value, tuple):
        return tuple(_as_ours(part) for part in value)
    return value


def _shown(value: Any) -> str:
    """All that makes up a value, as text: what `==` says of -0.0, 1.50 and NaN is not enough.

    A time is shown in UTC: psycopg gives it in the session's zone, from binary and text alike.
    """
    match value:
        case datetime() if (offset := value.utcoffset()) is not None:
            return f"{value.replace(tzinfo=None) - offset!r} UTC"
        case Range():
            bounds = f"{_shown(value.lower)}, {_shown(value.upper)}"
            return f"Range({bounds}, {value.bounds!r}, {value.empty})"
        case list() | tuple():
            return (
                f"{'list' if isinstance(value, list) else 'tuple'}({', '.join(map(_shown, value))})"
            )
        case _:
            return repr(value)


def _flat(value: Any) -> list[Any]:
    return [leaf for part in value for leaf in _flat(part)] if isinstance(value, list) else [value]


def _dimensions(array: Array) -> str | None:
    """What array_dims() says of it; None for an empty one."""
    sizes = []
    level: Any = array
    while isinstance(level, list) and level:
        sizes.append(len(level))
        level = level[0]
    assert len(sizes) == len(array.lower_bounds)
    return (
        "".join(
            f"[{low}:{low + size - 1}]" for low, size in zip(array.lower_bounds, sizes, strict=True)
        )
        or None
    )


def _decoded(captured: Captured, types: Any, name: str, stream: str) -> list[Any]:
    for described in captured.described:
        types.describe(described.oid, described.schema, described.name)
    found = types.lookup(captured.oids[name])
    column = captured.columns[name]
    if stream == BINARY:
        return [found.binary(v) if isinstance(v, bytes) else found.text(v.encode()) for v in column]
    texts = [value for value in column if isinstance(value, str)]
    assert texts == column
    return [found.text(text.encode()) for text in texts]


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("name", CASES)
def test_type(server: Server, types: Any, name: str, stream: str) -> None:
    case = CASES[name]
    if name not in server.names:
        pytest.skip(f"{server.database.cluster!r} has no type {name}")
    values = _decoded(server.captured(stream), types, name, stream)
    assert len(values) == len(case.edges) + len(list(random_values(name)))
    if case.value_class is not str or case.opinion == TEXT or stream != BINARY:
        assert all(isinstance(value, case.value_class) for value in values)
    is_text = case.value_class is str and case.opinion != PSYCOPG and stream != BINARY
    if case.opinion == TEXT or is_text:
        assert [str(value) for value in values] == server.select(name, "v::text", stream)
        return
    expression = "v" if case.opinion == PSYCOPG else case.opinion
    expected = [_as_ours(value) for value in server.select(name, expression, stream)]
    if case.value_class is Array:
        dimensions = server.select(
            name, "CASE WHEN cardinality(v) > 0 THEN array_dims(v) END", stream
        )
        assert [_dimensions(value) for value in values] == dimensions
        values, expected = [_flat(v) for v in values], [_flat(v) for v in expected]
    assert [_shown(value) for value in values] == [_shown(value) for value in expected]


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("name", ["date", "time", "timetz", "timestamp", "timestamptz"])
def test_a_time_is_written_as_it_came(server: Server, types: Any, name: str, stream: str) -> None:
    """Python's value says all of the server's text, the offset too: it gives the text again."""
    values = _decoded(server.captured(stream), types, name, stream)
    texts = server.select(name, "v::text", stream)
    assert any(isinstance(value, date | time) for value in values)
    assert any(isinstance(value, str) for value in values)
    assert [_server_text(value) for value in values] == texts


def _server_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    text = str(value)
    clock, sign, offset = text, "", ""
    if getattr(value, "tzinfo", None):
        cut = max(text.rfind("+"), text.rfind("-"))
        clock, sign, offset = text[:cut], text[cut], text[cut + 1 :].removesuffix(":00")
    if "." in clock:
        clock = clock.rstrip("0")
    return f"{clock}{sign}{offset}"


@pytest.mark.parametrize("stream", [ZONES[-1], BINARY])
def test_the_text_of_values_is_the_servers(server: Server, types: Any, stream: str) -> None:
    """What `str()` of an array or a range is made of, and of those themselves."""
    # Python writes some addresses otherwise, and has no float4; of money, binary has the cents;
    # a cast does not read a name as its type's input function does.
    others = {"inet", "float4"}
    unread = {"regclass", *(["money"] if stream == BINARY else [])}
    for name in server.names:
        values = _decoded(server.captured(stream), types, name, stream)
        texts = [text_of(value) for value in values]
        if stream != BINARY and name not in others:
            assert texts == server.captured(stream).columns[name], name
        if name not in unread:
            again, expected = server.read(name, texts, stream)
            assert again == expected, name
        for value, text in zip(values, texts, strict=True):
            if isinstance(value, Array | pgrepl.Multirange | Range):
                assert str(value) == text, name


@pytest.mark.parametrize("stream", [ZONES[-1], BINARY])
def test_json_loses_nothing(server: Server, types: Any, stream: str) -> None:
    """What is read back, numbers as doubles, is the same value to the server."""
    unread = {"regclass", *(["money"] if stream == BINARY else [])}
    for name in server.names:
        values = _decoded(server.captured(stream), types, name, stream)
        lines = [json_line(json_value(value)) for value in values]
        assert all(line.isprintable() for line in lines)
        read = [json.loads(line, parse_int=_as_double) for line in lines]
        if any(isinstance(each, list | dict) for each in read):
            assert read == [json_value(value) for value in values], name
        elif name not in unread:
            again, expected = server.read(name, list(map(text_of, read)), stream)
            assert again == expected, name


def _as_double(digits: str) -> int:
    return int(float(digits))


def test_the_catalog(server: Server, types: Any) -> None:
    """Names, OIDs and elements of all built-in types are those of the server."""
    rows = server.database.execute(
        "SELECT oid::int8, typname::text, typelem::int8, typdelim::text FROM pg_type"
        " WHERE oid < 10000 AND typnamespace = 'pg_catalog'::regnamespace"
    )
    known = {oid: types.lookup(oid).name for oid, *_ in rows if types.lookup(oid).name}
    assert len(known) > 100
    assert known == {oid: name for oid, name, *_ in rows if oid in known}
    # Every type of a column that the server can send has its array here as well.
    arrays = {elem for oid, name, elem, _ in rows if oid in known and name.startswith("_")}
    assert {oid for oid in known if not known[oid].startswith("_")} - arrays <= {705, 3642}
