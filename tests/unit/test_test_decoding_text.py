"""test_decoding's text is read to its last character: lines as servers wrote them, broken ones, and
rows made here by the rules that SQL has for quoting."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgrepl.messages import UNCHANGED, Unchanged
from tests.support.test_decoding_text import (
    Begin,
    Commit,
    Datum,
    Event,
    Message,
    RowChange,
    Truncate,
    parse,
)

ITEM = ("public", "item")
ID = Datum("id", "integer", "1")


@pytest.mark.parametrize(
    ("line", "event"),
    [
        ("BEGIN", Begin(None)),
        ("BEGIN 746", Begin(746)),
        ("COMMIT", Commit(None, None)),
        (
            "COMMIT 750 (at 2026-11-22 11:48:44.28064+00)",
            Commit(750, datetime(2026, 11, 22, 11, 48, 44, 280640, UTC)),
        ),
        (
            "COMMIT 7 (at 2020-02-02 07:32:02+05:30)",
            Commit(7, datetime(2020, 2, 2, 2, 2, 2, 0, UTC)),
        ),
        (
            "table public.item: INSERT: id[integer]:1 note[text]:null",
            RowChange("INSERT", ITEM, None, (ID, Datum("note", "text", None))),
        ),
        (
            "table public.item: UPDATE: id[integer]:1 note[text]:unchanged-toast-datum",
            RowChange("UPDATE", ITEM, None, (ID, Datum("note", "text", UNCHANGED))),
        ),
        (
            "table public.item: UPDATE: old-key: id[integer]:1 new-tuple: id[integer]:-2",
            RowChange("UPDATE", ITEM, (ID,), (Datum("id", "integer", "-2"),)),
        ),
        # Of an old row all of which is NULL nothing is said.
        (
            "table public.item: UPDATE: old-key: new-tuple: id[integer]:1",
            RowChange("UPDATE", ITEM, (), (ID,)),
        ),
        ("table public.item: UPDATE: (no-tuple-data)", RowChange("UPDATE", ITEM, None, None)),
        ("table public.item: INSERT: (no-tuple-data)", RowChange("INSERT", ITEM, None, None)),
        ("table public.item: DELETE: (no-tuple-data)", RowChange("DELETE", ITEM, None, None)),
        ("table public.item: DELETE: id[integer]:1", RowChange("DELETE", ITEM, (ID,), None)),
        ("table public.none: INSERT:", RowChange("INSERT", ("public", "none"), None, ())),
        ("table public.item: TRUNCATE: (no-flags)", Truncate((ITEM,), False, False)),
        ("table public.item: TRUNCATE: cascade", Truncate((ITEM,), False, True)),
        (
            'table public.item, "s, T"."a: ""b": TRUNCATE: restart_seqs cascade',
            Truncate((ITEM, ("s, T", 'a: "b')), True, True),
        ),
        ("message: transactional: 0 prefix: p, sz: 1 content:m", Message(False, "p", b"m")),
        ("message: transactional: 1 prefix: , sz: 0 content:", Message(True, "", b"")),
        (
            "message: transactional: 0 prefix: pre, sz: 3 content:, sz: 1 content:x",
            Message(False, "pre, sz: 3 content:", b"x"),
        ),
        ("message: transactional: 0 prefix: ä, sz: 2 content:ä", Message(False, "ä", "ä".encode())),
    ],
)
def test_lines(line: str, event: Event) -> None:
    assert parse(line.encode()) == event


@pytest.mark.parametrize(
    ("column", "datum"),
    [
        ("a[boolean]:true", Datum("a", "boolean", "t")),
        ("a[boolean]:false", Datum("a", "boolean", "f")),
        # A domain is quoted whatever it is over.
        ("a[yes]:'f'", Datum("a", "yes", "f")),
        ("a[text]:'null'", Datum("a", "text", "null")),
        ("a[text]:'true'", Datum("a", "text", "true")),
        ("a[text]:''", Datum("a", "text", "")),
        ("a[text]:' b[text]:''x'' \n\\'", Datum("a", "text", " b[text]:'x' \n\\")),
        ("a[text]:'unchanged-toast-datum'", Datum("a", "text", "unchanged-toast-datum")),
        ("a[bit]:B'10101'", Datum("a", "bit", "10101")),
        ("a[bit varying]:B''", Datum("a", "bit varying", "")),
        ("a[double precision]:1e-300", Datum("a", "double precision", "1e-300")),
        ("a[numeric]:NaN", Datum("a", "numeric", "NaN")),
        ("a[real]:-Infinity", Datum("a", "real", "-Infinity")),
        ("a[integer[]]:'{1,2}'", Datum("a", "integer[]", "{1,2}")),
        ("a[\"char\"]:'c'", Datum("a", '"char"', "c")),
        ('"Col]"["s T"."Weird] type"[]]:\'{}\'', Datum("Col]", '"s T"."Weird] type"[]', "{}")),
        ("\"new-tuple\"[text]:'x'", Datum("new-tuple", "text", "x")),
        ('"a""b\n"[text]:\'x\'', Datum('a"b\n', "text", "x")),
    ],
)
def test_columns(column: str, datum: Datum) -> None:
    line = f"table public.item: UPDATE: old-key: {column} new-tuple: {column} id[integer]:1"
    assert parse(line.encode()) == RowChange("UPDATE", ITEM, (datum,), (datum, ID))


@pytest.mark.parametrize(
    "line",
    [
        "",
        "BEGIN 7 ",
        "COMMIT x",
        "PREPARE TRANSACTION 'g', txid 7",
        "opening a streamed block for transaction TXN 7",
        "table public.item: MERGE: id[integer]:1",
        "table public.item: INSERT: id[integer]:1 ",
        "table public.item: INSERT: id[integer]:",
        "table public.item: INSERT: id[integer]:1 (no-tuple-data)",
        "table public.item: INSERT: id[text]:'it's'",
        "table public.item: INSERT: id[text]:'open",
        "table public.item: INSERT: id[text]:'x'y[text]:'x'",
        "table public.item: INSERT: Id[integer]:1",
        "table public.item: INSERT: id[integer]:1\nnote[text]:'x'",
        "table public.item: INSERT: old-key: id[integer]:1 new-tuple: id[integer]:1",
        "table public.item: UPDATE: old-key: id[integer]:1",
        "table public.item: DELETE: id[integer]:1 new-tuple: id[integer]:1",
        "table public.item, public.other: INSERT: id[integer]:1",
        "table public.item: TRUNCATE:",
        "table public.item: TRUNCATE: cascade restart_seqs",
        "message: transactional: 1 prefix: p, sz: 2 content:m",
        "message: transactional: 2 prefix: p, sz: 1 content:m",
        # Both places fit, and nothing tells which is meant.
        "message: transactional: 1 prefix: , sz: 16 content:, sz: 0 content:",
    ],
)
def test_refused(line: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse(line.encode())


_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
_VALUES = st.none() | st.just(UNCHANGED) | st.text(st.characters(codec="utf-8"))
_ROWS = st.lists(st.tuples(_NAMES, _NAMES, _VALUES), max_size=5)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _written(row: list[tuple[str, str, str | Unchanged | None]]) -> str:
    bare = {None: "null", UNCHANGED: "unchanged-toast-datum"}
    return "".join(
        f" {_quoted(name)}[{_quoted(kind)}]:"
        + ("'" + value.replace("'", "''") + "'" if isinstance(value, str) else bare[value])
        for name, kind, value in row
    )


@given(table=st.tuples(_NAMES, _NAMES), old=_ROWS, new=_ROWS)
@example(table=("a", "b"), old=[("x", "y", "' new-tuple: ")], new=[])
def test_any_update(
    table: tuple[str, str],
    old: list[tuple[str, str, str | Unchanged | None]],
    new: list[tuple[str, str, str | Unchanged | None]],
) -> None:
    name = f"{_quoted(table[0])}.{_quoted(table[1])}"
    line = f"table {name}: UPDATE: old-key:{_written(old)} new-tuple:{_written(new)}"
    change = parse(line.encode())
    assert isinstance(change, RowChange)
    assert change.table == table
    for row, found in ((old, change.old), (new, change.new)):
        assert found == tuple((name, _quoted(kind), value) for name, kind, value in row)


@given(prefix=_NAMES, content=st.binary())
def test_any_message(prefix: str, content: bytes) -> None:
    line = f"message: transactional: 1 prefix: {prefix}, sz: {len(content)} content:".encode()
    assert parse(line + content) == Message(True, prefix, content)
