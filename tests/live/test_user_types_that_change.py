"""Users' types that are altered, replaced and named while a stream is on."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

import pgrepl
from tests.live.streams import Connect, create_slot, receive_transactions, start_pgoutput
from tests.live.test_user_types import FORMS, decoded, definitions, types_of
from tests.support.clusters import Database


def test_types_that_change(database: Database, codec: ModuleType) -> None:
    """A definition is of one moment, the stream of another."""
    database.execute("""
        CREATE TYPE pair AS (number int4, word text);
        CREATE TYPE mood AS ENUM ('sad');
        CREATE TABLE t (id int PRIMARY KEY, p pair, m mood, gone int);
        CREATE PUBLICATION p FOR ALL TABLES;
    """)
    slots = {form: create_slot(database, form) for form in FORMS}
    with pgrepl.connect(database.dsn()) as connection:
        found = definitions(connection)
    database.execute("INSERT INTO t VALUES (1, (7, 'q'), 'sad', 0)")
    database.execute("""
        ALTER TYPE pair ADD ATTRIBUTE more bool;
        ALTER TYPE mood RENAME TO feeling;
        ALTER TABLE t DROP COLUMN gone; -- so that the server describes the types again
        INSERT INTO t VALUES (2, (8, 'r', true), 'sad')
    """)
    seen: dict[str, list[list[Any]]] = {}
    for form, slot in slots.items():
        types = types_of(codec)
        types.define(found)
        decoder = pgrepl.Decoder(typed=False)
        with pgrepl.connect(database.dsn()) as connection:
            start_pgoutput(connection, slot, **({"binary": "true"} if form == "binary" else {}))
            for data in receive_transactions(connection, 2):
                match decoder.feed(data):
                    case pgrepl.Type(oid, schema, name):
                        types.describe(oid, schema, name)
                    case pgrepl.Insert(relation, new):
                        seen.setdefault(form, []).append(
                            [
                                decoded(types.lookup(column.type_oid), [new[position]])[0]
                                for position, column in enumerate(relation.columns[:3])
                            ]
                        )
    assert seen == {
        "text": [[1, (7, "q"), "sad"], [2, "(8,r,t)", "sad"]],
        "binary": [[1, (7, "q"), "sad"], [2, (8, "r", True), b"sad"]],
    }
    assert [type(row[1]).__name__ for form in FORMS for row in seen[form]] == [
        *("pair", "str"),
        *("pair", "tuple"),
    ]


def test_composites_whose_fields_were_replaced(database: Database, codec: ModuleType) -> None:
    """No field has another's name: what the catalogue cannot promise any more is not named."""
    database.execute("""
        CREATE TYPE pair AS (number int4, word text);
        CREATE TYPE kept AS (number int4, word text);
        CREATE TABLE t (id int PRIMARY KEY, p pair, many pair[], k kept);
        CREATE PUBLICATION p FOR ALL TABLES;
    """)
    slots = {form: create_slot(database, form) for form in FORMS}
    row = "(7, 'q')::pair, ARRAY[(7, 'q')::pair], (7, 'q')"
    database.execute(f"INSERT INTO t VALUES (1, {row})")
    database.execute("""
        ALTER TYPE pair DROP ATTRIBUTE word;
        ALTER TYPE pair ADD ATTRIBUTE other text;
        ALTER TYPE kept ADD ATTRIBUTE other text;
        ALTER TYPE kept DROP ATTRIBUTE other;
    """)
    database.execute(f"INSERT INTO t VALUES (2, {row})")
    seen: dict[str, list[Any]] = {}
    for form, slot in slots.items():
        decoder = codec.Decoder()
        with pgrepl.connect(database.dsn()) as connection:
            decoder.define(definitions(connection))
            start_pgoutput(connection, slot, **({"binary": "true"} if form == "binary" else {}))
            messages = [decoder.feed(data) for data in receive_transactions(connection, 2)]
        seen[form] = [m.new.astuple() for m in messages if isinstance(m, pgrepl.Insert)]
    assert seen == {
        "text": [(n, "(7,q)", ["(7,q)"], (7, "q")) for n in (1, 2)],
        "binary": [(n, (7, "q"), [(7, "q")], (7, "q")) for n in (1, 2)],
    }
    for values in (*seen["text"], *seen["binary"]):
        assert not hasattr(values[1], "_fields")
        assert values[3]._fields == ("number", "word")


def test_a_rule_that_no_type_answers_to(database: Database, connect: Connect) -> None:
    """Is warned of as a stream begins."""
    database.execute("CREATE TYPE mood AS ENUM ('sad'); CREATE PUBLICATION p FOR ALL TABLES")
    slot = create_slot(database)
    rules: dict[int | str, Any] = {"mood": str, "public.mood": str, "mod": str}
    with (
        connect(database.dsn()) as connection,
        pytest.warns(pgrepl.UnknownTypeWarning, match="'mod'; did you mean 'mood'") as caught,
        connection.stream(slot, publications=["p"], types=rules),
    ):
        pass
    assert len(caught) == 1
