"""Interval, Range, Array and composites by themselves: what they hold, show, and refuse."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest

from pgrepl.lsn import Lsn
from pgrepl.values import Array, Interval, Multirange, Range, composite_class, text_of

INTERVALS = {
    "1 year 2 mons 3 days 04:05:06.789": Interval(14, 3, 14706789000),
    "-1 years -2 mons +3 days": Interval(-14, 3, 0),
    "-1 days +00:00:00.5": Interval(0, -1, 500000),
    "1 mon -1 days": Interval(1, -1, 0),
    "-00:00:01": Interval(0, 0, -1000000),
    "00:00:00": Interval(),
    "-2562047788:00:54.775808": Interval(0, 0, -(2**63)),
}


@pytest.mark.parametrize("text", INTERVALS)
def test_interval_text(text: str) -> None:
    assert str(INTERVALS[text]) == text


def test_interval() -> None:
    interval = Interval(0, 2, 3)
    assert interval.timedelta() == timedelta(days=2, microseconds=3)
    assert Interval(days=1) != Interval(microseconds=86_400_000_000)
    assert pickle.loads(pickle.dumps(interval)) == interval == copy.copy(interval)
    with pytest.raises(ValueError, match="without months, got '1 mon'"):
        Interval(1).timedelta()
    with pytest.raises(ValueError, match="expected days between"):
        Interval(days=2**31)
    with pytest.raises(TypeError):
        interval < interval  # noqa: B015


def test_range() -> None:
    assert Range(1, 5).bounds == "[)"
    assert (Range(1, 5).lower_inc, Range(1, 5).upper_inc) == (True, False)
    assert Range(None, None, "[]").bounds == "()"
    assert Range(empty=True, bounds="[]") == Range(empty=True) != Range()
    assert hash(Range(1, 5)) == hash(Range(1, 5, "[)"))
    assert repr(Range(1, 5, "(]")) == "Range(1, 5, '(]')"
    assert eval(repr(Range(empty=True))) == Range(empty=True)
    with pytest.raises(ValueError, match=r"expected bounds .* got '\[\['"):
        Range(1, 5, "[[")
    with pytest.raises(ValueError, match="expected no lower"):
        Range(1, 5, empty=True)
    with pytest.raises(AttributeError):
        Range(1, 5).lower = 2  # type: ignore[misc]


def test_array() -> None:
    shifted = Array([5, 6], (2,))
    assert shifted == [5, 6]
    assert isinstance(shifted, list)
    assert repr(shifted) == "Array([5, 6], lower_bounds=(2,))"
    assert repr(Array([5])) == "Array([5])"
    assert (Array().lower_bounds, Array([1]).lower_bounds) == ((), (1,))
    for same in (pickle.loads(pickle.dumps(shifted)), copy.copy(shifted), copy.deepcopy(shifted)):
        assert (same, same.lower_bounds, type(same)) == ([5, 6], (2,), Array)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Array([1, None, "null", "", "a b", "{", 'q"\\']), r'{1,NULL,"null","","a b","{","q\"\\"}'),
        (Array([[1, 2], [3, 4]], (1, 0)), "[1:2][0:1]={{1,2},{3,4}}"),
        (Array([5], (-2,)), "[-2:-2]={5}"),
        (Array(), "{}"),
        (Array([Array(["sad"]), None]), '{"{sad}",NULL}'),
        (Array(["(1,2)", "(3,4)"], None, ";"), "{(1,2);(3,4)}"),
        (Array([1, 2], (0,), " "), "1 2"),
        (Range(1, 5, "(]"), "(1,5]"),
        (Range("", 'a"b\\,'), r'["","a""b\\,")'),
        (Range(), "(,)"),
        (Range(empty=True), "empty"),
        (Range(date(2000, 1, 2), None), "[2000-01-02,)"),
        (Multirange([Range(1, 2), Range(Decimal("3.50"), None)]), "{[1,2),[3.50,)}"),
        (Multirange(), "{}"),
        (
            Array([True, 1.5, 1e15, Decimal("1E-8"), Lsn("1/A"), b"\0"]),
            r'{t,1.5,1e+15,0.00000001,1/A,"\\x00"}',
        ),
        (
            Array([(1, None, "a b", ""), {"k": None, 'q"': "v"}]),
            r'{"(1,,\"a b\",\"\")","\"k\"=>NULL, \"q\\\"\"=>\"v\""}',
        ),
        (
            Range(datetime(44, 3, 15, 1, 2, 3, 500000, UTC), time(1)),
            '["0044-03-15 01:02:03.5+00",01:00:00)',
        ),
    ],
)
def test_text(value: Any, text: str) -> None:
    assert str(value) == text_of(value) == text


def test_multirange() -> None:
    multirange = Multirange([Range(1, 2)])
    assert multirange == (Range(1, 2),)
    assert hash(multirange) == hash((Range(1, 2),))
    assert repr(multirange) == "Multirange((Range(1, 2, '[)'),))"
    for same in (pickle.loads(pickle.dumps(multirange)), copy.deepcopy(multirange)):
        assert (same, type(same)) == (multirange, Multirange)


@pytest.mark.parametrize(
    ("names", "fields"),
    [
        (("a", "a", "_b", "1c", "d e", "", "def"), ("a", "_1", "_2", "_3", "_4", "_5", "_6")),
        (("größe", "\ufb01", "fi", "\uff3fcls", "_cls"), ("größe", "_1", "fi", "_3", "_4")),
        (("x): pass #", "\udcff", "a\0b", "_tuple_new"), ("_0", "_1", "_2", "_3")),
        (("count", "index", "self", "cls", "reduce"), ("count", "index", "self", "cls", "reduce")),
        (("_1", "b", "_0"), ("_0", "b", "_2")),
    ],
)
def test_v16_names_that_are_no_attributes(names: tuple[str, ...], fields: tuple[str, ...]) -> None:
    made: Any = composite_class("t", names)
    assert made._fields == fields
    assert made(*range(len(names))) == tuple(range(len(names)))
    assert pickle.loads(pickle.dumps(made(*names))) == names


@pytest.mark.parametrize("name", ["class", "a b", "", "\ufb01", "\udcff", "x\0", "'); f('"])
def test_v16_composites_whose_name_is_none(name: str) -> None:
    made = composite_class(name, ("a",))
    assert made.__name__ == "composite"
    assert pickle.loads(pickle.dumps(made([1]))) == ([1],)
