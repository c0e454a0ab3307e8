"""What a command asks a database, and answers that are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

import pgrepl
from pgrepl.cli.connections import ask, ask_one
from pgrepl.protocol.sql import Record


class FakeServer:
    """Answers a query with rows of JSON."""

    def __init__(self, *rows: object) -> None:
        self.rows: list[tuple[str | None, ...]] = [
            (each if each is None else str(each),) for each in rows
        ]
        self.asked: list[str] = []

    def query(self, sql: str) -> list[pgrepl.Result]:
        self.asked.append(sql)
        return [pgrepl.Result(("row_to_json",), self.rows, "SELECT")]


def test_ask() -> None:
    row = {"name": "a", "count": 3, "flag": False, "wal": "1/A", "gone": None, "list": ["x", "y"]}
    server: Any = FakeServer(json.dumps(row))
    [record] = ask(server, "SELECT ...")
    assert server.asked == ["SELECT pg_catalog.row_to_json(answer) FROM (SELECT ...) AS answer"]
    assert record.get("name", str) == "a"
    assert record.get("count", int) == 3
    assert record.get("flag", bool) is False
    assert record.lsn("wal") == pgrepl.Lsn("1/A")
    assert record.texts("list") == ("x", "y")
    assert record.find("gone", str) is None
    assert record.lsn("gone") is None
    assert record.texts("gone") == ()


@pytest.mark.parametrize("rows", [[], ["{}", "{}"]])
def test_ask_one_wants_one(rows: list[str]) -> None:
    server: Any = FakeServer(*rows)
    with pytest.raises(pgrepl.ProtocolError, match=f"expected one row .* got {len(rows)}"):
        ask_one(server, "SELECT 1")


@pytest.mark.parametrize(
    "row", [None, "", "1", "[1]", "{", '{"a": ' + "[" * 100_000, '{"a": ' + "9" * 5000 + "}"]
)
def test_answers_that_are_no_objects(row: str | None) -> None:
    server: Any = FakeServer(row)
    with pytest.raises(pgrepl.ProtocolError, match="expected one JSON object for each row"):
        ask(server, "SELECT 1")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("gone", "get text"),
        ("number", "get text"),
        ("flag", "get number"),
        ("number", "get flag"),
        ("mixed", "texts"),
        ("number", "texts"),
        ("text", "lsn"),
        ("number", "lsn"),
    ],
)
def test_values_of_another_kind(name: str, kind: str) -> None:
    record = Record({"gone": None, "number": 1, "flag": True, "mixed": ["a", 1], "text": "x\x1b"})
    read: dict[str, Callable[[str], object]] = {
        "get text": lambda name: record.get(name, str),
        "get number": lambda name: record.get(name, int),
        "get flag": lambda name: record.get(name, bool),
        "texts": record.texts,
        "lsn": record.lsn,
    }
    with pytest.raises(pgrepl.ProtocolError, match="^expected ") as caught:
        read[kind](name)
    assert str(caught.value).isprintable()
