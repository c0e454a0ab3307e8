"""WAL positions: their text form, and a number that shows itself as one."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgrepl import Lsn, decode_lsn, encode_lsn

POSITIONS = st.integers(0, 2**64 - 1)

KNOWN = {
    0: "0/0",
    1: "0/1",
    0xFFFFFFFF: "0/FFFFFFFF",
    1 << 32: "1/0",
    0x16B3740: "0/16B3740",
    8443003424: "1/F73E0220",
    0x0ABCDEF0_00000012: "ABCDEF0/12",
    2**64 - 1: "FFFFFFFF/FFFFFFFF",
}


@pytest.mark.parametrize(("position", "text"), KNOWN.items(), ids=KNOWN.values())
def test_known_positions_in_both_directions(position: int, text: str) -> None:
    assert encode_lsn(position) == text
    assert decode_lsn(text) == position
    assert type(decode_lsn(text)) is int


@given(POSITIONS)
@example(0xABCDEF)
def test_round_trip(position: int) -> None:
    text = encode_lsn(position)
    high, low = text.split("/")
    assert (f"{int(high, 16):X}", f"{int(low, 16):X}") == (high, low)  # upper case, no zeros ahead
    assert decode_lsn(text) == decode_lsn(text.lower()) == position
    # PostgreSQL 19 pads the second half, and a person may pad both.
    assert decode_lsn(f"{position >> 32:08X}/{position & 0xFFFFFFFF:08X}") == position
    assert str(Lsn(position)) == encode_lsn(Lsn(position)) == text
    assert Lsn(text) == Lsn(position) == position


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "0",
        "0/",
        "/0",
        "0/0/0",
        "0//0",
        " 0/0",
        "0/0 ",
        "0/0\n",
        "0 /0",
        "+1/0",
        "0/-1",
        "0x1/0",
        "1_0/0",
        "G/0",
        "0/123456789",
        "100000000/0",
        "000000001/0",
        "0\\0",
        "1.0/0",
        "\u0661/0",  # a digit, but not one of ASCII's
        "\uff11/0",
        "0/0\0",
    ],
)
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected an LSN such as '1/F73E0220'") as caught:
        decode_lsn(text)
    assert repr(text) in str(caught.value)
    with pytest.raises(ValueError, match="expected an LSN such as"):
        Lsn(text)


@given(st.text(alphabet="0123456789abcdefABCDEFg/ x+-_\n", max_size=20))
def test_decoding_takes_what_the_grammar_says_and_nothing_else(text: str) -> None:
    halves = text.split("/")
    digits = set("0123456789abcdefABCDEF")
    if len(halves) == 2 and all(1 <= len(h) <= 8 and set(h) <= digits for h in halves):
        assert decode_lsn(text) == int(halves[0], 16) * 2**32 + int(halves[1], 16)
    else:
        with pytest.raises(ValueError, match="expected an LSN"):
            decode_lsn(text)


@pytest.mark.parametrize("position", [-1, -(2**64), 2**64, 2**70])
def test_a_number_out_of_range_is_refused(position: int) -> None:
    for make in (encode_lsn, Lsn):
        with pytest.raises(ValueError, match=rf"between 0 and 2\*\*64-1, got {position}"):
            make(position)


@pytest.mark.parametrize("value", [1.5, 1.0, b"0/0", None, [1]])
def test_another_type_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        encode_lsn(value)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected an int or str for an LSN, got "):
        Lsn(value)  # type: ignore[arg-type]


def test_decoding_takes_text_alone() -> None:
    with pytest.raises(TypeError):
        decode_lsn(b"0/0")  # type: ignore[arg-type]


def test_an_lsn_shows_itself_as_text_and_counts_as_a_number() -> None:
    lsn = Lsn("1/F73E0220")
    assert (str(lsn), repr(lsn)) == ("1/F73E0220", "Lsn('1/F73E0220')")
    assert f"{lsn} {lsn!r} {lsn!s}" == "1/F73E0220 Lsn('1/F73E0220') 1/F73E0220"
    assert f"{lsn:d} {lsn:X}" == "8443003424 1F73E0220"
    assert Lsn() == Lsn(0) == 0
    assert Lsn(lsn) == lsn
    assert eval(repr(lsn)) == lsn
    assert not hasattr(lsn, "__dict__")


@given(POSITIONS, st.integers(-(2**32), 2**32))
def test_arithmetic_gives_a_plain_int(position: int, step: int) -> None:
    lsn = Lsn(position)
    for result in (lsn + step, step + lsn, lsn - step, lsn - Lsn(0), lsn >> 1, -lsn, abs(lsn)):
        assert type(result) is int
    assert (lsn + step, lsn - step) == (position + step, position - step)


@given(POSITIONS, POSITIONS)
def test_order_equality_and_hash_are_those_of_the_number(a: int, b: int) -> None:
    assert (Lsn(a) < Lsn(b), Lsn(a) == Lsn(b)) == (a < b, a == b)
    assert (Lsn(a) < b, Lsn(a) == b) == (a < b, a == b)
    assert hash(Lsn(a)) == hash(a)
    found: dict[int, int] = {Lsn(a): 1}
    assert found[a] == 1


@given(POSITIONS)
def test_copies_and_pickles_stay_what_they_are(position: int) -> None:
    lsn = Lsn(position)
    pickles = [
        pickle.loads(pickle.dumps(lsn, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ]
    for twin in (*pickles, copy.copy(lsn), copy.deepcopy(lsn)):
        assert (type(twin), twin) == (Lsn, lsn)
