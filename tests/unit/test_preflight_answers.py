"""Answers to a preflight that make no sense: each is the server's fault, and nothing is guessed."""

from __future__ import annotations

import pytest

from pgrepl import Lsn
from pgrepl.resume import ResumeToken
from tests.support import builders
from tests.support.dialogue import refused
from tests.support.preflight_answers import (
    READY,
    SLOT,
    answer,
    asking,
    history,
    identity,
    of,
    result,
)

HISTORY = "1\t0/1500\tno recovery target specified\n\n# by hand\n2\t0/2800\tbefore 0/2800\n"


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([READY], "expected results of (15, 1, 1) columns in answer to the question for the slot"),
        ([*result(15), READY], "got (15,)"),
        ([*result(15), *result(1), *result(2), READY], "got (15, 1, 2)"),
        ([*result(14), *result(1), *result(1), READY], "got (14, 1, 1)"),
        ([*result(15), *result(1) * 100, READY], "got (15, 1, 1, 1, 1)"),
        (answer(SLOT, SLOT), "expected one slot 's' in the server's answer, got 2"),
        (of(slot_name="t"), "expected the slot's name as 's' in the server's answer, got 't'"),
        (of(slot_name=None), "expected slot_name in the server's answer, got NULL"),
        (of(slot_type=None), "expected slot_type in the server's answer, got NULL"),
        (of(temporary=None), "expected temporary in the server's answer, got NULL"),
        (of(temporary="true"), "expected temporary as t or f in the server's answer, got 'true'"),
        (of(failover=""), "expected failover as t or f"),
        (of(conflicting="\x1b" * 1000), r"expected conflicting as t or f in the server's answer"),
        (of(active_pid="-1"), "expected active_pid as a number in the server's answer, got '-1'"),
        (of(active_pid="9" * 5000), "expected active_pid as a number"),
        (of(active_pid="\u0661"), "expected active_pid as a number"),
        (of(active_pid=""), "expected active_pid as a number"),
        (of(active_pid="1", ours="x"), "expected whether this session holds the slot as t or f"),
        (of(restart_lsn="0:0"), "expected restart_lsn as an LSN in the server's answer, got '0:0'"),
        (of(confirmed_flush_lsn="x" * 999), "expected confirmed_flush_lsn as an LSN"),
        (
            of(confirmed_flush_lsn=None),
            "expected confirmed_flush_lsn in the server's answer, got",
        ),
        (answer(SLOT, timeout=()), "expected one setting wal_sender_timeout, got 0"),
        (answer(SLOT, timeout=["1", "2"]), "expected one setting wal_sender_timeout, got 2"),
        (answer(SLOT, timeout=[None]), "expected wal_sender_timeout in the server's answer, got N"),
        (answer(SLOT, timeout=["-1"]), "expected wal_sender_timeout as a number"),
        (answer(SLOT, timeout=["1min"]), "expected wal_sender_timeout as a number"),
        ([builders.copy_data(b"x")], "answer to a query, got message b'd'"),
        ([builders.data_row("x")], "RowDescription before the first row"),
    ],
)
def test_an_answer_that_makes_no_sense(messages: list[bytes], words: str) -> None:
    said = refused(asking().receive(*identity()), *messages)
    assert words in said
    assert said.isprintable()
    assert len(said) < 300


def test_an_identity_that_makes_no_sense() -> None:
    said = refused(asking(), *identity("7291", "x", "0/3000", "shop"))
    assert "expected a number in the server's answer, got 'x'" in said


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        (history(), "one row of 2 columns in answer to TIMELINE_HISTORY, got 0 rows"),
        (history(("f", HISTORY), ("f", HISTORY)), "got 2 rows of [2, 2] columns"),
        (history((HISTORY,), columns=1), "got 1 rows of [1] columns"),
        (history(("f", None)), "expected a timeline's history in the server's answer, got NULL"),
        (history(("f", "1")), "expected a timeline's history as lines of timeline and LSN"),
        (history(("f", "1\t0:1")), "expected a timeline's end as an LSN in the server's answer"),
        (history(("f", "-2\t0/1")), "expected a timeline as a number in the server's answer"),
        (history(("f", "9" * 5000 + "\t0/1")), "expected a timeline as a number"),
    ],
)
def test_a_history_that_makes_no_sense(messages: list[bytes], words: str) -> None:
    dialogue = asking(start=ResumeToken("7291", 2, Lsn("0/2000"))).receive(*identity(), *of())
    said = refused(dialogue, *messages)
    assert words in said
    assert len(said) < 300
