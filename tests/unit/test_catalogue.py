"""What is asked of the catalogue, and what its answer may be."""

from __future__ import annotations

import re

import pytest

from pgrepl.errors import ServerError
from pgrepl.protocol import catalogue
from pgrepl.protocol.backend import ServerState
from pgrepl.typedefs import (
    ArrayType,
    BaseType,
    CompositeType,
    DomainType,
    EnumType,
    Field,
    MultirangeType,
    RangeType,
)
from tests.support import builders
from tests.support.dialogue import Dialogue, refused

COLUMNS = (
    *("oid", "nspname", "typname", "typtype", "oid", "typdelim", "typbasetype", "rngsubtype"),
    *("rngtypid", "attname", "atttypid", "attisdropped", "enumlabel"),
)

Row = tuple[str | None, ...]


def asked(version: str = "18.0") -> Dialogue:
    state = ServerState()
    state.parameters["server_version"] = version
    return Dialogue(catalogue.read_types(state))


def row(
    oid: str | None,
    kind: str | None,
    *,
    name: str | None = "x",
    element: tuple[str | None, str | None] = (None, None),
    base: str | None = "0",
    subtype: str | None = None,
    ranges: str | None = None,
    field: tuple[str | None, str | None] = (None, None),
    dropped: str | None = None,
    label: str | None = None,
) -> Row:
    if field[0] is not None:
        dropped = dropped or "f"
    return (oid, "s", name, kind, *element, base, subtype, ranges, *field, dropped, label)


def answer(*rows: Row, columns: tuple[str, ...] = COLUMNS) -> list[bytes]:
    return [
        builders.row_description(*columns),
        *(builders.data_row(*each) for each in rows),
        builders.command_complete(f"SELECT {len(rows)}"),
        builders.ready_for_query(),
    ]


def test_each_kind_of_type() -> None:
    dialogue = asked().receive(
        *answer(
            row("16400", "b"),
            row("16401", "b", element=("16400", ":")),
            row("16402", "c", field=("a", "23")),
            row("16402", "c", field=("b", "4294967295")),
            row("16403", "c"),
            row("16404", "d", base="1007"),
            row("16405", "e", label="sad"),
            row("16405", "e", label="O'K"),
            row("16406", "e"),
            row("16407", "m", ranges="16408"),
            row("16408", "r", subtype="701"),
            row("16409", "?"),  # of a server to come
            row("16412", "m"),  # of one that does not say its version
            row("16410", "c", field=("a", "23")),
            row("16411", "c", field=("a", "23")),
        )
    )
    assert dialogue.result == (
        BaseType(16400, "s", "x"),
        ArrayType(16401, "s", "x", 16400, ":"),
        CompositeType(16402, "s", "x", (Field("a", 23), Field("b", 2**32 - 1))),
        CompositeType(16403, "s", "x", ()),
        DomainType(16404, "s", "x", 1007),
        EnumType(16405, "s", "x", ("sad", "O'K")),
        EnumType(16406, "s", "x", ()),
        MultirangeType(16407, "s", "x", 16408),
        RangeType(16408, "s", "x", 701),
        CompositeType(16410, "s", "x", (Field("a", 23),)),
        CompositeType(16411, "s", "x", (Field("a", 23),)),
    )


@pytest.mark.parametrize(
    ("fields", "names", "has_gaps"),
    [
        ("ab", "ab", False),
        ("aB", "a", False),
        ("aBC", "a", False),
        ("AB", "", False),
        ("aBc", "ac", True),
        ("Abc", "bc", True),
        ("aBcD", "ac", True),
    ],
)
def test_a_composite_of_which_a_field_was_dropped(fields: str, names: str, has_gaps: bool) -> None:
    """In upper case: one that was dropped, of which the catalogue keeps the place alone."""
    rows = [
        row("1", "c", field=("....", "0"), dropped="t")
        if field.isupper()
        else row("1", "c", field=(field, "23"))
        for field in fields
    ]
    [found] = asked().receive(*answer(*rows)).result
    assert found == CompositeType(1, "s", "x", tuple(Field(n, 23) for n in names), has_gaps)


def test_a_database_without_such_types() -> None:
    assert asked().receive(*answer()).result == ()


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        (answer(columns=COLUMNS[:-1]), "expected one result of 13 columns"),
        ([builders.command_complete("SET"), builders.ready_for_query()], "got 1 results of [0]"),
        ([*answer()[:-1], *answer()], "got 2 results of [13, 13] columns"),
        ([builders.ready_for_query()], "got 0 results of [] columns"),
        (answer(row(None, "b")), "expected text in the catalogue's answer, got NULL"),
        (answer(row("1", "b", name=None)), "got NULL"),
        (answer(row("1", None)), "got NULL"),
        (answer(row("1", "b", element=("2", None))), "got NULL"),
        (answer(row("1", "d", base=None)), "got NULL"),
        (answer(row("1", "r")), "got NULL"),
        (answer(row("1", "c", field=("a", None))), "got NULL"),
        (answer(row("1", "c", field=("a", "2")), row("1", "c")), "got NULL"),
        (answer(row("", "b")), "expected an OID in the catalogue's answer, got ''"),
        (answer(row("-1", "b")), "expected an OID in the catalogue's answer, got '-1'"),
        (answer(row("4294967296", "b")), "expected an OID in the catalogue's answer"),
        (answer(row("9" * 5000, "b")), "expected an OID in the catalogue's answer, got '99"),
        (answer(row("\u0661", "b")), "expected an OID in the catalogue's answer"),
        (answer(row("1", "d", base="x")), "expected an OID in the catalogue's answer, got 'x'"),
        (answer(row("1", "b"), row("2", "b"), row("1", "b")), "one type for each OID"),
        (answer(row("1", "b"), row("1", "e")), "one type for each OID"),
        (answer(row("1", "b"), row("01", "b")), "one type for each OID"),
        (
            answer(*(row("1", "c", name="n" * 999, field=("f", "23")) for _ in range(1601))),
            "expected at most 1600 fields of the type",
        ),
    ],
)
def test_answers_that_make_no_sense(messages: list[bytes], words: str) -> None:
    said = refused(asked(), *messages)
    assert words in said
    assert len(said) < 300


def test_a_server_that_refuses() -> None:
    error = builders.error_response("no database", sqlstate="0A000")
    said = refused(asked(), error, builders.ready_for_query(), kind=ServerError)
    assert "no database" in said


def test_multiranges_are_asked_for_where_there_are_any() -> None:
    for version, has_multiranges in (("18.0", True), ("14.0", True), ("13.9", False), ("", False)):
        sent = asked(version).sent
        assert len(sent) == 1
        assert (b"rngmultitypid" in sent[0]) is has_multiranges
        assert sent[0].count(b";") == 0


@pytest.mark.parametrize("version", ["18.0", "13.9"])
def test_nothing_in_the_search_path_can_stand_for_anything(version: str) -> None:
    """No table and no operator without its schema, and no function or cast at all."""
    query = asked(version).sent[0][5:-1].decode()
    for name in re.findall(r"(?:FROM|JOIN)\s+([\w.]+)", query):
        assert name == "used" or name.startswith("pg_catalog.")
    plain = re.sub(r"OPERATOR\(pg_catalog\.(=|<>|>|>=)\)|'[^']*'", " ", query)
    assert not re.search(r"[=<>!+*/|&~^%:\"#-]", plain)
    assert set(re.findall(r"(\w+)\s*\(", plain)) <= {"AS", "ANY", "WHERE", "AND"}
    assert not re.search(r"\b(IN|LIKE|BETWEEN|NULLIF|USING|DISTINCT)\b", plain)
