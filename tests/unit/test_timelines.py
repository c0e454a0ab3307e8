"""Timelines: what their history files say, and how a physical stream tells that one has ended."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrepl import Lsn
from pgrepl.errors import ProtocolError, ServerError, UsageError
from pgrepl.physical import EndOfTimeline, TimelineHistory, TimelineSwitch, parse_timeline_history
from pgrepl.protocol import frontend, timelines
from pgrepl.protocol.backend import ServerState
from pgrepl.protocol.query import Result
from tests.support import builders
from tests.support.builders import ColumnDescription
from tests.support.dialogue import Dialogue, refused

READY = builders.ready_for_query()
BYTEA = 17

HISTORY = (
    b"1\t0/16B3740\tno recovery target specified\n\n2\t0/016B3740\tbefore transaction 7\n"
    b'\n4\t1/A\tat restore point "\xff\xe9"\n'
)


def switches(content: bytes, timeline: int = 9) -> tuple[tuple[int, int, str], ...]:
    return tuple(
        (each.timeline, int(each.lsn), each.reason)
        for each in parse_timeline_history(content, timeline)
    )


def answer(filename: str | None, content: bytes | None, oid: int = 25) -> list[bytes]:
    return [
        builders.row_description("filename", ColumnDescription("content", type_oid=oid)),
        builders.data_row(filename, content),
        builders.command_complete("TIMELINE_HISTORY"),
        READY,
    ]


# The command


@pytest.mark.parametrize("oid", [25, BYTEA])
@pytest.mark.parametrize("content", [HISTORY, b"", bytes(range(1, 256)), b"\\x00"])
def test_bytes_of_a_history(content: bytes, oid: int) -> None:
    dialogue = Dialogue(timelines.timeline_history(ServerState(), 0x1F))
    assert dialogue.sent == [frontend.query("TIMELINE_HISTORY 31")]
    history = dialogue.receive(*answer("0000001F.history", content, oid)).result
    assert history == TimelineHistory("0000001F.history", content)
    assert history.timeline == 31


@pytest.mark.parametrize(
    ("filename", "content", "words"),
    [
        ("00000003.history", b"", "by the name '00000002.history', got '00000003.history'"),
        ("../00000002.history", b"", "got '../00000002.history'"),
        ("00000002.history\x1b[2J", b"", "got '00000002.history\\x1b[2J'"),
        ("x" * 5000, b"", "got 'xxx"),
        (None, b"", "got NULL"),
        ("00000002.history", None, "got NULL"),
    ],
)
def test_v14_a_history_that_is_another(
    filename: str | None, content: bytes | None, words: str
) -> None:
    dialogue = Dialogue(timelines.timeline_history(ServerState(), 2))
    said = refused(dialogue, *answer(filename, content))
    assert words in said
    assert len(said) < 300


def test_a_history_that_there_is_not() -> None:
    dialogue = Dialogue(timelines.timeline_history(ServerState(), 1))
    missing = builders.error_response("could not open file", sqlstate="58P01")
    described = answer("", b"")[0]
    assert "58P01" in refused(dialogue, described, missing, READY, kind=ServerError)
    for timeline in (0, -1, 2**32):
        with pytest.raises(UsageError, match="expected a timeline from 1 to"):
            Dialogue(timelines.timeline_history(ServerState(), timeline))


# The file


def test_what_a_history_says() -> None:
    history = TimelineHistory("00000009.history", HISTORY)
    assert history.switches() == (
        TimelineSwitch(1, Lsn("0/16B3740"), "no recovery target specified"),
        TimelineSwitch(2, Lsn("0/16B3740"), "before transaction 7"),
        TimelineSwitch(4, Lsn("1/A"), 'at restore point "\udcff\udce9"'),
    )
    assert isinstance(history.switches()[0].lsn, Lsn)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ()),
        (b"\n \t\r\n# a comment\n  # 1\t0/1\n", ()),
        (b"1\t0/1", ((1, 1, ""),)),
        (b"  1\t0/1\t\n", ((1, 1, ""),)),
        (b"1 FFFFFFFF/FFFFFFFF  a\tb \r\n", ((1, 2**64 - 1, "a\tb"),)),
        (b"0000000001\t00000000/0000000a\tx", ((1, 10, "x"),)),
    ],
)
def test_histories_that_are_odd_and_right(
    content: bytes, expected: tuple[tuple[int, int, str], ...]
) -> None:
    assert switches(content) == expected


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"x", "expected a timeline, an LSN and a reason, separated by tabs, in line 1"),
        (b"\n\n1", "in line 3"),
        (b"1\t", "got b'1'"),
        (b"1\t0:1", "got b'1\\t0:1'"),
        (b"1\t0/1x", "in line 1"),
        (b"1\t0/123456789", "in line 1"),
        (b"1\t/1", "in line 1"),
        (b"10/1", "in line 1"),
        (b"-1\t0/1", "in line 1"),
        (b"+1\t0/1", "in line 1"),
        (b"0x1\t0/1", "in line 1"),
        (b"11111111111\t0/1", "in line 1"),
        (b"\xd9\xa1\t0/1", "in line 1"),
        (b"1\t0/1\0", "in line 1"),
        (
            b"0\t0/1",
            "expected a timeline from 1 to 8 in line 1 of the history of timeline 9, got 0",
        ),
        (b"9\t0/1", "got 9"),
        (b"9999999999\t0/1", "got 9999999999"),
        (b"2\t0/1\n1\t0/2", "what comes after timeline 2, left at 0/1, in line 2"),
        (b"2\t0/1\n2\t0/2", "got timeline 2, left at 0/2"),
        (b"2\t0/2\n3\t0/1", "got timeline 3, left at 0/1"),
        (b"x" * 100000, "in line 1"),
    ],
)
def test_histories_that_are_wrong(content: bytes, words: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        switches(content)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 300


@given(st.binary(max_size=200) | st.text("01239/\tAF\n# ").map(str.encode))
def test_whatever_comes_is_read_or_refused(content: bytes) -> None:
    try:
        read = parse_timeline_history(content, 5)
    except ProtocolError:
        return
    assert [each.timeline for each in read] == sorted({each.timeline for each in read})
    assert all(1 <= each.timeline < 5 for each in read)


# The end of a physical stream


def ends(*rows: tuple[str | None, ...], columns: int = 2) -> list[Result]:
    names = tuple(f"c{i}" for i in range(columns))
    return [Result(names, list(rows), "START_STREAMING"), Result((), [], "START_REPLICATION")]


def test_end_of_a_timeline() -> None:
    end = timelines.end_of_timeline(ends(("2", "0/05000000")), None)
    assert end == EndOfTimeline(2, Lsn("0/5000000"))
    assert end is not None
    assert type(end.start) is Lsn
    assert timelines.end_of_timeline(ends(("7", "0/1")), 6) == EndOfTimeline(7, Lsn(1))


def test_streams_that_this_side_ended() -> None:
    for tags in (["COPY 0", "SELECT"], ["START_STREAMING", "START_REPLICATION"], []):
        assert timelines.end_of_timeline([Result((), [], tag) for tag in tags], 1) is None


@pytest.mark.parametrize(
    ("results", "streamed", "words"),
    [
        (ends(), None, "expected one row of 2 columns in answer to START_REPLICATION, got 0 rows"),
        (ends(("2", "0/1"), ("3", "0/1")), None, "got 2 rows"),
        (ends(("2",), columns=1), None, "got 1 rows of [1] columns"),
        (ends(("1", "0/1")), None, "expected a timeline after 1 at the end of a physical stream"),
        (ends(("6", "0/1")), 6, "expected a timeline after 6"),
        (ends(("5", "0/1")), 6, "got 5"),
        (ends(("0", "0/1")), None, "expected a timeline from 1 to 4294967295"),
        (ends(("4294967296", "0/1")), None, "got 4294967296"),
        (ends(("-2", "0/1")), None, "expected a number"),
        (ends((None, "0/1")), None, "got NULL"),
        (ends(("2", None)), None, "got NULL"),
        (ends(("2", "0/x")), None, "expected an LSN"),
    ],
)
def test_ends_that_make_no_sense(results: list[Result], streamed: int | None, words: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        timelines.end_of_timeline(results, streamed)
    assert words in str(caught.value)
