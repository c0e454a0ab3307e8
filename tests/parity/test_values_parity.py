"""Values: both twins make the same of any bytes, or fail alike, whatever the type says they are."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest

from pgrepl.codec import _pure

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
OIDS = [*_pure.Types()._scalars, 1007, 1231, 1185, 3904, 4451, 99999]


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


def test_any_bytes_as_any_type() -> None:
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
