"""Types that users made: what the catalogue says of them, and what it makes of their values.

A column of each type is streamed in text and in binary. What comes out is compared with what
psycopg loads for the same rows, once it was told of the types by its own queries of the catalogue.
"""

from __future__ import annotations

import enum
import importlib
import importlib.util
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final

import psycopg
import pytest
from psycopg.pq import Format
from psycopg.types import TypeInfo
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.hstore import register_hstore
from psycopg.types.multirange import Multirange as PsycopgMultirange
from psycopg.types.multirange import MultirangeInfo, register_multirange
from psycopg.types.range import Range as PsycopgRange
from psycopg.types.range import RangeInfo, register_range

import pgrepl
from pgrepl.protocol import catalogue
from pgrepl.typedefs import (
    ArrayType,
    BaseType,
    CompositeType,
    DomainType,
    EnumType,
    Field,
    MultirangeType,
    RangeType,
    TypeDefinition,
)
from pgrepl.values import Array, Multirange, Range, text_of
from tests.live.streams import PATIENCE, create_slot, receive_transactions, start_pgoutput
from tests.support.clusters import Cluster, Database
from tests.support.inside import wire_of

_SETUP: Final = """
CREATE EXTENSION hstore;
CREATE SCHEMA "o t";
CREATE TYPE mood AS ENUM ('sad', 'O''K, "fine"', 'é');
CREATE TYPE pair AS (number int4, word text, unused int4);
ALTER TYPE pair DROP ATTRIBUTE unused;
CREATE DOMAIN positive AS int4 CHECK (VALUE > 0);
CREATE DOMAIN small AS positive CHECK (VALUE < 100);
CREATE DOMAIN feeling AS mood;
CREATE DOMAIN feelings AS mood[];
CREATE DOMAIN couple AS pair;
CREATE TYPE "o t"."Nested one" AS (p pair, moods mood[], "class" small, "a b" hstore, m mood);
CREATE TYPE nothing AS ();
CREATE TYPE floats AS RANGE (subtype = float8);
CREATE TYPE pairs AS RANGE (subtype = pair);
CREATE TYPE words AS RANGE (subtype = text);
CREATE TABLE item (id int4 PRIMARY KEY, tags mood[], gone int4);
ALTER TABLE item DROP COLUMN gone;
CREATE TABLE unused (id int4 PRIMARY KEY);
CREATE TYPE shell;
CREATE VIEW looked AS SELECT 1 AS x, 'a'::text AS y;
"""

NESTED: Final = '"o t"."Nested one"'

#: The values of each type, as SQL.
VALUES: Final[dict[str, list[str]]] = {
    "mood": ["'sad'", "'O''K, \"fine\"'", "'é'"],
    "mood[]": ["ARRAY['sad', 'O''K, \"fine\"', NULL]::mood[]", "'{}'", "'[0:0]={é}'"],
    "feeling": ["'sad'"],
    "feeling[]": ["ARRAY['sad', 'é']::feeling[]"],
    "feelings": ["'{sad,NULL}'"],
    "feelings[]": ['\'{"{sad,é}","{}"}\''],
    "positive": ["7"],
    "small": ["7"],
    "small[]": ["'{7,NULL}'"],
    "pair": [
        "(7, 'q')",
        "(NULL, NULL)",
        "(NULL, '')",
        "(-1, 'a \"b\" \\ (c, d)')",
        "(0, e'\\n\\t \\u00e9')",
        "(1, 'NULL')",
        "(2, '{}')",
    ],
    "pair[]": ["ARRAY[(7, 'q'), NULL, (NULL, 'a \"b\"')]::pair[]"],
    "couple": ["(7, 'q')"],
    NESTED: [
        "((7, 'a \"b\"'), '{sad,NULL}', 9, 'k=>\"v w\",n=>NULL', 'é')",
        "(NULL, NULL, NULL, NULL, NULL)",
        "((NULL, NULL), '{}', 1, '', 'O''K, \"fine\"')",
    ],
    f"{NESTED}[]": [f"ARRAY[((7, 'a,b'), '{{é}}', 9, '', 'sad')]::{NESTED}[]"],
    "nothing": ["ROW()"],
    "floats": ["'[1.5,2)'", "'(,)'", "'empty'", "'[-Infinity,NaN]'", "'(,1e300]'"],
    "floats[]": ["ARRAY['[1.5,2)'::floats, 'empty']"],
    "words": [
        "words('a', 'b c')",
        "words('\"', '\\', '[]')",
        "words('', 'a,b)')",
        "words(NULL, '')",
    ],
    "pairs": ["pairs((1, 'a b')::pair, (2, NULL)::pair)", "pairs(NULL, (1, '')::pair)"],
    "floats_multirange": ["'{}'", "'{[1.5,2),[3,)}'"],
    "floats_multirange[]": ["ARRAY['{[1.5,2)}'::floats_multirange, '{}']"],
    "pairs_multirange": ["pairs_multirange(pairs((1, 'a')::pair, (2, 'b c')::pair))"],
    "item": ["(1, '{sad}')", "(NULL, NULL)"],
    "item[]": ["ARRAY[(1, '{sad,é}')]::item[]"],
    "looked": ["(1, 'a b')"],
    "hstore": ["'a=>1'"],
    "hstore[]": ["ARRAY['a=>1'::hstore, '']"],
}

FORMS: Final = ("text", "binary")


def definitions(connection: pgrepl.Connection) -> tuple[TypeDefinition, ...]:
    """What the catalogue says, over a replication connection."""
    wire = wire_of(connection)
    answer: tuple[TypeDefinition, ...] = wire.run(catalogue.read_types(wire.server), PATIENCE)
    return answer


class Server:
    """A database with a table for each type, and what its streams brought."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.names = [n for n in VALUES if "multirange" not in n or database.cluster.major >= 14]
        self._tables = {f"t{i}": name for i, name in enumerate(self.names)}
        database.execute(_SETUP)
        for table, name in self._tables.items():
            database.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, v {name})")
        database.execute("CREATE PUBLICATION p FOR ALL TABLES")
        slots = {form: create_slot(database, form) for form in FORMS}
        inserts = [
            f"INSERT INTO {table} VALUES ({number}, {value})"
            for table, name in self._tables.items()
            for number, value in enumerate(VALUES[name])
        ]
        database.execute(";".join(inserts))
        with pgrepl.connect(database.dsn(options="-c search_path=pg_temp")) as connection:
            self.definitions = definitions(connection)
        self.described: list[pgrepl.Type] = []
        self.oids: dict[str, int] = {}
        self.columns: dict[str, dict[str, list[str | bytes]]] = {}
        for form, slot in slots.items():
            self.columns[form] = self._capture(form, slot)

    def _capture(self, form: str, slot: str) -> dict[str, list[str | bytes]]:
        columns: dict[str, list[str | bytes]] = {}
        decoder = pgrepl.Decoder(typed=False)
        with pgrepl.connect(self.database.dsn()) as connection:
            start_pgoutput(connection, slot, **({"binary": "true"} if form == "binary" else {}))
            for data in receive_transactions(connection, 1):
                match decoder.feed(data):
                    case pgrepl.Type() as described:
                        self.described.append(described)
                    case pgrepl.Relation(name=table, columns=(_, column)):
                        self.oids[self._tables[table]] = column.type_oid
                    case pgrepl.Insert(relation, new):
                        columns.setdefault(self._tables[relation.name], []).append(new[1])
        return columns

    def expected(self, name: str, form: str) -> list[Any]:
        """What psycopg loads."""
        table = next(t for t, n in self._tables.items() if n == name)
        with self.database.connect() as connection:
            register_all(connection, self.database.cluster.major)
            cursor = connection.cursor(binary=form == "binary")
            query = f"SELECT v FROM {table} ORDER BY id"
            return [as_ours(value) for (value,) in cursor.execute(query.encode())]


def register_all(connection: psycopg.Connection[Any], major: int) -> None:
    """Tell psycopg of the types, parts before what is made of them."""

    def fetched(kind: type[TypeInfo], name: str) -> Any:
        info = kind.fetch(connection, name)
        assert info is not None, name
        return info

    register_hstore(fetched(TypeInfo, "hstore"), connection)
    register_enum(fetched(EnumInfo, "mood"), connection)
    moods = fetched(EnumInfo, "mood")
    for name, base in (("positive", 23), ("small", 23), ("feeling", moods.oid)):
        register_like(connection, fetched(TypeInfo, name), base)
    register_like(connection, fetched(TypeInfo, "feelings"), moods.array_oid)
    for name in ("pair", "nothing", NESTED, "item", "looked"):
        # Psycopg's own classes refuse fields whose names are keywords.
        register_composite(fetched(CompositeInfo, name), connection, lambda *fields: fields)
    for name in ("floats", "words", "pairs"):
        register_range(fetched(RangeInfo, name), connection)
    for name in ("floats_multirange", "pairs_multirange") if major >= 14 else ():
        register_multirange(fetched(MultirangeInfo, name), connection)


def register_like(connection: psycopg.Connection[Any], info: TypeInfo, base: int) -> None:
    """A domain: psycopg knows only its name, and that there are arrays of it."""
    info.register(connection)
    for form in (Format.TEXT, Format.BINARY):
        loader = connection.adapters.get_loader(base, form)
        assert loader is not None
        connection.adapters.register_loader(info.oid, loader)


def as_ours(value: Any) -> Any:
    """A value of psycopg's as this package has it."""
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, PsycopgMultirange):
        return tuple(as_ours(part) for part in value)
    if isinstance(value, PsycopgRange):
        if value.isempty:
            return Range(empty=True)
        return Range(as_ours(value.lower), as_ours(value.upper), value.bounds)
    if isinstance(value, list | tuple):
        return (
            type(value)(map(as_ours, value)) if type(value) is list else tuple(map(as_ours, value))
        )
    return value


def shown(value: Any) -> str:
    """All that makes up a value, as text: NaN and -0.0 too, and what is a list and what a tuple."""
    if isinstance(value, Range):
        return f"Range({shown(value.lower)}, {shown(value.upper)}, {value.bounds}, {value.empty})"
    if isinstance(value, list | tuple):
        return f"{'list' if isinstance(value, list) else 'tuple'}({', '.join(map(shown, value))})"
    return repr(value)


@pytest.fixture(scope="module")
def server(cluster: Cluster) -> Iterator[Server]:
    with cluster.new_database() as database:
        yield Server(database)


def types_of(codec: ModuleType) -> Any:
    name = f"{codec.__name__}.values"
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"this install has no {name}")
    return importlib.import_module(name).Types()


@pytest.fixture
def types(codec: ModuleType, server: Server) -> Any:
    """The types of each twin, told of the definitions, and of what the stream says itself."""
    made = types_of(codec)
    made.define(server.definitions)
    for described in server.described:
        made.describe(described.oid, described.schema, described.name)
    return made


def decoded(found: Any, column: list[str | bytes]) -> list[Any]:
    return [found.binary(v) if isinstance(v, bytes) else found.text(v.encode()) for v in column]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", VALUES)
def test_values(server: Server, types: Any, name: str, form: str) -> None:
    if name not in server.names:
        pytest.skip(f"{server.database.cluster!r} has no type {name}")
    column = server.columns[form][name]
    assert {type(value) for value in column} == {bytes if form == "binary" else str}
    values = decoded(types.lookup(server.oids[name]), column)
    assert len(values) == len(VALUES[name])
    assert list(map(shown, values)) == list(map(shown, server.expected(name, form)))


@pytest.mark.parametrize("form", FORMS)
def test_the_text_of_values_is_the_servers(server: Server, types: Any, form: str) -> None:
    for name in server.names:
        values = decoded(types.lookup(server.oids[name]), server.columns[form][name])
        assert [text_of(value) for value in values] == server.columns["text"][name], name
        for value in values:
            if isinstance(value, Array | Multirange | Range):
                assert str(value) == text_of(value)


@pytest.mark.parametrize("form", FORMS)
def test_fields_have_names(server: Server, types: Any, form: str) -> None:
    nested = decoded(types.lookup(server.oids[NESTED]), server.columns[form][NESTED])[0]
    assert type(nested).__name__ == "composite"
    assert nested._fields == ("p", "moods", "_2", "_3", "m")
    assert repr(nested.p) == "pair(number=7, word='a \"b\"')"
    item = decoded(types.lookup(server.oids["item"]), server.columns[form]["item"])[0]
    assert repr(item) == "item(id=1, tags=Array(['sad']))"


def test_names_are_those_of_sql(server: Server, codec: ModuleType) -> None:
    """Of types and tables: as SQL reads them, with the catalogue and without."""
    database = server.database
    words = [word for (word,) in database.execute("SELECT word FROM pg_get_keywords()")]
    names = [*words, "Item", "a b", 'q"', "größe", "a$b", "1x", "_x"]
    expected = database.execute("SELECT quote_ident(n) FROM unnest(%s::text[]) n", [names])
    # A word that a later version reserves is quoted for earlier ones too.
    unquoted = [name for name, (found,) in zip(names, expected, strict=True) if name == found]
    for name, (found,) in zip(names, expected, strict=True):
        full = pgrepl.Relation(1, "s", name, "d", ()).full_name
        assert full == f"s.{found}" or (name in unquoted and full == f's."{name}"')
    types = types_of(codec)
    types.define(server.definitions)
    for name in server.names:
        oid = server.oids[name]
        [(same,)] = database.execute(f"SELECT %s::oid = '{types.name_of(oid)}'::regtype", [oid])
        assert same, name
    assert types.name_of(server.oids[f"{NESTED}[]"]) == f"{NESTED}[]"
    for oid, name in ((20, "int8"), (1009, "text[]"), (18, '"char"'), (1002, '"char"[]')):
        assert types.name_of(oid) == name
    assert types.name_of(1) is None
    bare = types_of(codec)
    for described in server.described:
        bare.describe(described.oid, described.schema, described.name)
    of = server.oids
    assert [bare.name_of(of[name]) for name in ("mood", "mood[]", "small", "item")] == [
        "public.mood",
        "public._mood",
        "int4",
        "public.item",
    ]


def by_name(found: tuple[TypeDefinition, ...]) -> dict[str, TypeDefinition]:
    return {each.name: each for each in found if each.schema in ("public", "o t")}


def test_the_definitions(server: Server) -> None:
    names = by_name(server.definitions)
    assert len(server.definitions) == len({each.oid for each in server.definitions})
    assert not {"shell", "unused", "_unused", *server._tables} & names.keys()
    assert {"item", "_item", "looked", "_looked"} < names.keys()
    with server.database.connect() as connection:
        mood = EnumInfo.fetch(connection, "mood")
        nested = CompositeInfo.fetch(connection, NESTED)
        floats = RangeInfo.fetch(connection, "floats")
        hstore = TypeInfo.fetch(connection, "hstore")
    assert mood and nested and floats and hstore
    mood_oid, array_oid = mood.oid, mood.array_oid
    assert names["mood"] == EnumType(mood_oid, "public", "mood", tuple(mood.labels))
    assert names["_mood"] == ArrayType(array_oid, "public", "_mood", mood_oid, ",")
    fields = tuple(map(Field, nested.field_names, nested.field_types))
    assert names["Nested one"] == CompositeType(nested.oid, "o t", "Nested one", fields)
    assert names["floats"] == RangeType(floats.oid, "public", "floats", 701)
    assert names["hstore"] == BaseType(hstore.oid, "public", "hstore")
    assert names["nothing"] == CompositeType(names["nothing"].oid, "public", "nothing", ())
    positive, small = names["positive"], names["small"]
    assert positive == DomainType(positive.oid, "public", "positive", 23)
    assert small == DomainType(small.oid, "public", "small", positive.oid)
    if server.database.cluster.major >= 14:
        spans = names["floats_multirange"]
        assert spans == MultirangeType(spans.oid, "public", "floats_multirange", floats.oid)


def test_what_the_stream_says_agrees(server: Server, types: Any) -> None:
    """No definition is set aside for it."""
    told = {each.oid: each.name for each in server.definitions}
    described = {each.oid for each in server.described}
    assert len(described) > 20
    assert {oid: types.lookup(oid).name for oid in described} == {
        oid: told[oid] for oid in described
    }


def test_what_a_server_without_multiranges_is_asked(server: Server) -> None:
    """It tells the same of all other types."""
    with pgrepl.connect(server.database.dsn()) as connection:
        wire_of(connection).server.parameters["server_version"] = "13.9"
        found = definitions(connection)
    assert found == tuple(d for d in server.definitions if not isinstance(d, MultirangeType))


def test_nothing_in_the_search_path_counts(server: Server) -> None:
    """Not even an operator for the very types of the catalogue, or a table of the same name."""
    server.database.execute("""
        CREATE SCHEMA evil;
        CREATE FUNCTION evil.no(oid, oid) RETURNS bool LANGUAGE sql AS 'SELECT false';
        CREATE FUNCTION evil.no(name, name) RETURNS bool LANGUAGE sql AS 'SELECT false';
        CREATE OPERATOR evil.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.no);
        CREATE OPERATOR evil.>= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.no);
        CREATE OPERATOR evil.<> (LEFTARG = name, RIGHTARG = name, FUNCTION = evil.no);
        CREATE VIEW evil.pg_type AS SELECT 1 AS oid;
    """)
    with pgrepl.connect(
        server.database.dsn(options="-c search_path=evil,public,pg_catalog")
    ) as connection:
        [result] = connection.query("SELECT count(*) FROM pg_class WHERE oid = oid")
        assert result.rows == [("0",)]
        assert definitions(connection) == server.definitions


@pytest.mark.parametrize(
    ("extension", "name", "value"),
    [
        ("citext", "citext", "A b"),
        ("citext", "citext[]", '{"A b",NULL}'),
        ("ltree", "ltree", "Top.A_b"),
        ("ltree", "ltree[]", "{a.b,NULL}"),
        ("ltree", "lquery", "a.*{1,2}.b|c@"),
        ("ltree", "ltxtquery", "a & b*@"),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_extensions(
    database: Database, codec: ModuleType, form: str, extension: str, name: str, value: str
) -> None:
    """Types that are known by their names are what the server's text is, in both forms."""
    if not database.execute("SELECT 1 FROM pg_available_extensions WHERE name = %s", [extension]):
        pytest.skip(f"{database.cluster!r} has no extension {extension}")
    database.execute(f"CREATE EXTENSION {extension}; CREATE TABLE t (v {name})")
    database.execute("CREATE PUBLICATION p FOR ALL TABLES")
    slot = create_slot(database)
    database.execute(f"INSERT INTO t VALUES ('{value}')")
    types = types_of(codec)
    decoder = pgrepl.Decoder(typed=False)
    with pgrepl.connect(database.dsn()) as connection:
        types.define(definitions(connection))
        start_pgoutput(connection, slot, **({"binary": "true"} if form == "binary" else {}))
        changes = [decoder.feed(data) for data in receive_transactions(connection, 1)]
    [insert] = [change for change in changes if isinstance(change, pgrepl.Insert)]
    assert type(insert.new[0]) is (bytes if form == "binary" else str)
    [got] = decoded(types.lookup(insert.relation.columns[0].type_oid), [insert.new[0]])
    element = "v::text[]" if name.endswith("[]") else "v::text"
    [(text,)] = database.execute(f"SELECT {element} FROM t")
    assert got == text
