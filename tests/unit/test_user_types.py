"""Types that users made, on both twins: what becomes of their values once they are defined."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import json
import pickle
import struct
from collections.abc import Callable
from decimal import Decimal
from types import ModuleType
from typing import Any

import pytest

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
        with pytest.raises(ValueError, match=r"in a binary a\\n\\x1b, got") as caught:
            types.lookup(oid).binary(b"\x7f" * 4)
        assert str(caught.value).isprintable()


def test_an_array_keeps_its_bounds(types: Any) -> None:
    decoded = types.lookup(PAIRS).text(b'[0:1]={"(7,q)",NULL}')
    assert (type(decoded), decoded.lower_bounds) == (Array, (0,))
