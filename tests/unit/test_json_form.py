"""Rows and changes as JSON: the same text of both twins, and nothing lost."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any
from uuid import UUID

import pytest

from pgrepl.cli.stream.formats import JsonFormat
from pgrepl.errors import DecodeError
from pgrepl.json_form import json_line, json_value
from pgrepl.lsn import Lsn
from pgrepl.messages import (
    UNCHANGED,
    Column,
    Delete,
    Insert,
    Message,
    Relation,
    Truncate,
    Update,
)
from pgrepl.values import Array, Interval, Multirange, Range, composite_class
from tests.support.pgoutput_encoder import encode

COMPOSITE: Any = composite_class("t", ("a b", "class"))


ITEM = Relation(
    1,
    "public",
    "item",
    "d",
    (
        Column("id", 20, -1, True),
        Column("price", 1700, -1, False),
        Column("note", 25, -1, False),
        Column("tags", 1009, -1, False),
    ),
)
LSN = Lsn("1/2")


class Mood(Enum):
    SAD = "sad"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (2**53 - 1, "9007199254740991"),
        (2**53, '"9007199254740992"'),
        (-(2**63), '"-9223372036854775808"'),
        (Lsn("1/2"), '"1/2"'),
        (0.1, "0.1"),
        (-0.0, "-0.0"),
        (float("nan"), '"NaN"'),
        (float("-inf"), '"-Infinity"'),
        (Decimal("1.50"), '"1.50"'),
        (Decimal("1E-8"), '"0.00000001"'),
        (Decimal("NaN"), '"NaN"'),
        ("é\n", '"é\\n"'),
        ("\x1b\u2028\u202e\x7f", r'"\u001b\u2028\u202e\u007f"'),
        (b"\0\xff", r'"\\x00ff"'),
        (date(44, 3, 15), '"0044-03-15"'),
        (time(1, 2, 3, 500000), '"01:02:03.500000"'),
        (datetime(2024, 5, 1, 12, tzinfo=UTC), '"2024-05-01T12:00:00+00:00"'),
        (datetime(2024, 5, 1, 12), '"2024-05-01T12:00:00"'),
        (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (Interval(1, 2, 3), '"1 mon 2 days 00:00:00.000003"'),
        (ip_interface("10.0.0.1/8"), '"10.0.0.1/8"'),
        (ip_address("::1"), '"::1"'),
        (ip_network("10.0.0.0/8"), '"10.0.0.0/8"'),
        (Array([1, None, [Decimal("2.0")]]), '[1, null, ["2.0"]]'),
        (Array(), "[]"),
        (Array([1, 2], (0,)), '"[0:1]={1,2}"'),
        (Array([1, 2], (0,), " "), '"1 2"'),
        (Range(1, 5), '"[1,5)"'),
        (Multirange([Range(1, 5)]), '"{[1,5)}"'),
        (Multirange(), '"{}"'),
        ((1, "a", None), '[1, "a", null]'),
        (COMPOSITE(Decimal(1), None), '{"a b": "1", "class": null}'),
        ({"k": None, "l": "v"}, '{"k": null, "l": "v"}'),
        ({"a": [1, {"b": 2**60}]}, '{"a": [1, {"b": "1152921504606846976"}]}'),
    ],
)
def test_values(value: Any, text: str) -> None:
    assert json_line(json_value(value)) == text
    json.loads(text)


def test_values_of_other_classes_need_a_default() -> None:
    with pytest.raises(TypeError, match="or `default`, which makes one of others, got Mood"):
        json_value(Mood.SAD)
    assert json_value([Mood.SAD], lambda mood: mood.value) == ["sad"]
    with pytest.raises(TypeError, match="got Mood"):
        json_value(Mood.SAD, lambda mood: mood)


def decoded(codec: Any, change: Any, **options: Any) -> Any:
    decoder = codec.Decoder(**options)
    for relation in change.relations if isinstance(change, Truncate) else (change.relation,):
        decoder.feed(encode(relation))
    return decoder.feed(encode(change), lsn=LSN)


def test_changes(codec: Any) -> None:
    row = codec.Row(ITEM, (str(2**60), "1.50", UNCHANGED, None))
    key = codec.Row(ITEM, ("7",), key_only=True)
    head = '"xid": null, "lsn": "1/2", "schema": "public", "table": "item"'
    new = '"new": {"id": "1152921504606846976", "price": "1.50", "tags": null}'
    assert decoded(codec, Insert(ITEM, row)).to_json() == (
        f'{{"kind": "insert", {head}, {new}, "unchanged": ["note"]}}'
    )
    update = decoded(codec, Update(ITEM, key, None, row))
    assert update.to_json() == (
        f'{{"kind": "update", {head}, "key": {{"id": 7}}, "old": null, {new}, '
        '"unchanged": ["note"]}'
    )
    assert update.new.to_json() == f"{{{new[8:-1]}}}"
    assert decoded(codec, Delete(ITEM, key, None)).to_json() == (
        f'{{"kind": "delete", {head}, "key": {{"id": 7}}, "old": null}}'
    )
    assert decoded(codec, Truncate((ITEM,), True, False)).to_json() == (
        '{"kind": "truncate", "xid": null, "lsn": "1/2", "tables": [{"schema": "public", '
        '"table": "item"}], "cascade": true, "restart_identity": false}'
    )
    assert json.loads(Message(True, LSN, "p", b"\xff", 7).to_json()) == {
        "kind": "message",
        "xid": 7,
        "lsn": "1/2",
        "transactional": True,
        "prefix": "p",
        "content": {"hex": "ff"},
        "text": None,
    }
    assert json.loads(Insert(ITEM, row).to_json())["lsn"] is None


def test_the_program_has_the_same_keys(codec: Any) -> None:
    row = codec.Row(ITEM, ("1", "1.50", UNCHANGED, "{a}"))
    key = codec.Row(ITEM, ("7",), key_only=True)
    for change in (
        Insert(ITEM, row),
        Update(ITEM, key, None, row),
        Update(ITEM, None, row, row),
        Delete(ITEM, key, None),
        Truncate((ITEM,), False, True),
        Message(False, LSN, "p", b"x"),
    ):
        line = json.loads(JsonFormat().line(change, LSN))
        typed = json.loads(change.to_json())
        assert [*typed] == [*line]
        if isinstance(change, Truncate | Message):
            assert {**typed, "lsn": None} == {**line, "lsn": None}


def test_what_rules_make(codec: Any) -> None:
    insert = Insert(ITEM, codec.Row(ITEM, ("1", None, "sad", None)))
    change = decoded(codec, insert, types={"text": Mood})
    with pytest.raises(TypeError, match="got Mood"):
        change.to_json()
    assert json.loads(change.to_json(default=lambda mood: mood.name))["new"]["note"] == "SAD"
    bad = decoded(codec, insert, types={"text": int})
    with pytest.raises(DecodeError, match='"note" of public.item'):
        bad.new.to_json()
