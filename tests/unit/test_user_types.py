"""Types that users made, on both twins: what becomes of their values once they are defined."""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.util
import json
import pickle
import struct
from collections.abc import Callable
from datetime import date
from decimal import Decimal
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
from pgrepl.values import Array, Range
from tests.support.pgoutput_encoder import encode

MOOD, PAIR, SPAN, SPANS, POSITIVE, NESTED, PRICE = range(16400, 16407)
MOODS, PAIRS, NUMBERS, BOXES, LTREE, NOBODY = range(16500, 16506)

DEFINITIONS: list[TypeDefinition] = [
    # The parts come after what is made of them.
    CompositeType(
        NESTED, "public", "nested", (Field("pair", PAIR), Field("moods", MOODS), Field("class", 23))
    ),
    ArrayType(MOODS, "public", "_mood", MOOD),
    ArrayType(PAIRS, "public", "_pair", PAIR),
    ArrayType(BOXES, "public", "_box", 25, ":"),
    EnumType(MOOD, "public", "mood", ("sad", "O'K")),
    CompositeType(PAIR, "public", "pair", (Field("number", 23), Field("word", 25))),
    RangeType(SPAN, "public", "span", PRICE),
    MultirangeType(SPANS, "public", "spans", SPAN),
    DomainType(PRICE, "public", "price", POSITIVE),
    DomainType(POSITIVE, "public", "positive", 1700),
    DomainType(NUMBERS, "public", "numbers", 1007),
    BaseType(LTREE, "public", "ltree"),
]


@pytest.fixture
def make_types(codec: ModuleType) -> Callable[..., Any]:
    """Makes the `Types` of each twin, with definitions."""
    name = f"{codec.__name__}.values"
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"this install has no {name}")

    def make(*definitions: TypeDefinition, overrides: Any = None, typed: bool = True) -> Any:
        types = importlib.import_module(name).Types(overrides, typed)
        types.define(definitions or DEFINITIONS)
        return types

    return make


@pytest.fixture
def types(make_types: Callable[..., Any]) -> Any:
    return make_types()


def sized(data: bytes | None) -> bytes:
    """A value as it stands inside of a container."""
    return struct.pack(">i", -1) if data is None else struct.pack(">i", len(data)) + data


def record(*fields: tuple[int, bytes | None]) -> bytes:
    """A composite in binary."""
    return struct.pack(">i", len(fields)) + b"".join(
        struct.pack(">I", oid) + sized(data) for oid, data in fields
    )


def array(oid: int, *elements: bytes | None) -> bytes:
    """An array of one dimension in binary."""
    return struct.pack(">iiIii", 1, 0, oid, len(elements), 1) + b"".join(map(sized, elements))


def number(value: int) -> bytes:
    return struct.pack(">i", value)


NUMERIC_1_5 = bytes.fromhex("0002 0000 0000 0001 0001 1388")
SPAN_BINARY = b"\2" + sized(NUMERIC_1_5) + sized(NUMERIC_1_5)
PAIR_BINARY = record((23, number(7)), (25, b"q"))

TEXT_SAMPLES = [
    (MOOD, "O'K", "O'K"),
    (MOODS, '{sad,"O\'K",NULL}', ["sad", "O'K", None]),
    (PAIR, "(7,q)", (7, "q")),
    (PAIR, "(,)", (None, None)),
    (PAIR, '(,"")', (None, "")),
    (PAIR, '(-1,"a ""b"" \\\\ (c,d)")', (-1, 'a "b" \\ (c,d)')),
    (PAIR, "(7,{[é';:])", (7, "{[é';:]")),
    (PAIR, '(7,"\n")', (7, "\n")),
    (PAIRS, '{"(7,q)",NULL,"(,\\"a b\\")"}', [(7, "q"), None, (None, "a b")]),
    (NESTED, '("(7,""a b"")","{sad,NULL}",)', ((7, "a b"), ["sad", None], None)),
    (SPAN, "[1.50,2)", Range(Decimal("1.50"), Decimal(2))),
    (SPANS, "{[1.5,2),[3,)}", (Range(Decimal("1.5"), Decimal(2)), Range(Decimal(3)))),
    (SPANS, "{}", ()),
    (PRICE, "1.50", Decimal("1.50")),
    (NUMBERS, "{1,NULL}", [1, None]),
    (BOXES, "{a,b:NULL:c}", ["a,b", None, "c"]),
    (BOXES, '{{a:"b:c"}:{"{":d}}', [["a", "b:c"], ["{", "d"]]),
    (LTREE, "a.b", "a.b"),
    (NOBODY, "(1)", "(1)"),
]

BINARY_SAMPLES = [
    (MOOD, b"O'K", "O'K"),
    (MOODS, array(MOOD, b"sad", None), ["sad", None]),
    (PAIR, PAIR_BINARY, (7, "q")),
    (PAIR, record((23, None), (25, None)), (None, None)),
    (PAIRS, array(PAIR, PAIR_BINARY), [(7, "q")]),
    (
        NESTED,
        record((PAIR, PAIR_BINARY), (MOODS, array(MOOD, b"sad")), (23, None)),
        ((7, "q"), ["sad"], None),
    ),
    (SPAN, SPAN_BINARY, Range(Decimal("1.5"), Decimal("1.5"))),
    (SPANS, number(1) + sized(SPAN_BINARY), (Range(Decimal("1.5"), Decimal("1.5")),)),
    (PRICE, NUMERIC_1_5, Decimal("1.5")),
    (NUMBERS, array(23, number(7)), [7]),
    (BOXES, array(25, b"a"), ["a"]),
    (LTREE, b"\1a.b", "a.b"),
    (2249, record((MOOD, b"sad"), (PAIR, PAIR_BINARY)), ("sad", (7, "q"))),
    (NOBODY, b"\0", b"\0"),
]


def kinds(value: Any) -> str:
    """A value with the classes of all that is in it, to tell 1 from True and 1.50 from 1.5."""
    if isinstance(value, Range):
        return f"Range({kinds(value.lower)}, {kinds(value.upper)}, {value.bounds})"
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return f"{kind}({', '.join(map(kinds, value))})"
    return f"{type(value).__name__} {value!r}"


@pytest.mark.parametrize(("oid", "text", "value"), TEXT_SAMPLES)
def test_text(types: Any, oid: int, text: str, value: Any) -> None:
    decoded = types.lookup(oid).text(text.encode())
    assert (decoded, kinds(decoded)) == (value, kinds(value))


@pytest.mark.parametrize(("oid", "data", "value"), BINARY_SAMPLES)
def test_binary(types: Any, oid: int, data: bytes, value: Any) -> None:
    decoded = types.lookup(oid).binary(data)
    assert (decoded, kinds(decoded)) == (value, kinds(value))


def test_types_have_their_own_names(types: Any) -> None:
    for definition in DEFINITIONS:
        found = types.lookup(definition.oid)
        assert (found.oid, found.name) == (definition.oid, definition.name)


@pytest.mark.parametrize(
    "text",
    ["", "7,q", "(7,q", "7,q)", "(7)", "(7,q,)", "()", "(7,q)x", "(7,q) ", "(7, q)", "((7),q)"]
    + ['("7"8,q)', '("7,q)', "(7,a\\b)", '(7,a"b")', "(7,q)(7,q)", "(7,(q))", "(7,q,,,,,,,,,,,,)"],
)
def test_text_that_is_no_such_composite_is_left_as_it_came(types: Any, text: str) -> None:
    decoded = types.lookup(PAIR).text(text.encode())
    assert (type(decoded), decoded) == (str, text)


@pytest.mark.parametrize("text", ["{a:b", "{a::b}", "{a:}", "{{a}:b}", "{a}:"])
def test_text_that_is_no_such_array_is_left_as_it_came(types: Any, text: str) -> None:
    assert types.lookup(BOXES).text(text.encode()) == text


def test_a_composite_that_has_other_fields_than_defined(types: Any) -> None:
    wider = record((23, number(7)), (25, b"q"), (16, b"\1"))
    other = record((21, b"\0\7"), (25, b"q"))
    for data, value in ((wider, (7, "q", True)), (other, (7, "q")), (record(), ())):
        decoded = types.lookup(PAIR).binary(data)
        assert (type(decoded), decoded) == (tuple, value)
    assert types.lookup(PAIR).text(b"(7,q,t)") == "(7,q,t)"


def test_a_composite_without_fields(make_types: Callable[..., Any]) -> None:
    empty = make_types(CompositeType(PAIR, "public", "pair", ())).lookup(PAIR)
    assert (empty.text(b"()"), empty.binary(record())) == ((), ())
    assert type(empty.text(b"()")) is type(empty.binary(record()))
    assert empty.text(b"(1)") == "(1)"
    one = make_types(CompositeType(PAIR, "public", "pair", (Field("a", 23),))).lookup(PAIR)
    assert one.text(b"()") == (None,)


def test_fields_of_a_composite_have_names(types: Any) -> None:
    pair = types.lookup(PAIR).text(b"(7,q)")
    assert (pair.number, pair.word) == (7, "q")
    assert repr(pair) == "pair(number=7, word='q')"
    assert type(pair) is type(types.lookup(PAIR).binary(PAIR_BINARY))
    nested = types.lookup(NESTED).text(b'("(7,q)",,5)')
    assert (nested.pair.word, nested.moods, nested._2) == ("q", None, 5)
    assert nested._fields == ("pair", "moods", "_2")
    assert nested._replace(moods=[]) == ((7, "q"), [], 5)


def test_composites_can_be_copied_and_pickled(types: Any) -> None:
    nested = types.lookup(NESTED).text(b'("(7,q)",,5)')
    for again in (pickle.loads(pickle.dumps(nested)), copy.copy(nested), copy.deepcopy(nested)):
        assert again == nested
        assert (type(again), type(again.pair)) == (type(nested), type(nested.pair))


def test_the_widest_composite(make_types: Callable[..., Any]) -> None:
    fields = tuple(Field(f"f{i}", 23) for i in range(1600))
    wide = make_types(CompositeType(PAIR, "public", "wide", fields)).lookup(PAIR)
    decoded = wide.text(b"(" + b",".join(b"%d" % i for i in range(1600)) + b")")
    assert (decoded, decoded.f1599) == (tuple(range(1600)), 1599)


def test_overrides_come_first(make_types: Callable[..., Any]) -> None:
    def made(**overrides: Any) -> Any:
        return make_types(overrides=overrides)

    types = make_types(overrides={"public.mood": str.upper, "int4": str, SPAN: repr})
    assert types.lookup(MOOD).text(b"sad") == "SAD"
    assert types.lookup(MOODS).text(b"{sad}") == ["SAD"]
    assert types.lookup(PAIR).text(b"(7,q)") == ("7", "q")
    assert types.lookup(NESTED).text(b'("(7,q)",{sad},8)') == (("7", "q"), ["SAD"], "8")
    assert types.lookup(SPANS).text(b"{[1,2),[3,4)}") == ("'[1,2)'", "'[3,4)'")
    assert types.lookup(SPANS).binary(number(1) + sized(SPAN_BINARY)) == (repr(SPAN_BINARY),)
    assert made(mood=len).lookup(MOODS).binary(array(MOOD, b"sad")) == [3]
    assert made(pair=json.dumps).lookup(PAIRS).text(b'{"(7,q)"}') == ['"(7,q)"']
    assert made(pair=25).lookup(PAIR).text(b"(7,q)") == "(7,q)"
    assert made(_mood=str).lookup(NESTED).text(b"(,{sad},)") == (None, "{sad}", None)


def test_overrides_of_domains(make_types: Callable[..., Any]) -> None:
    """The nearest counts: the domain's own, else that of what it is over."""
    for overrides, price, positive in (
        ({"price": len}, 3, Decimal("1.5")),
        ({"public.positive": len}, 3, 3),
        ({"numeric": str, "positive": len}, 3, 3),
        ({"numeric": str}, "1.5", "1.5"),
        ({"price": 25}, "1.5", Decimal("1.5")),
    ):
        types = make_types(overrides=overrides)
        assert types.lookup(PRICE).text(b"1.5") == price
        assert types.lookup(POSITIVE).text(b"1.5") == positive
        assert types.lookup(SPAN).text(b"[1.5,)") == Range(price)


def test_without_types_all_is_as_sent(make_types: Callable[..., Any]) -> None:
    types = make_types(*DEFINITIONS, typed=False)
    assert types.lookup(PAIR).text(b"(7,q)") == "(7,q)"
    assert types.lookup(PAIR).binary(PAIR_BINARY) == PAIR_BINARY
    assert types.lookup(MOOD).binary(b"sad") == b"sad"


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


def test_binary_nesting_is_bounded(make_types: Callable[..., Any]) -> None:
    types = make_types(
        CompositeType(PAIR, "public", "p", (Field("any", 2249),)),
        ArrayType(PAIRS, "public", "_p", PAIR),
        CompositeType(NESTED, "public", "n", (Field("p", PAIRS),)),
    )

    def pair(data: bytes) -> bytes:
        return record((2249, record((PAIR, data))))

    def nested(data: bytes) -> bytes:
        return array(PAIR, record((2249, record((PAIRS, data)))))

    for oid, wrap, inner, levels in (
        (PAIR, pair, record((2249, None)), 2),
        (PAIRS, nested, array(PAIR), 3),
    ):
        data = inner
        for _ in range(31 // levels):
            data = wrap(data)
        assert types.lookup(oid).binary(data) is not None
        for _ in range(2000):
            data = wrap(data)
        with pytest.raises(ValueError, match="^expected at most 32 values inside of each other"):
            types.lookup(oid).binary(data)


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


MALFORMED_BINARY = [
    (PAIR, b""),
    (PAIR, number(-1)),
    (PAIR, number(2**31 - 1)),
    (PAIR, PAIR_BINARY[:-1]),
    (PAIR, PAIR_BINARY + b"x"),
    (PAIR, record((23, b"\0"), (25, b"q"))),
    (SPAN, b"\x20"),
    (SPANS, number(1) + sized(None)),
    (SPANS, number(2**31 - 1)),
    (MOODS, array(MOOD, b"sad")[:-1]),
    (PRICE, b"\0"),
    (LTREE, b""),
]


@pytest.mark.parametrize(("oid", "data"), MALFORMED_BINARY)
def test_v5_v9_malformed_binary_is_refused(types: Any, oid: int, data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^expected .* got") as caught:
        types.lookup(oid).binary(data)
    assert type(caught.value) is ValueError


@pytest.mark.parametrize("oid", [MOOD, MOODS, PAIR, NESTED, SPAN, SPANS, PRICE, LTREE])
def test_text_that_is_not_utf8(types: Any, oid: int) -> None:
    for text in (b"\xff", b"{\xff}", b"(1,\xff)", b"[\xff,)"):
        with pytest.raises(UnicodeDecodeError):
            types.lookup(oid).text(text)


def test_names_in_messages_are_printable(make_types: Callable[..., Any]) -> None:
    types = make_types(
        CompositeType(PAIR, "public", "a\n\x1b", ()), RangeType(SPAN, "public", "a\n\x1b", 23)
    )
    for oid in (PAIR, SPAN):
        with pytest.raises(ValueError, match=r"in a binary 'a\\n\\x1b', got") as caught:
            types.lookup(oid).binary(b"\x7f" * 4)
        assert str(caught.value).isprintable()


def test_an_array_keeps_its_bounds(types: Any) -> None:
    decoded = types.lookup(PAIRS).text(b'[0:1]={"(7,q)",NULL}')
    assert (type(decoded), decoded.lower_bounds) == (Array, (0,))


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
