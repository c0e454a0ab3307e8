"""Values: both twins make the same of any bytes, or fail alike, whatever the type says they are."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest

from pgrepl.codec import _pure
from pgrepl.codec.types.builtin import SCALARS
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

native = pytest.importorskip("pgrepl.codec._native")

ROUNDS = int(os.environ.get("PGREPL_MUTATIONS", "20000"))

TEXTS = [
    *("t", "f", "0", "-1", "32767", "9223372036854775807", "18446744073709551615", "1e+20", "NaN"),
    *("Infinity", "-Infinity", "1.50", "-0.0001", "100000000000000000000.5", "\\x00ff", "\\134a"),
    *("2000-01-02", "0044-03-15 BC", "infinity", "12345-01-01", "04:05:06.789", "24:00:00"),
    *("2026-11-22 10:11:12.123456+05:30", "1883-01-01 00:00:00+05:53:28", "0/16B3748"),
    *("cdd49309-5312-4b6a-94e7-ec6469c57c65", "{1,NULL,3}", "[1,5)", '{"a": 1}', "caf\u00e9"),
]
BINARIES = [
    "00", "01", "8000", "7fffffff", "fffffffffffffffe", "3ff8000000000000", "7ff0000000000000",
    "0003000100000003000109291a7c", "0002ffff4000000507d0", "00000000c0000000", "00000000d0000020",
    "fff49d7b", "000000036c97ca88", "00000014 1dd76000", "ff1fc63d1bb12000", "7fffffffffffffff",
    "cdd4930953124b6a94e7ec6469c57c65", "017b7d", "000000010000000100000017000000030000000100000004"
    "00000001ffffffff0000000400000003",
]  # fmt: skip
OIDS = [*SCALARS, 1007, 1231, 1185, 3904, 4451, 99999]


def outcome(types: Any, oid: int, binary: bool, data: bytes) -> Any:
    kind = types.lookup(oid)
    try:
        value = kind.binary(data) if binary else kind.text(data)
    except ValueError as error:
        return type(error), str(error)
    # repr tells apart 1 and True, 1.0 and Decimal("1"), -0.0 and 0.0, and equals itself for NaN.
    return type(value), repr(value)


def mutated(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice([0, 1, 1, 2])):
        place = chance.randrange(len(changed) + 1)
        action = chance.randrange(3)
        if action == 0:
            changed[place:place] = bytes([chance.choice(b"0123456789-+.:\x00\x80\xff eT")])
        elif action == 1:
            del changed[place : place + 1]
        elif changed:
            changed[place % len(changed)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def test_v9_any_bytes_as_any_type() -> None:
    chance = random.Random(20260101)
    one, other = native.Types(), _pure.Types()
    samples = [(False, text.encode()) for text in TEXTS]
    samples += [(True, bytes.fromhex(binary)) for binary in BINARIES]
    for _ in range(ROUNDS):
        binary, data = chance.choice(samples)
        data = mutated(data, chance)
        oid = chance.choice(OIDS)
        assert outcome(one, oid, binary, data) == outcome(other, oid, binary, data), (oid, data)


@pytest.mark.parametrize("binary", [False, True])
def test_every_sample_as_every_type(binary: bool) -> None:
    one, other = native.Types(), _pure.Types()
    samples = [bytes.fromhex(b) for b in BINARIES] if binary else [t.encode() for t in TEXTS]
    for oid in OIDS:
        for data in samples:
            assert outcome(one, oid, binary, data) == outcome(other, oid, binary, data), (oid, data)


@pytest.mark.parametrize("binary", [False, True])
def test_v9_every_sample_cut_short_or_continued(binary: bool) -> None:
    one, other = native.Types(), _pure.Types()
    samples = [bytes.fromhex(b) for b in BINARIES] if binary else [t.encode() for t in TEXTS]
    for data in samples:
        for changed in (data[:-1], data[1:], data + data[-1:], data + b"\0", data + data):
            for oid in OIDS:
                expected = outcome(other, oid, binary, changed)
                assert outcome(one, oid, binary, changed) == expected, (oid, changed)


MOOD, PAIR, SPAN, SPANS, FEELING, MOODS, NESTED, LTREE, COUNT = range(16400, 16409)
USER_OIDS = range(MOOD, COUNT + 1)

DEFINITIONS: list[TypeDefinition] = [
    EnumType(MOOD, "public", "mood", ("sad",)),
    CompositeType(PAIR, "public", "pair", (Field("number", 23), Field("word", MOOD))),
    RangeType(SPAN, "public", "span", 701),
    MultirangeType(SPANS, "public", "spans", SPAN),
    DomainType(FEELING, "public", "feeling", MOOD),
    ArrayType(MOODS, "public", "_mood", MOOD, ":"),
    CompositeType(NESTED, "public", "nested", (Field("a", PAIR), Field("b", MOODS))),
    BaseType(LTREE, "public", "ltree"),
    DomainType(COUNT, "public", "count", 23),
]

USER_TEXTS = ["sad", "7", '(7,"a ""b""")', "(,)", "[1.5,2)", "{[1,2),[3,4)}", "{sad:NULL}"]
USER_TEXTS += ['("(7,""a b"")",{sad:ok})', "a.b", "{(7,q)}", "()", "empty", '{"(1,2)":"{}"}']

USER_BINARIES = [
    *("736164", "00000007", "01612e62", "00000000", "01", "00000001 00000001 01"),
    "00000002 00000017 00000004 00000007 00004010 00000003 736164",
    "00000002 00000017 ffffffff 00004010 ffffffff",
    "02 00000008 3ff8000000000000 00000008 4000000000000000",
    "00000001 00000019 02 00000008 3ff8000000000000 00000008 4000000000000000",
    "00000001 00000001 00004010 00000002 00000001 00000003 736164 ffffffff",
    "00000002 00004011 00000018 00000002 00000017 00000004 00000007 00004010 ffffffff"
    " 00004015 ffffffff",
]


def user_samples() -> list[tuple[bool, bytes]]:
    samples = [(False, text.encode()) for text in USER_TEXTS]
    return samples + [(True, bytes.fromhex(binary)) for binary in USER_BINARIES]


def test_the_samples_are_values_of_their_types() -> None:
    """Otherwise the mutations below would start from nothing."""
    for types in (native.Types(), _pure.Types()):
        types.define(DEFINITIONS)
        values = [outcome(types, oid, *sample) for oid in USER_OIDS for sample in user_samples()]
        shown = {text for _, text in values}
        assert {"nested(a=pair(number=7, word=None), b=None)", "pair(number=7, word='sad')"} < shown
        assert {
            "Array(['sad', None])",
            "Multirange((Range(1.5, 2.0, '[)'),))",
            "'a.b'",
            "7",
        } < shown


def test_any_bytes_as_a_users_type() -> None:
    chance = random.Random(20260102)
    one, other = native.Types(), _pure.Types()
    for types in (one, other):
        types.define(DEFINITIONS)
    samples = user_samples()
    for _ in range(ROUNDS):
        binary, data = chance.choice(samples)
        data = mutated(data, chance)
        oid = chance.choice(USER_OIDS)
        assert outcome(one, oid, binary, data) == outcome(other, oid, binary, data), (oid, data)


def any_definition(chance: random.Random) -> TypeDefinition:
    """A definition whose parts may be anything: itself, what nobody knows, or one another."""
    oid, schema = chance.choice(USER_OIDS), "public"
    name = chance.choice(["mood", "_mood", "pair", "hstore", "ltree", "citext"])
    part = chance.choice([*USER_OIDS, 23, 25, 1007, 3904, 99999])
    fields = tuple(
        Field(f"f{i}", chance.choice([part, oid, 23])) for i in range(chance.randrange(3))
    )
    made: list[TypeDefinition] = [
        BaseType(oid, schema, name),
        EnumType(oid, schema, name),
        CompositeType(oid, schema, name, fields),
        RangeType(oid, schema, name, part),
        MultirangeType(oid, schema, name, part),
        DomainType(oid, schema, name, part),
        ArrayType(oid, schema, name, part, chance.choice(",:;{")),
    ]
    return chance.choice(made)


def overrides(chance: random.Random) -> dict[int | str, Any]:
    every: dict[int | str, Any] = {"mood": repr, "public.pair": 2249, "int4": str, MOOD: 25}
    return {key: every[key] for key in every if chance.random() < 0.3}


def test_any_definitions_and_descriptions() -> None:
    chance = random.Random(20260103)
    samples = user_samples()
    for _ in range(ROUNDS // 50):
        chosen = overrides(chance)
        one, other = native.Types(chosen), _pure.Types(chosen)
        for _ in range(chance.randint(1, 12)):
            if chance.random() < 0.6:
                definition = any_definition(chance)
                calls = [types.define for types in (one, other)]
                said: tuple[Any, ...] = ([definition],)
            else:
                calls = [types.describe for types in (one, other)]
                name = chance.choice(["mood", "_mood", "pair", "hstore", "int4"])
                schema = "pg_catalog" if name == "int4" else "public"
                said = (chance.choice(USER_OIDS), schema, name)
            for call in calls:
                call(*said)
            oid = chance.choice(USER_OIDS)
            binary, data = chance.choice(samples)
            data = mutated(data, chance)
            assert one.lookup(oid).name == other.lookup(oid).name
            assert one.lookup(oid).oid == other.lookup(oid).oid
            assert outcome(one, oid, binary, data) == outcome(other, oid, binary, data), (oid, data)
