"""Typed values on both twins: what each type gives, and what becomes of bytes without sense."""

from __future__ import annotations

import contextlib
import decimal
import importlib
import importlib.util
import json
import struct
import tracemalloc
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from ipaddress import IPv4Interface, IPv4Network, IPv6Address
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrepl.codec.types.builtin import SCALARS
from pgrepl.lsn import Lsn
from pgrepl.values import Array, Interval, Multirange, Range

ALL_OIDS = sorted(SCALARS) + sorted(scalar.array_oid for scalar in SCALARS.values())
ALL_OIDS += [22, 30, 2249, 2287, 3904, 3905, 3906, 3908, 3910, 3912, 3926, 4451, 4532, 4533, 6150]


@pytest.fixture
def make_types(codec: ModuleType) -> Any:
    """The class `Types` of each twin."""
    name = f"{codec.__name__}.values"
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"this install has no {name}")
    return importlib.import_module(name).Types


@pytest.fixture
def types(make_types: Any) -> Any:
    return make_types()


def offset(**keywords: float) -> timezone:
    return timezone(timedelta(**keywords))


TEXT_SAMPLES = [
    (16, "t", True),
    (16, "f", False),
    (20, "-9223372036854775808", -(2**63)),
    (23, "007", 7),
    (28, "4294967295", 2**32 - 1),
    (5069, "18446744073709551615", 2**64 - 1),
    (700, "0.1", 0.1),
    (701, "-1e-320", -1e-320),
    (701, "-Infinity", float("-inf")),
    (1700, "0.00", Decimal("0.00")),
    (1700, "-Infinity", Decimal("-Infinity")),
    (790, "-$1,234.56", "-$1,234.56"),
    (17, "\\x00fF", b"\x00\xff"),
    (17, "\\x", b""),
    (17, "a\\\\b\\000\\377", b"a\\b\x00\xff"),
    (17, "", b""),
    (3802, '{"a": 1}', '{"a": 1}'),
    (2950, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", UUID("a0eebc999c0b4ef8bb6d6bb9bd380a11")),
    (1082, "2000-02-29", date(2000, 2, 29)),
    (1082, "0044-03-15 BC", "0044-03-15 BC"),
    (1082, "12345-01-01", "12345-01-01"),
    (1082, "infinity", "infinity"),
    (1083, "04:05:06.789", time(4, 5, 6, 789000)),
    (1083, "24:00:00", "24:00:00"),
    (1266, "04:05:06.1-08", time(4, 5, 6, 100000, offset(hours=-8))),
    (1266, "24:00:00+05:53:28", "24:00:00+05:53:28"),
    (1114, "2000-01-01 00:00:01", datetime(2000, 1, 1, 0, 0, 1)),
    (1114, "2016-12-31 23:59:60", "2016-12-31 23:59:60"),
    (1184, "2000-01-01 00:00:00.5+00", datetime(2000, 1, 1, 0, 0, 0, 500000, UTC)),
    (1184, "1850-01-01 00:00:00+05:53:28", datetime(1850, 1, 1, tzinfo=offset(seconds=21208))),
    (1184, "0001-01-01 00:00:00+05:30", datetime(1, 1, 1, tzinfo=offset(hours=5.5))),
    (1184, "10000-01-01 00:00:00+00", "10000-01-01 00:00:00+00"),
    (1186, "1 year 2 mons 3 days 04:05:06.789", Interval(14, 3, 14706789000)),
    (1186, "-1 mons +2 days -00:00:01", Interval(-1, 2, -1000000)),
    (1186, "-1 days +00:00:00.5", Interval(0, -1, 500000)),
    (1186, "00:00:00", Interval()),
    (1186, "infinity", "infinity"),
    (869, "192.168.1.5/24", IPv4Interface("192.168.1.5/24")),
    (869, "::1", IPv6Address("::1")),
    (650, "10.0.0.0/8", IPv4Network("10.0.0.0/8")),
    (3220, "16/B374D848", Lsn("16/B374D848")),
    (22, "1 2 -3", [1, 2, -3]),
    (22, "", []),
    (1007, "{}", []),
    (1007, "{1,NULL,3}", [1, None, 3]),
    (1007, "{{1,2},{3,4}}", [[1, 2], [3, 4]]),
    (
        1009,
        '{"a b","","NULL","q\\"x","b\\\\c",NULL,"c,d","{",é}',
        ["a b", "", "NULL", 'q"x', "b\\c", None, "c,d", "{", "é"],
    ),
    (1182, "{2000-01-01,infinity,NULL}", [date(2000, 1, 1), "infinity", None]),
    (1020, "{(1,2),(0,0);(3,4),(1,1)}", ["(1,2),(0,0)", "(3,4),(1,1)"]),
    (3904, "[1,5)", Range(1, 5)),
    (3904, "(,4)", Range(None, 4)),
    (3904, "empty", Range(empty=True)),
    (3906, "[1.5,2.50]", Range(Decimal("1.5"), Decimal("2.50"), "[]")),
    (3908, '["2000-01-01 00:00:00",infinity)', Range(datetime(2000, 1, 1), "infinity")),
    (4451, "{}", ()),
    (4451, "{[1,3),[5,7)}", (Range(1, 3), Range(5, 7))),
    (3905, '{"[1,5)",empty,NULL}', [Range(1, 5), Range(empty=True), None]),
    (2249, '(1,"a b")', '(1,"a b")'),
    (99999, "whatever", "whatever"),
]

BINARY_SAMPLES = [
    (16, "01", True),
    (17, "00ff", b"\x00\xff"),
    (18, "61", "a"),
    (18, "00", ""),
    (18, "e9", "\\351"),
    (21, "8000", -32768),
    (26, "ffffffff", 2**32 - 1),
    (27, "00000005 0007", "(5,7)"),
    (790, "fffffffffffe1dc0", -123456),
    (3802, "01 7b7d", "{}"),
    (1700, "0000 0000 0000 0000", Decimal(0)),
    (1700, "0003 0001 0000 0003 0001 0929 1a7c", Decimal("12345.678")),
    (1700, "0002 ffff 4000 0005 0001 07d0", Decimal("-0.00012")),
    (1700, "0002 0000 0000 0004 0001 1388", Decimal("1.5000")),
    (1700, "0001 0002 0000 0000 0001", Decimal(10**8)),
    (1700, "0001 fffb 0000 0014 0001", Decimal("1e-20")),
    (1700, "0000 0000 c000 0000", Decimal("NaN")),
    (1700, "0000 0000 d000 0020", Decimal("Infinity")),
    (1700, "0000 0000 f000 0020", Decimal("-Infinity")),
    (1082, "fff49d7b", "0044-03-15 BC"),
    (1082, "00000001", date(2000, 1, 2)),
    (1082, "7fffffff", "infinity"),
    (1082, "80000000", "-infinity"),
    (1083, "000000036c97ca88", time(4, 5, 6, 789000)),
    (1083, "000000141dd76000", "24:00:00"),
    (1266, "000000036c8d4720 00007080", time(4, 5, 6, 100000, offset(hours=-8))),
    (1266, "000000141dd76000 ffffad28", "24:00:00+05:53:28"),
    (1114, "ff1fc63d1bb12000", "0001-01-01 00:00:00 BC"),
    (1114, "fd0f7cc1411fa000", "4714-11-24 00:00:00 BC"),
    (1114, "7fffffffffffffff", "infinity"),
    (1184, "000240a11ef64288", datetime(2020, 2, 3, 2, 5, 6, 789000, UTC)),
    (1184, "ff1fc63d1bb12000", "0001-01-01 00:00:00+00 BC"),
    (1186, "000000036c97ca88 00000003 0000000e", Interval(14, 3, 14706789000)),
    (1186, "7fffffffffffffff 7fffffff 7fffffff", "infinity"),
    (869, "02 18 00 04 c0a80105", IPv4Interface("192.168.1.5/24")),
    (650, "02 08 01 04 0a000000", IPv4Network("10.0.0.0/8")),
    (869, "03 80 00 10 00000000000000000000000000000001", IPv6Address("::1")),
    (829, "08002b0102ff", "08:00:2b:01:02:ff"),
    (1560, "00000005 a8", "10101"),
    (1562, "00000000", ""),
    (600, "3ff0000000000000 8000000000000000", "(1,-0)"),
    (600, "430c6bf526340000 3f1a36e2eb1c432d", "(1e+15,0.0001)"),
    (600, "c36d954619fd4b88 7ff8000000000000", "(-6.6615221127109696e+16,NaN)"),
    (3614, "00000002 6100 0002 c001 0003 622700 0000", "'a':1A,3 'b'''"),
    (3615, "00000003 0202 01000062 00 01080161 00", "'a':*A & 'b'"),
    (3220, "00000016b374d848", Lsn("16/B374D848")),
    (5038, "00000001 000000000000000a 0000000000000014 000000000000000c", "10:20:12"),
    (1007, "00000000 00000000 00000017", []),
    (
        1007,
        "00000001 00000001 00000017 00000003 00000001 00000004 00000001 ffffffff 00000004 00000003",
        [1, None, 3],
    ),
    (30, "00000001 00000000 0000001a 00000000 00000000", []),
    (3904, "02 00000004 00000001 00000004 00000005", Range(1, 5)),
    (3904, "01", Range(empty=True)),
    (3904, "18", Range()),
    (4451, "00000001 00000011 02 00000004 00000001 00000004 00000005", (Range(1, 5),)),
    (2249, "00000002 00000017 00000004 00000007 00000019 ffffffff", (7, None)),
    (99999, "00ff", b"\x00\xff"),
]


def shown(value: Any) -> str:
    """What tells 1.50 from 1.5, -0.0 from 0.0, and one time zone from another."""
    return repr(list(value)) if isinstance(value, Array) else f"{type(value)} {value!r}"


def as_container(oid: int, value: Any) -> Any:
    if isinstance(value, list):
        return Array(value)
    return Multirange(value) if oid == 4451 and isinstance(value, tuple) else value


@pytest.mark.parametrize(("oid", "text", "value"), TEXT_SAMPLES)
def test_text(types: Any, oid: int, text: str, value: Any) -> None:
    assert shown(types.lookup(oid).text(text.encode())) == (shown(as_container(oid, value)))


@pytest.mark.parametrize(("oid", "data", "value"), BINARY_SAMPLES)
def test_binary(types: Any, oid: int, data: str, value: Any) -> None:
    assert shown(types.lookup(oid).binary(bytes.fromhex(data))) == (shown(as_container(oid, value)))


def test_offset_zero_is_utc(types: Any) -> None:
    assert types.lookup(1184).text(b"2000-01-01 00:00:00+00").tzinfo is UTC
    assert types.lookup(1184).binary(bytes(8)).tzinfo is UTC
    assert types.lookup(1266).binary(bytes(12)).tzinfo is UTC


def test_lower_bounds(types: Any) -> None:
    arrays = types.lookup(1007)
    assert arrays.text(b"{1}").lower_bounds == (1,)
    assert arrays.text(b"{{1},{2}}").lower_bounds == (1, 1)
    assert arrays.text(b"{}").lower_bounds == ()
    shifted = arrays.text(b"[2:3][-1:0]={{5,6},{7,8}}")
    assert (shifted, shifted.lower_bounds) == ([[5, 6], [7, 8]], (2, -1))
    data = struct.pack(">iiIiiii", 1, 0, 23, 1, -7, 4, 5)
    assert arrays.binary(data).lower_bounds == (-7,)
    assert types.lookup(22).text(b"1 2").lower_bounds == (0,)


MALFORMED_TEXT = [
    *((16, text) for text in ("", "T", "true", "1", "t ")),
    *(
        (23, text)
        for text in ("", "-", "+1", " 1", "1_0", "١", "1.0", "9223372036854775808", "--1")
    ),
    *((26, text) for text in ("-1", "18446744073709551616", "1" * 5000)),
    *((701, text) for text in ("", " 1", "1_0", "nan", "inf", "1e", ".", "0x1p3", "١")),
    *((1700, text) for text in ("", " 1", "1_0", "nan", "sNaN", "1e5", "+1", "NaN5", "١", "1.")),
    *((17, text) for text in ("\\x0", "\\xgg", "\\x 00", "\\1", "\\400", "é", "\\")),
    *((2950, text) for text in ("", "a" * 36, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1g")),
    *((1082, text) for text in ("", "2000-1-1", "20000101", "2000-02-30", "0000-01-01")),
    *((1082, text) for text in ("2000-W01-1", "01/02/2000", "2000-01-01 ")),
    *(
        (1083, text)
        for text in ("", "04:05", "04:05:06.", "04:05:06.1234567", "T04:05:06", "4:05:06")
    ),
    *((1114, text) for text in ("2000-01-01T00:00:00", "2000-01-01", "2000-01-01 00:00:00Z")),
    *((1184, text) for text in ("2000-01-01 00:00:00", "2000-01-01 00:00:00+24", "x+00")),
    *((1266, text) for text in ("00:00:00", "00:00:00+5", "00:00:00+05:60")),
    *((1186, text) for text in ("", "1 year ", " 1 year", "P1Y", "1 fortnight", "1 day  00:00:01")),
    *((1186, text) for text in ("99999999999 days", "9999999999 days", "1 mon 1 year", "00:60:00")),
    *((869, text) for text in ("", "1.2.3", "1.2.3.4/255.0.0.0", "fe80::1%eth0", "1.2.3.4/33")),
    *((650, text) for text in ("10.0.0.1/8", "10.0.0.0")),
    *((3220, text) for text in ("", "0", "G/0", "0/0 ")),
    *((22, text) for text in (" ", "1  2", "1 ")),
    *((1007, text) for text in ("", "{", "}", "{1", "{1,}", "{,1}", "{1,,2}", "{1}{2}", "{{}}")),
    *(
        (1007, text)
        for text in ("{1,{2}}", "{{1},2}", "{{1},{2,3}}", "{ 1}", "{1}x", "1,2", "{{1}")
    ),
    *(
        (1007, text)
        for text in ("[1:2]={1}", "[1:1]{1}", "{1}2", '{"1}', "{{{{{{{1}}}}}}}", "{1;2")
    ),
    *((1007, text) for text in ('{1"2"}', '{"1"2}', "{{1}{2}}", "[1:1][1:1]={1}", "=")),
    *((3904, text) for text in ("", "[1]", "[1,2", "1,2)", "[1,2)x", "[1,2,3)", "[ 1,2)", "Empty")),
    *((4451, text) for text in ("", "{", "{[1,2)", "{[1,2),}", "{,[1,2)}", "{[1,2)[3,4)}", "{1}")),
]


@pytest.mark.parametrize(("oid", "text"), MALFORMED_TEXT)
def test_malformed_text_is_left_as_it_came(types: Any, oid: int, text: str) -> None:
    value = types.lookup(oid).text(text.encode())
    assert (type(value), value) == (str, text)


def array(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}i", *numbers)


MALFORMED_BINARY = [
    *((16, data) for data in (b"", b"\2", b"\0\0")),
    *((oid, b"\0" * 3) for oid in (20, 21, 23, 26, 700, 701, 790, 1082, 1083, 1114, 1184, 1186)),
    *((oid, b"") for oid in (18, 600, 601, 602, 604, 603, 628, 718, 774, 829, 2950, 3220, 3802)),
    *((oid, b"") for oid in (27, 869, 650, 1266, 1560, 1700, 3614, 3615, 4072, 5038, 5069, 2205)),
    (3802, b"\2{}"),
    (1083, struct.pack(">q", -1)),
    (1083, struct.pack(">q", 86400000001)),
    (1266, struct.pack(">qi", 0, 86400)),
    (1700, bytes.fromhex("0002 0000 0000 0000 0001")),
    (1700, bytes.fromhex("0001 0000 0000 0000 2710")),
    (1700, bytes.fromhex("0000 0000 1234 0000")),
    (1700, bytes.fromhex("0000 0000 0000 4000")),
    (869, bytes.fromhex("02 21 00 04 c0a80105")),
    (869, bytes.fromhex("04 18 00 04 c0a80105")),
    (869, bytes.fromhex("02 18 00 10 c0a80105")),
    (869, bytes.fromhex("02 18 00 04 c0a80105 00")),
    (650, bytes.fromhex("02 08 01 04 0a000001")),
    (1560, bytes.fromhex("ffffffff")),
    (1560, bytes.fromhex("7fffffff a8")),
    (1560, bytes.fromhex("00000005 a8a8")),
    (602, bytes.fromhex("00 7fffffff")),
    (602, bytes.fromhex("02 00000000")),
    (3614, bytes.fromhex("7fffffff")),
    (3614, bytes.fromhex("00000001 616161")),
    (3615, bytes.fromhex("00000001 020200")),
    (3615, bytes.fromhex("00000002 01000061 00 01000061 00")),
    (5038, bytes.fromhex("7fffffff 0000000000000000 0000000000000000")),
    (1007, array(7, 0, 23)),
    (1007, array(-1, 0, 23)),
    (1007, array(1, 2, 23, 0, 1)),
    (1007, array(1, 0, 25, 0, 1)),  # elements of another type
    (1007, array(1, 0, 23, 2**31 - 1, 1)),
    (1007, array(1, 0, 23, -1, 1)),
    (1007, array(6, 0, 23, *[2**31 - 1, 1] * 6)),
    (1007, array(1, 0, 23, 1, 1, -2)),
    (1007, array(1, 0, 23, 1, 1, 3) + b"\0\0\0"),
    (1007, array(1, 0, 23, 1, 1, 4, 5, 6)),
    (3904, b""),
    (3904, b"\x20"),
    (3904, b"\1\0"),
    (3904, b"\2" + array(-1, -1)),
    (4451, array(2**31 - 1)),
    (4451, array(1, -1, 0)),
    (2249, array(-1)),
    (2249, array(2**31 - 1)),
    (2249, array(1, 23, 3) + b"\0\0\0"),
]


@pytest.mark.parametrize(("oid", "data"), MALFORMED_BINARY)
def test_v5_v9_malformed_binary_is_refused(types: Any, oid: int, data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^expected .* got|host bits") as caught:
        types.lookup(oid).binary(data)
    assert type(caught.value) is ValueError


def test_v9_memory_is_for_what_is_there(types: Any) -> None:
    """However much of it is claimed."""
    decode = {oid: types.lookup(oid).binary for oid, _ in MALFORMED_BINARY}
    tracemalloc.start()
    try:
        for oid, data in MALFORMED_BINARY:
            with contextlib.suppress(ValueError):
                decode[oid](data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0 < peak < 1 << 20


@pytest.mark.parametrize("oid", [25, 1082, 1700, 23, 1007, 3904, 4451, 17, 869, 1186, 99999])
def test_text_that_is_not_utf8(types: Any, oid: int) -> None:
    for data in (b"\xff", b'{"\xff"}', b"[\xff,)"):
        with pytest.raises(UnicodeDecodeError):
            types.lookup(oid).text(data)


@pytest.mark.parametrize("outer", [2249, 2287])
def test_v9_nesting_is_bounded(types: Any, outer: int) -> None:
    def nested(depth: int) -> bytes:
        data = array(0)
        for _ in range(depth):
            if outer == 2287:
                data = array(1, 0, 2249, 1, 1, len(data)) + data
            data = array(1, outer, len(data)) + data
        return data

    types.lookup(2249).binary(nested(10))
    with pytest.raises(ValueError, match="inside of each other"):
        types.lookup(2249).binary(nested(20000 if outer == 2249 else 40))


def test_a_long_query_needs_no_stack(types: Any) -> None:
    operand = b"\1\0\0a\0"
    count = 20000
    chain = array(2 * count + 1) + b"\2\2" * count + operand * (count + 1)
    assert types.lookup(3615).binary(chain).count("'a'") == count + 1
    assert types.lookup(3615).binary(array(count + 1) + b"\2\1" * count + operand) == (
        "!" * count + "'a'"
    )


@given(st.sampled_from(ALL_OIDS), st.binary(max_size=60))
def test_any_bytes_as_text(oid: int, data: bytes) -> None:
    for types in both_types():
        try:
            value = types.lookup(oid).text(data)
        except UnicodeDecodeError:
            continue
        assert value is not None


def edited(sample: tuple[int, str, Any], at: float, byte: int, length: int) -> tuple[int, bytes]:
    data = bytearray.fromhex(sample[1])
    if data:
        data[int(at * len(data))] = byte
    return sample[0], bytes(data[:length])


@given(
    st.tuples(st.sampled_from(ALL_OIDS), st.binary(max_size=60))
    | st.builds(
        edited,
        st.sampled_from(BINARY_SAMPLES),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 255),
        st.integers(0, 80),
    )
)
def test_any_bytes_as_binary(sample: tuple[int, bytes]) -> None:
    oid, data = sample
    for types in both_types():
        try:
            value = types.lookup(oid).binary(data)
        except ValueError as error:
            assert str(error)
            continue
        assert value is not None


def both_types() -> list[Any]:
    names = ["pgrepl.codec._pure.values", "pgrepl.codec._native.values"]
    found = [name for name in names if importlib.util.find_spec(name) is not None]
    return [importlib.import_module(name).Types() for name in found]


def test_the_decimal_context_does_not_matter(types: Any) -> None:
    with decimal.localcontext(decimal.Context(prec=3, Emax=5, Emin=-5)):
        assert str(types.lookup(1700).text(b"123456789.000")) == "123456789.000"
        value = types.lookup(1700).binary(bytes.fromhex("0003 0001 0000 0003 0001 0929 1a7c"))
        assert str(value) == "12345.678"


def test_overrides_by_oid_and_name(make_types: Any) -> None:
    types = make_types({"jsonb": json.loads, 23: lambda value: value, "pg_catalog.bool": str})
    assert types.lookup(3802).text(b'{"a": 1}') == {"a": 1}
    assert types.lookup(3802).binary(b'\1{"a": 1}') == {"a": 1}
    assert types.lookup(3807).text(b'{"{\\"a\\": 1}",NULL}') == [{"a": 1}, None]
    assert types.lookup(23).text(b"1") == "1"
    assert types.lookup(23).binary(b"\0\0\0\1") == b"\0\0\0\1"
    assert types.lookup(1007).text(b"{1,2}") == ["1", "2"]
    assert types.lookup(3904).text(b"[1,2)") == Range("1", "2")
    assert types.lookup(16).text(b"t") == "t"
    assert types.lookup(20).text(b"1") == 1


def test_overrides_of_described_types(make_types: Any) -> None:
    types = make_types({"public.mood": str.upper, "mood": str.title, "pair": 2249})
    for oid, schema, name in [
        (16400, "public", "mood"),
        (16401, "other", "mood"),
        (16402, "public", "_mood"),
        (16403, "public", "pair"),
    ]:
        types.describe(oid, schema, name)
    assert types.lookup(16400).text(b"sad") == "SAD"
    assert types.lookup(16401).text(b"sad") == "Sad"
    assert types.lookup(16402).text(b"{sad,NULL}") == ["SAD", None]
    assert types.lookup(16403).binary(array(1, 23, 4, 5)) == (5,)
    assert types.lookup(16403).text(b"(5)") == "(5)"
    assert types.lookup(16403).oid == 16403


@pytest.mark.parametrize(
    ("overrides", "error"),
    [({23: "int"}, TypeError), ({1.5: int}, TypeError), ({"a": 7}, ValueError)],
)
def test_overrides_that_are_none(make_types: Any, overrides: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="^expected .* got"):
        make_types(overrides)


def test_described_types(types: Any) -> None:
    assert types.lookup(16500).text(b"5") == "5"
    types.describe(16500, "pg_catalog", "int4")  # a domain
    types.describe(16501, "public", "hstore")
    types.describe(16502, "public", "_hstore")
    types.describe(16503, "public", "_mood")
    types.describe(16504, "pg_catalog", "_int4")  # a domain over an array
    assert types.lookup(16500).text(b"5") == 5
    assert types.lookup(16500).binary(array(5)) == 5
    assert types.lookup(16501).text(b'"a"=>"1", "b"=>NULL') == {"a": "1", "b": None}
    assert types.lookup(16501).text(b"") == {}
    assert types.lookup(16501).text(b'"a"=>"1",') == '"a"=>"1",'
    assert types.lookup(16501).binary(array(1, 1) + b"a" + array(-1)) == {"a": None}
    assert types.lookup(16502).text(b'{"\\"a\\"=>\\"1, 2\\"",NULL}') == [{"a": "1, 2"}, None]
    assert types.lookup(16503).text(b"{sad,NULL}") == ["sad", None]
    assert types.lookup(16503).binary(array(1, 0, 16777, 1, 1, 1) + b"x") == [b"x"]
    assert types.lookup(16504).text(b"{1,2}") == [1, 2]


def test_a_type_that_was_renamed(types: Any) -> None:
    types.describe(16500, "public", "mood")
    assert types.lookup(16500).name == "mood"
    types.describe(16500, "public", "hstore")
    assert types.lookup(16500).text(b'"a"=>"1"') == {"a": "1"}


def test_an_array_described_before_its_elements(make_types: Any) -> None:
    types = make_types({16600: str.upper})
    types.describe(16601, "public", "_mood")
    assert types.lookup(16601).text(b"{sad}") == ["sad"]
    types.describe(16600, "public", "mood")
    assert types.lookup(16601).text(b"{sad}") == ["SAD"]


def test_names_of_arrays_of_arrays_end(types: Any) -> None:
    for length in range(1, 3000):
        types.describe(20000 + length, "public", "_" * length + "x")
    assert types.lookup(22999).text(b"{a}") == ["a"]
