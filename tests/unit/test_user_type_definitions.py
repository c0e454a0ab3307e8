"""Definitions and descriptions of users' types: which of them count, and what they may not do."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable
from datetime import date
from types import ModuleType
from typing import Any

import pytest

from pgrepl.codec.overrides import unanswered
from pgrepl.messages import Column, Relation
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
from pgrepl.values import Range
from tests.support.pgoutput_encoder import encode
from tests.unit import test_user_types
from tests.unit.test_user_types import (
    BINARY_SAMPLES,
    DEFINITIONS,
    MOOD,
    MOODS,
    NESTED,
    NOBODY,
    NUMBERS,
    PAIR,
    PAIRS,
    POSITIVE,
    PRICE,
    SPAN,
    SPANS,
    array,
    record,
    sized,
)

make_types = test_user_types.make_types
types = test_user_types.types


def test_a_description_that_agrees_changes_nothing(types: Any) -> None:
    for oid, schema, name in (
        (MOOD, "public", "mood"),
        (MOODS, "public", "_mood"),
        (PRICE, "pg_catalog", "numeric"),  # of a domain the server says what it is over
        (NUMBERS, "pg_catalog", "_int4"),
        (PAIR, "public", "pair"),
    ):
        types.describe(oid, schema, name)
    for oid, data, value in BINARY_SAMPLES:
        assert types.lookup(oid).binary(data) == value
    assert type(types.lookup(PAIR).text(b"(7,q)")).__name__ == "pair"
    assert types.lookup(PRICE).name == "price"


def test_a_description_by_another_name_sets_the_definition_aside(types: Any) -> None:
    types.describe(MOOD, "public", "other")
    assert types.lookup(MOOD).name == "other"
    assert types.lookup(MOOD).binary(b"sad") == b"sad"
    assert types.lookup(MOODS).binary(array(MOOD, b"sad")) == [b"sad"]
    types.describe(PAIR, "elsewhere", "pair")
    assert types.lookup(PAIR).text(b"(7,q)") == "(7,q)"
    assert types.lookup(NESTED).text(b'("(7,q)",,)') == ("(7,q)", None, None)
    types.describe(PRICE, "pg_catalog", "int4")
    assert types.lookup(PRICE).text(b"5") == 5
    types.describe(POSITIVE, "public", "hstore")
    assert types.lookup(POSITIVE).text(b'"a"=>"1"') == {"a": "1"}
    types.describe(PAIR, "public", "pair")
    assert types.lookup(PAIR).text(b"(7,q)") == (7, "q")


def test_a_domain_over_a_users_type(make_types: Callable[..., Any]) -> None:
    types = make_types(*DEFINITIONS, DomainType(NOBODY, "public", "feeling", MOOD))
    types.describe(NOBODY, "public", "mood")
    assert types.lookup(NOBODY).name == "feeling"
    assert types.lookup(NOBODY).binary(b"sad") == "sad"
    types.describe(NOBODY, "public", "feeling")
    assert types.lookup(NOBODY).name == "feeling"
    assert types.lookup(NOBODY).binary(b"sad") == b"sad"


def test_later_definitions_replace_earlier_ones(types: Any) -> None:
    assert types.lookup(PAIRS).text(b'{"(7,q)"}') == [(7, "q")]
    types.define([CompositeType(PAIR, "public", "pair", (Field("at", 1082), Field("q", 25)))])
    assert types.lookup(PAIRS).text(b'{"(2000-01-01,q)"}') == [(date(2000, 1, 1), "q")]
    assert types.lookup(PAIRS).text(b'{"(2000-01-01,q)"}')[0].q == "q"


def test_definitions_of_postgresqls_own_types_change_nothing(
    make_types: Callable[..., Any],
) -> None:
    types = make_types(EnumType(23, "public", "mood"), DomainType(1007, "public", "d", 25))
    assert types.lookup(23).text(b"7") == 7
    assert types.lookup(1007).text(b"{7}") == [7]


def test_what_is_no_definition(types: Any) -> None:
    with pytest.raises(TypeError, match="^expected definitions of types, got str"):
        types.define([EnumType(NOBODY, "public", "mood"), "mood"])
    assert types.lookup(NOBODY).binary(b"sad") == "sad"


def test_parts_that_nobody_knows(make_types: Callable[..., Any]) -> None:
    types = make_types(
        ArrayType(MOODS, "public", "_x", NOBODY),
        RangeType(SPAN, "public", "s", NOBODY),
        MultirangeType(SPANS, "public", "ss", NOBODY),
        DomainType(PRICE, "public", "d", NOBODY),
        CompositeType(PAIR, "public", "p", (Field("x", NOBODY),)),
    )
    assert types.lookup(MOODS).text(b"{a}") == ["a"]
    assert types.lookup(MOODS).binary(array(NOBODY, b"a")) == [b"a"]
    assert types.lookup(SPAN).text(b"[a,b)") == Range("a", "b")
    assert types.lookup(SPANS).text(b"{[a,b)}") == ("[a,b)",)
    assert types.lookup(PRICE).binary(b"a") == b"a"
    assert types.lookup(PAIR).text(b"(a)") == ("a",)
    assert types.lookup(PAIR).binary(record((NOBODY, b"a"))) == (b"a",)


@pytest.mark.parametrize("delimiter", ["{", '"', "\\", " ", "é", "", "ab", "a"])
def test_delimiters_that_cannot_be_told_from_elements(
    make_types: Callable[..., Any], delimiter: str
) -> None:
    arrays = make_types(ArrayType(MOODS, "public", "_x", 25, delimiter)).lookup(MOODS)
    assert arrays.text(b"{a,b}") == "{a,b}"
    assert arrays.binary(array(25, b"a")) == ["a"]


def test_every_other_delimiter(make_types: Callable[..., Any]) -> None:
    for delimiter in "!#$%&'()*+,-./:;<=>?@[]^_`|~":
        arrays = make_types(ArrayType(MOODS, "public", "_x", 25, delimiter)).lookup(MOODS)
        assert arrays.text(f"{{a{delimiter}b}}".encode()) == ["a", "b"]
        quoted = f'{{{{"a{delimiter}"{delimiter}NULL}}}}'
        assert arrays.text(quoted.encode()) == [[f"a{delimiter}", None]]


def test_extensions_that_are_known_by_name(types: Any) -> None:
    for oid, name in enumerate(("citext", "ltree", "lquery", "ltxtquery", "geometry"), 17000):
        types.describe(oid, "public", name)
    assert types.lookup(17000).text(b"Ab") == "Ab"
    assert types.lookup(17000).binary(b"Ab") == "Ab"
    for oid in (17001, 17002, 17003):
        assert types.lookup(oid).binary(b"\1a.b") == "a.b"
        with pytest.raises(ValueError, match="^expected version 1 of a binary l"):
            types.lookup(oid).binary(b"\2a.b")
    assert types.lookup(17004).binary(b"\1a") == b"\1a"


CIRCLES: list[list[TypeDefinition]] = [
    [DomainType(MOOD, "public", "a", MOOD)],
    [DomainType(MOOD, "public", "a", PAIR), DomainType(PAIR, "public", "b", MOOD)],
    [ArrayType(MOOD, "public", "_a", MOOD)],
    [ArrayType(MOOD, "public", "_a", PAIR), DomainType(PAIR, "public", "a", MOOD)],
    [RangeType(MOOD, "public", "a", MOOD)],
    [RangeType(MOOD, "public", "a", PAIR), ArrayType(PAIR, "public", "_a", MOOD)],
    [MultirangeType(MOOD, "public", "a", MOOD)],
    [CompositeType(MOOD, "public", "a", (Field("a", MOOD), Field("b", MOOD)))],
    [CompositeType(MOOD, "public", "a", (Field("a", MOODS),)), ArrayType(MOODS, "p", "m", MOOD)],
    [DomainType(16400 + i, "public", f"d{i}", 16401 + i) for i in range(5000)],
]


@pytest.mark.parametrize("definitions", CIRCLES)
def test_definitions_that_never_end(
    make_types: Callable[..., Any], definitions: list[TypeDefinition]
) -> None:
    types = make_types(*definitions)
    found = types.lookup(MOOD)
    for text in (b"", b"{}", b"{{}}", b"()", b"(,)", b"[a,b)", b"{[a,b)}", b'("()",)', b"a"):
        assert found.text(text) is not None
    endless = b"\1"
    for _ in range(2000):
        endless = b"\x10" + sized(endless)
    with contextlib.suppress(ValueError):
        assert found.binary(endless) is not None
    for name in ("a", "b", "_a", "m"):
        types.describe(MOOD, "public", name)
        assert types.lookup(MOOD).text(b"{a}") is not None


def test_descriptions_and_definitions_that_never_end(make_types: Callable[..., Any]) -> None:
    types = make_types(
        DomainType(MOOD, "public", "a", MOODS), RangeType(PAIR, "public", "b", PAIRS)
    )
    types.describe(MOODS, "public", "_a")  # the array of the domain over it, says the server
    types.describe(PAIRS, "public", "_b")
    assert types.lookup(MOODS).text(b"{a}") is not None
    assert types.lookup(PAIR).text(b"[{a},)") is not None


def test_types_looked_up_before_keep_decoding_as_they_did(types: Any) -> None:
    """A row may be looked at long after it came."""
    found = [types.lookup(oid) for oid, *_ in BINARY_SAMPLES[:7]]
    types.describe(MOOD, "public", "other")
    types.describe(PAIR, "public", "other")
    types.define([BaseType(MOODS, "public", "_mood"), DomainType(POSITIVE, "p", "positive", 25)])
    for before, (_, data, value) in zip(found, BINARY_SAMPLES, strict=False):
        assert before.binary(data) == value
    assert types.lookup(MOOD).binary(b"sad") == b"sad"


def test_a_part_of_many_is_made_once(make_types: Callable[..., Any]) -> None:
    """Each level has the next one in it twice: what is 31 deep would be made 2 ** 31 times."""
    levels = [
        CompositeType(16400 + i, "public", f"c{i}", (Field("a", 16401 + i), Field("b", 16401 + i)))
        for i in range(31)
    ]
    types = make_types(*levels)
    assert types.lookup(16400).text(b'("(,)",)') == ((None, None), None)


def test_rules_that_no_type_answers_to() -> None:
    known: list[str | int] = [
        "jsonb",
        "_int4",
        "pg_catalog.int8",
        20,
        "mood",
        "public.mood",
        MOOD,
        "_mood",
    ]
    assert unanswered(known, DEFINITIONS) == {}
    found = unanswered([*known, "jsonbb", "publik.mood", NOBODY, "?", "other.jsonb"], DEFINITIONS)
    assert list(found) == ["jsonbb", "publik.mood", NOBODY, "?", "other.jsonb"]
    assert found["jsonbb"][0] == "jsonb"
    assert found["publik.mood"][0] == "public.mood"
    assert found[NOBODY] == found["?"] == []


def test_columns_know_the_names_of_their_types(codec: ModuleType) -> None:
    decoder = codec.Decoder()
    decoder.define(DEFINITIONS)
    columns = tuple(
        Column(f"c{oid}", oid, -1, False) for oid in (20, 1007, MOOD, MOODS, NOBODY, PRICE)
    )
    relation = decoder.feed(encode(Relation(1, "s", "t", "d", columns)))
    assert relation.columns == columns
    assert [column.type_name for column in relation.columns] == [
        *("int8", "int4[]", "public.mood", "public.mood[]", None, "public.price"),
    ]
    again = pickle.loads(pickle.dumps(relation))
    assert [c.type_name for c in again.columns] == [c.type_name for c in relation.columns]
    # Definitions can say anything.
    endless = codec.Decoder()
    endless.define([ArrayType(1, "s", "a", 2), ArrayType(2, "s", "b", 1)])
    relation = endless.feed(encode(Relation(1, "s", "t", "d", (Column("c", 1, -1, False),))))
    assert relation.columns[0].type_name == "s.b[]"
