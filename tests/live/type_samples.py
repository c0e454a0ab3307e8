"""Values of every type, as the text that a server takes: edges by hand, and random ones by seed."""

from __future__ import annotations

import random
import struct
import uuid
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

RANDOM_VALUES: Final = 60
_SEED: Final = 20000101


def _integers(bits: int, signed: bool = True) -> Callable[[random.Random], str]:
    def one(chance: random.Random) -> str:
        value = chance.getrandbits(chance.randint(1, bits))
        return str(value - (1 << bits - 1) if signed and chance.random() < 0.5 else value >> signed)

    return one


def _float8(chance: random.Random) -> str:
    value: float = struct.unpack(">d", chance.randbytes(8))[0]
    return repr(value) if chance.random() < 0.5 else repr(chance.uniform(-1e6, 1e6))


def _float4(chance: random.Random) -> str:
    value: float = struct.unpack(">f", chance.randbytes(4))[0]
    return repr(value)


def _numeric(chance: random.Random) -> str:
    digits = "".join(chance.choices("0000123456789", k=chance.randint(1, 60)))
    point = chance.randint(0, len(digits))
    text = f"{digits[:point] or '0'}.{digits[point:]}".rstrip(".")
    return chance.choice(["", "-"]) + text


_PIECES: Final = [*"ab1 ,;{}[]()\"'\\:|\t\n\x7f", "é", "漢", "\U0001f600", "NULL", "''", "=>"]


def _text(chance: random.Random) -> str:
    return "".join(chance.choices(_PIECES, k=chance.randint(0, 12)))


def _bytea(chance: random.Random) -> str:
    return "\\x" + chance.randbytes(chance.randint(0, 40)).hex()


def _date(chance: random.Random) -> str:
    # Mostly Python's years, and some of PostgreSQL's others.
    year = chance.choice([chance.randint(1, 9999), chance.randint(1800, 2100)])
    if chance.random() < 0.2:
        year = chance.choice([chance.randint(10000, 290000), chance.randint(1, 4000)])
    return f"{year:04}-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}"


def _bc(chance: random.Random) -> str:
    return chance.choice(["", "", "", " BC"])


def _past_4000(day: str) -> bool:
    return int(day.split("-")[0]) > 4000


def _era(chance: random.Random, day: str) -> str:
    return "" if _past_4000(day) else _bc(chance)


def _any_date(chance: random.Random) -> str:
    day = _date(chance)
    return day + _era(chance, day)


def _time(chance: random.Random) -> str:
    clock = f"{chance.randint(0, 23):02}:{chance.randint(0, 59):02}:{chance.randint(0, 59):02}"
    return clock + chance.choice(["", ".5", ".000001", f".{chance.randint(0, 999999):06}"])


def _timetz(chance: random.Random) -> str:
    offset = chance.choice(["+00", "-08", "+05:30", "+05:53:28", "-15:59:59", "+15:59"])
    return _time(chance) + offset


def _timestamp(chance: random.Random) -> str:
    day = _date(chance)
    return f"{day} {_time(chance)}{_era(chance, day)}"


def _timestamptz(chance: random.Random) -> str:
    day = _date(chance)
    return f"{day} {_time(chance)}+00{_era(chance, day)}"


def _interval(chance: random.Random) -> str:
    months, days = chance.randint(-5000, 5000), chance.randint(-(10**6), 10**6)
    microseconds = chance.randint(-(10**17), 10**17)
    parts = [f"{months} months", f"{days} days", f"{microseconds} microseconds"]
    return " ".join(chance.sample(parts, chance.randint(1, 3)))


def _uuid(chance: random.Random) -> str:
    return str(uuid.UUID(int=chance.getrandbits(128)))


def _inet(chance: random.Random) -> str:
    if chance.random() < 0.5:
        address = ".".join(str(byte) for byte in chance.randbytes(4))
        return chance.choice([address, f"{address}/{chance.randint(0, 32)}"])
    address = ":".join(f"{chance.choice([0, chance.getrandbits(16)]):x}" for _ in range(8))
    return chance.choice([address, f"{address}/{chance.randint(0, 128)}"])


def _bits(chance: random.Random) -> str:
    return "".join(chance.choices("01", k=chance.randint(0, 40)))


def _number(chance: random.Random) -> str:
    return chance.choice(
        [str(chance.randint(-9, 9)), _float8(chance), repr(chance.uniform(-1e17, 1e17))]
    )


def _finite(chance: random.Random) -> str:
    return repr(chance.choice([1, 1e-6, 1e14, 1e20]) * chance.uniform(-10, 10))


def _point(chance: random.Random) -> str:
    return f"({_finite(chance)},{_finite(chance)})"


def _points(chance: random.Random) -> str:
    return ",".join(_point(chance) for _ in range(chance.randint(1, 5)))


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _array(element: Callable[[random.Random], str], delimiter: str = ",") -> Callable[..., str]:
    """Arrays of up to three dimensions, with NULLs, now and then with lower bounds."""

    def braces(chance: random.Random, sizes: list[int]) -> str:
        if not sizes:
            return "NULL" if chance.random() < 0.2 else _quoted(element(chance))
        return "{" + delimiter.join(braces(chance, sizes[1:]) for _ in range(sizes[0])) + "}"

    def one(chance: random.Random) -> str:
        sizes = [chance.randint(1, 4) for _ in range(chance.choice([1, 1, 2, 3]))]
        lows = [chance.choice([-7, 0, 2]) for _ in sizes]
        bounds = "".join(f"[{low}:{low + size - 1}]" for low, size in zip(lows, sizes, strict=True))
        return (f"{bounds}=" if chance.random() < 0.3 else "") + braces(chance, sizes)

    return one


def _range(bound: Callable[[random.Random], str]) -> Callable[[random.Random], str]:
    def one(chance: random.Random) -> str:
        # Bounds of the same length in order of their text are in order as values.
        low, high = sorted((bound(chance) for _ in range(2)), key=lambda text: (len(text), text))
        low, high = chance.choice([(low, high), ("", high), (low, "")])
        return f"{chance.choice('[(')}{low},{high}{chance.choice('])')}"

    return one


def _multirange(chance: random.Random) -> str:
    cuts = sorted(chance.sample(range(1000), 2 * chance.randint(0, 4)))
    pairs = zip(cuts[::2], cuts[1::2], strict=True)
    return "{" + ",".join(f"[{low},{high})" for low, high in pairs) + "}"


def _natural(chance: random.Random) -> str:
    return str(chance.randint(0, 10**6))


def _plain_date(chance: random.Random) -> str:
    return f"{chance.randint(1000, 9999)}-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}"


def _plain_timestamp(chance: random.Random) -> str:
    return f"{_plain_date(chance)} {chance.randint(0, 23):02}:00:00.25"


def _hstore(chance: random.Random) -> str:
    def pair() -> str:
        value = "NULL" if chance.random() < 0.3 else _quoted(_text(chance))
        return f"{_quoted(_text(chance))}=>{value}"

    return ",".join(pair() for _ in range(chance.randint(0, 5)))


def _word(chance: random.Random) -> str:
    text = _text(chance).replace("\\", "\\\\").replace("'", "''")
    return f"'w{text}'"


def _tsvector(chance: random.Random) -> str:
    def lexeme() -> str:
        positions = [
            f"{chance.randint(1, 16383)}{chance.choice(['', 'A', 'B', 'C'])}"
            for _ in range(chance.randint(0, 3))
        ]
        return _word(chance) + (":" + ",".join(positions) if positions else "")

    return " ".join(lexeme() for _ in range(chance.randint(0, 6)))


def _tsquery(chance: random.Random, depth: int = 4) -> str:
    if depth == 0 or chance.random() < 0.2:
        return _word(chance) + chance.choice(["", ":*", ":AB", ":*CD"])
    if chance.random() < 0.25:
        return f"!({_tsquery(chance, depth - 1)})"
    operator = chance.choice(["&", "|", "<->", "<3>", "<0>"])
    return f"({_tsquery(chance, depth - 1)}) {operator} ({_tsquery(chance, depth - 1)})"


RANDOM: Final[dict[str, Callable[[random.Random], str]]] = {
    "int2": _integers(16),
    "int4": _integers(32),
    "int8": _integers(64),
    "oid": _integers(32, signed=False),
    "float4": _float4,
    "float8": _float8,
    "numeric": _numeric,
    "text": _text,
    "varchar": _text,
    "bytea": _bytea,
    "date": _any_date,
    "time": _time,
    "timetz": _timetz,
    "timestamp": _timestamp,
    "timestamptz": _timestamptz,
    "interval": _interval,
    "uuid": _uuid,
    "inet": _inet,
    "varbit": _bits,
    "point": lambda chance: f"({_number(chance)},{_number(chance)})",
    "lseg": lambda chance: f"[{_point(chance)},{_point(chance)}]",
    "box": lambda chance: f"{_point(chance)},{_point(chance)}",
    "path": lambda chance: chance.choice(["[{}]", "({})"]).format(_points(chance)),
    "polygon": lambda chance: f"({_points(chance)})",
    "circle": lambda chance: f"<{_point(chance)},{abs(float(_finite(chance)))!r}>",
    "tsvector": _tsvector,
    "tsquery": _tsquery,
    "hstore": _hstore,
    "int4[]": _array(_integers(31)),
    "text[]": _array(_text),
    "numeric[]": _array(_numeric),
    "box[]": _array(lambda chance: f"{_point(chance)},{_point(chance)}", ";"),
    "int4range": _range(_natural),
    "int8range": _range(_natural),
    "numrange": _range(_natural),
    "daterange": _range(_plain_date),
    "tsrange": _range(_plain_timestamp),
    "tstzrange": _range(lambda chance: _plain_timestamp(chance) + "+00"),
    "int4multirange": _multirange,
    "nummultirange": _multirange,
}


def random_values(type_name: str) -> Iterator[str]:
    """The same random values of a type on every run; none for a type that has only edges."""
    one = RANDOM.get(type_name)
    if one is None:
        return iter(())
    chance = random.Random(f"{_SEED} {type_name}")
    return islice(iter(lambda: one(chance), None), RANDOM_VALUES)
