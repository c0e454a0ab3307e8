"""Lines of text and of JSON: for every message, and whatever a server puts into it."""

from __future__ import annotations

import ast
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pgrepl
from pgrepl.cli.stream import formats
from pgrepl.cli.stream.formats import JsonFormat, TextFormat
from pgrepl.codec import Row
from pgrepl.messages import (
    UNCHANGED,
    Begin,
    BeginPrepare,
    Column,
    Commit,
    CommitPrepared,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Origin,
    Prepare,
    Relation,
    RollbackPrepared,
    StreamAbort,
    StreamCommit,
    StreamPrepare,
    StreamStart,
    StreamStop,
    Truncate,
    Type,
    Update,
)
from tests.support.pgoutput_encoder import encode

TIME = 848653377652022  # 2026-11-22, in microseconds since 2000
SHOWN_TIME = "2026-11-22T09:02:57.652022Z"
T = Relation(
    16389,
    "public",
    "t",
    "d",
    (
        Column("id", 23, -1, True),
        Column("v", 25, -1, False),
        Column("on", 16, -1, False),
        Column("n", 1700, -1, False),
    ),
)
ODD = Relation(
    7, 'Sch"ema', "two words", "f", (Column("é", 25, -1, True), Column("B", 25, -1, True))
)
KEY = Row(T, ("2",), key_only=True)
BEGIN = Begin(pgrepl.Lsn("0/1506428"), TIME, 742)
COMMIT = Commit(pgrepl.Lsn("0/1506428"), pgrepl.Lsn("0/1506598"), TIME)


PREPARED = (pgrepl.Lsn("0/10"), pgrepl.Lsn("0/20"), TIME, 742, "g'1")


def insert(number: int, value: str | None = "a") -> Insert:
    return Insert(T, Row(T, (str(number), value, "t", "1.50")))


# Lines of text


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (BEGIN, f"BEGIN 742 at 0/1506428 {SHOWN_TIME}"),
        (COMMIT, "COMMIT 0 0/1506598"),
        (insert(1), "INSERT public.t id=1 v='a' on=true n=1.50"),
        (insert(1, None), "INSERT public.t id=1 v=NULL on=true n=1.50"),
        (
            Insert(T, Row(T, ("1; x", "it's \\", "maybe", "NaN"))),
            r"INSERT public.t id='1; x' v='it''s \\' on='maybe' n=NaN",
        ),
        (
            Insert(T, Row(T, (b"\0\0\0\x01", b"", "f", "-Infinity"))),
            r"INSERT public.t id='\x00000001' v='\x' on=false n=-Infinity",
        ),
        (
            Update(T, KEY, None, Row(T, ("3", UNCHANGED, None, "0"))),
            "UPDATE public.t key(id=2) id=3 v=UNCHANGED on=NULL n=0",
        ),
        (
            Update(ODD, None, Row(ODD, ("1", None)), Row(ODD, ("1", "x"))),
            'UPDATE "Sch""ema"."two words" old(é=\'1\' "B"=NULL) é=\'1\' "B"=\'x\'',
        ),
        (Update(T, None, None, insert(1).new), "UPDATE public.t id=1 v='a' on=true n=1.50"),
        (Delete(T, KEY, None), "DELETE public.t key(id=2)"),
        (Delete(T, None, insert(1).new), "DELETE public.t old(id=1 v='a' on=true n=1.50)"),
        (Truncate((T, ODD), False, False), 'TRUNCATE public.t, "Sch""ema"."two words"'),
        (Truncate((T,), True, False), "TRUNCATE public.t CASCADE"),
        (Truncate((T,), True, True), "TRUNCATE public.t RESTART IDENTITY CASCADE"),
        (Message(True, pgrepl.Lsn(16), "p'", b"it's"), "MESSAGE at 0/10 'p''' 'it''s'"),
        (
            Message(False, pgrepl.Lsn(16), "p", b"\xff\0"),
            r"MESSAGE not transactional at 0/10 'p' '\xff00'",
        ),
        (Origin(pgrepl.Lsn(16), "north"), "ORIGIN 'north' at 0/10"),
        (T, None),
        (Type(1, "public", "mood"), None),
        (StreamStart(742, True), "STREAM START 742 first"),
        (StreamStart(742, False), "STREAM START 742"),
        (StreamStop(), "STREAM STOP"),
        (
            StreamCommit(742, pgrepl.Lsn("0/10"), pgrepl.Lsn("0/20"), TIME),
            f"STREAM COMMIT 742 0/20 {SHOWN_TIME}",
        ),
        (StreamAbort(742, 742), "STREAM ABORT 742"),
        (StreamAbort(742, 743, pgrepl.Lsn(1), TIME), "STREAM ABORT 742 of 743"),
        (Insert(T, insert(1).new, 743), "INSERT public.t id=1 v='a' on=true n=1.50 [743]"),
        (Delete(T, KEY, None, 743), "DELETE public.t key(id=2) [743]"),
        (BeginPrepare(*PREPARED), f"BEGIN PREPARE 742 'g''1' at 0/10 {SHOWN_TIME}"),
        (Prepare(*PREPARED), "PREPARE 742 'g''1' 0/20"),
        (StreamPrepare(*PREPARED), f"STREAM PREPARE 742 'g''1' 0/20 {SHOWN_TIME}"),
        (CommitPrepared(*PREPARED), f"COMMIT PREPARED 742 'g''1' 0/20 {SHOWN_TIME}"),
        (
            RollbackPrepared(pgrepl.Lsn("0/20"), pgrepl.Lsn("0/30"), TIME, TIME, 742, "g"),
            f"ROLLBACK PREPARED 742 'g' 0/30 {SHOWN_TIME}",
        ),
    ],
)
def test_text_line(message: LogicalMessage, line: str | None) -> None:
    assert TextFormat().line(message, 0) == line


def test_text_commit_names_its_transaction() -> None:
    form = TextFormat()
    form.line(BEGIN, 0)
    assert form.line(COMMIT, 0) == "COMMIT 742 0/1506598"


def test_times_that_python_does_not_have() -> None:
    line = TextFormat().line(Begin(pgrepl.Lsn(0), 2**63 - 1, 1), 0)
    assert line == "BEGIN 1 at 0/0 2000-01-01T00:00:00Z+9223372036854775807us"
    assert "+9223372036854775807us" in JsonFormat().line(
        Commit(pgrepl.Lsn(0), pgrepl.Lsn(0), 2**63 - 1), 0
    )


def test_long_values_cut() -> None:
    cut = TextFormat(longest_value=3)
    row = Row(T, ("12345", "a'bcd", "t", None))
    assert cut.line(Insert(T, row), 0) == "INSERT public.t id=123… v='a''b…' on=true n=NULL"


# What a terminal would obey: colours, a title, a bell, a return to the line's start, C1 controls,
# another direction of text, a line separator, a character outside the first plane.
HOSTILE = "\x1b[31m\x1b]0;t\x07\r\n\t\0\x7f\x9b2J\u202e\u2028\U000e0001\u200b"


def test_hostile_text_escaped() -> None:
    relation = Relation(1, HOSTILE, HOSTILE, "d", (Column(HOSTILE, 23, -1, True),))
    row = Row(relation, (HOSTILE,))
    escaped = r"\x1b[31m\x1b]0;t\x07\r\n\t\x00\x7f\u009b2J\u202e\u2028\U000e0001\u200b"
    line = TextFormat().line(Insert(relation, row), 0)
    assert line == f'INSERT "{escaped}"."{escaped}" "{escaped}"=\'{escaped}\''
    message = Message(True, pgrepl.Lsn(0), HOSTILE, HOSTILE.encode())
    assert TextFormat().line(message, 0) == f"MESSAGE at 0/0 '{escaped}' '{escaped}'"


text = st.text(st.characters(codec="utf-8"))


@given(text)
def test_text_loses_nothing(value: str) -> None:
    line = TextFormat().line(Insert(T, Row(T, ("1", value, None, None))), 0)
    assert line is not None
    assert line.isprintable()
    literal = line.removeprefix("INSERT public.t id=1 v='").removesuffix("' on=NULL n=NULL")
    # Python's escapes are those of E'...' but for the quote.
    unquoted = literal.replace("''", "'").replace('"', r"\"")
    assert ast.literal_eval(f'"{unquoted}"') == value


# Lines of JSON


def members(message: LogicalMessage, lsn: int = 16) -> dict[str, Any]:
    line = JsonFormat().line(message, lsn)
    assert "\n" not in line
    loaded: dict[str, Any] = json.loads(line)
    return loaded


ROW = {"id": "1", "v": "a", "on": "t", "n": "1.50"}
PLACE = {"xid": None, "lsn": "0/10", "schema": "public", "table": "t"}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            BEGIN,
            {
                "kind": "begin",
                "xid": 742,
                "final_lsn": "0/1506428",
                "commit_time": SHOWN_TIME,
            },
        ),
        (
            COMMIT,
            {
                "kind": "commit",
                "xid": None,
                "commit_lsn": "0/1506428",
                "end_lsn": "0/1506598",
                "commit_time": SHOWN_TIME,
            },
        ),
        (insert(1), {"kind": "insert", **PLACE, "new": ROW, "unchanged": []}),
        (
            Update(T, KEY, None, Row(T, ("3", UNCHANGED, None, b"\xff"))),
            {
                "kind": "update",
                **PLACE,
                "key": {"id": "2"},
                "old": None,
                "new": {"id": "3", "on": None, "n": {"hex": "ff"}},
                "unchanged": ["v"],
            },
        ),
        (Delete(T, None, insert(1).new), {"kind": "delete", **PLACE, "key": None, "old": ROW}),
        (
            Truncate((T, ODD), True, False),
            {
                "kind": "truncate",
                "xid": None,
                "lsn": "0/10",
                "tables": [
                    {"schema": "public", "table": "t"},
                    {"schema": 'Sch"ema', "table": "two words"},
                ],
                "cascade": True,
                "restart_identity": False,
            },
        ),
        (
            Message(True, pgrepl.Lsn(32), "p", b"x\0"),
            {
                "kind": "message",
                "xid": None,
                "lsn": "0/20",
                "transactional": True,
                "prefix": "p",
                "content": {"hex": "7800"},
                "text": "x\0",
            },
        ),
        (
            Message(False, pgrepl.Lsn(32), "p", b"\xff"),
            {
                "kind": "message",
                "xid": None,
                "lsn": "0/20",
                "transactional": False,
                "prefix": "p",
                "content": {"hex": "ff"},
                "text": None,
            },
        ),
        (
            Origin(pgrepl.Lsn(32), "north"),
            {"kind": "origin", "xid": None, "commit_lsn": "0/20", "name": "north"},
        ),
        (
            Relation(1, "s", "r", "i", (Column("id", 23, -1, True),)),
            {
                "kind": "relation",
                "oid": 1,
                "schema": "s",
                "table": "r",
                "replica_identity": "i",
                "columns": [{"name": "id", "type_oid": 23, "type_modifier": -1, "is_key": True}],
            },
        ),
        (
            Type(1, "public", "mood"),
            {"kind": "type", "oid": 1, "schema": "public", "name": "mood"},
        ),
    ],
)
def test_json_line(message: LogicalMessage, expected: dict[str, Any]) -> None:
    assert members(message) == expected


def test_json_names_the_transaction() -> None:
    form = JsonFormat()
    lines = [form.line(message, 0) for message in (BEGIN, insert(1), COMMIT, insert(1))]
    assert [json.loads(line)["xid"] for line in lines] == [742, 742, 742, None]


@given(text)
def test_json_loses_nothing_and_prints(value: str) -> None:
    line = JsonFormat().line(Insert(T, Row(T, ("1", value, None, None))), 0)
    assert line.isprintable()
    assert json.loads(line)["new"]["v"] == value


def test_json_keeps_letters_readable() -> None:
    assert '"zażółć \\u001b"' in JsonFormat().line(insert(1, "zażółć \x1b"), 0)


@pytest.mark.parametrize(
    ("message", "members"),
    [
        (StreamStart(742, True), {"kind": "stream_start", "xid": 742, "first_segment": True}),
        (StreamStop(), {"kind": "stream_stop", "xid": None}),
        (
            StreamCommit(742, pgrepl.Lsn("0/10"), pgrepl.Lsn("0/20"), TIME),
            {
                "kind": "stream_commit",
                "xid": 742,
                "commit_lsn": "0/10",
                "end_lsn": "0/20",
                "commit_time": SHOWN_TIME,
            },
        ),
        (
            StreamAbort(742, 743),
            {
                "kind": "stream_abort",
                "xid": 742,
                "subxid": 743,
                "abort_lsn": None,
                "abort_time": None,
            },
        ),
        (
            StreamAbort(742, 742, pgrepl.Lsn("0/10"), TIME),
            {
                "kind": "stream_abort",
                "xid": 742,
                "subxid": 742,
                "abort_lsn": "0/10",
                "abort_time": SHOWN_TIME,
            },
        ),
        *(
            (
                kind(*PREPARED),
                {
                    "kind": name,
                    "xid": 742,
                    "gid": "g'1",
                    "prepare_lsn": "0/10",
                    "end_lsn": "0/20",
                    "prepare_time": SHOWN_TIME,
                },
            )
            for kind, name in (
                (BeginPrepare, "begin_prepare"),
                (Prepare, "prepare"),
                (StreamPrepare, "stream_prepare"),
            )
        ),
        (
            CommitPrepared(*PREPARED),
            {
                "kind": "commit_prepared",
                "xid": 742,
                "gid": "g'1",
                "commit_lsn": "0/10",
                "end_lsn": "0/20",
                "commit_time": SHOWN_TIME,
            },
        ),
        (
            RollbackPrepared(pgrepl.Lsn("0/20"), pgrepl.Lsn("0/30"), TIME, TIME, 742, "g"),
            {
                "kind": "rollback_prepared",
                "xid": 742,
                "gid": "g",
                "prepare_end_lsn": "0/20",
                "end_lsn": "0/30",
                "prepare_time": SHOWN_TIME,
                "rollback_time": SHOWN_TIME,
            },
        ),
    ],
)
def test_json_of_streamed_and_prepared_transactions(
    message: LogicalMessage, members: dict[str, Any]
) -> None:
    assert json.loads(JsonFormat().line(message, 0)) == members


def test_json_of_a_change_in_a_block_has_its_own_number() -> None:
    form = JsonFormat()
    form.line(BEGIN, 0)
    assert json.loads(form.line(insert(1), 0))["xid"] == 742
    assert json.loads(form.line(Insert(T, insert(1).new, 743), 0))["xid"] == 743


# Long values


@pytest.mark.parametrize(
    "value",
    [
        "x" * 200_000,
        "é\n\"\\\x7f'" * 40_000,
        "".join(map(chr, range(0xD800))) * 3,
        "😀\u202e" * 40_000,
    ],
    ids=["ascii", "escapes", "everything", "wide"],
)
def test_long_text(value: str) -> None:
    told = JsonFormat().line(Insert(T, Row(T, ["1", value, None, UNCHANGED])), 7)
    assert json.loads(told)["new"] == {"id": "1", "v": value, "on": None}
    assert json.loads(told)["unchanged"] == ["n"]
    assert told.isprintable()
    short = JsonFormat().line(Insert(T, Row(T, ["1", "v", None, UNCHANGED])), 7)
    assert told.startswith(short[: short.index('"v": ')])
    assert told.endswith(short[short.index(', "on"') :])
    text = TextFormat().line(Insert(T, Row(T, ["1", value, None, UNCHANGED])), 7)
    assert text is not None
    assert text.isprintable()
    short = TextFormat().line(Insert(T, Row(T, ["1", "v", None, UNCHANGED])), 7) or ""
    before, behind = short.split("'v'")
    quoted = text.removeprefix(before).removesuffix(behind)
    assert ast.literal_eval(quoted.replace("''", r"\'")[:-1] + "'") == value


def test_long_bytes() -> None:
    value = bytes(range(256)) * 1000
    message = Message(False, pgrepl.Lsn(5), "p", value)
    told = json.loads(JsonFormat().line(message, 7))
    assert (told["content"], told["text"]) == ({"hex": value.hex()}, None)
    told = json.loads(JsonFormat().line(Insert(T, Row(T, ["1", value, "t", "1"])), 7))
    assert told["new"] == {"id": "1", "v": {"hex": value.hex()}, "on": "t", "n": "1"}
    text = TextFormat().line(Insert(T, Row(T, ["1", value, "t", "1"])), 7)
    assert text is not None
    assert rf"v='\x{value.hex()}'" in text
    content = ("é" * 100_001).encode()
    told = json.loads(JsonFormat().line(Message(False, pgrepl.Lsn(5), "p", content), 7))
    assert told["text"] == content.decode()


@pytest.mark.parametrize("value", ["é\x7f" * 1_000_000, b"\xff" * 2_000_000], ids=["text", "bytes"])
def test_nothing_is_done_with_a_long_value_in_one_go(
    value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During which no status would go out, since no other thread can run."""
    sizes: list[int] = []
    cut = formats._cut

    def escaped(text: str, escape: Any) -> str:
        sizes.append(len(text))
        return text

    def pieces(value: Any) -> Any:
        for piece in cut(value):
            sizes.append(len(piece))
            yield piece

    monkeypatch.setattr(formats, "escaped", escaped)
    monkeypatch.setattr(formats, "printable", lambda text: escaped(text, None))
    monkeypatch.setattr(formats, "_cut", pieces)
    for form in (JsonFormat(), TextFormat()):
        sizes.clear()
        form.line(Insert(T, Row(T, ["1", value, None, UNCHANGED])), 7)
        assert len(sizes) > 2_000_000 // formats._PIECE
        assert max(sizes) <= 2 * formats._PIECE


def test_bytes_that_are_no_text(codec: Any) -> None:
    """Of a database that does not say what its bytes mean: they are there, and the rest as well."""
    decoder = codec.Decoder(typed=False)
    columns = [Column(name, 25, -1, False) for name in ("v", "w")]
    relation = Relation(7, "public", "t", "d", (Column("id", 23, -1, True), *columns))
    decoder.feed(encode(relation))
    row = b"I" + bytes((0, 0, 0, 7)) + b"N" + bytes((0, 3))
    for value in (b"1", b"caf\xe9", "café".encode()):
        row += b"t" + len(value).to_bytes(4, "big") + value
    change = decoder.feed(row)
    assert TextFormat().line(change, 0) == r"INSERT public.t id=1 v='\x636166e9' w='café'"
    made = json.loads(JsonFormat().line(change, 0))
    assert made["new"] == {"id": "1", "v": {"hex": "636166e9"}, "w": "café"}
    assert made["unchanged"] == []
