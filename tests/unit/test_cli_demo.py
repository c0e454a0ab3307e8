"""The demo's bookkeeping, which must find whatever is wrong with a stream, and say so."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest

import pgrepl
from pgrepl.cli.demo.ledger import Changes, Ledger, Verdict
from pgrepl.cli.demo.replica import Replica
from pgrepl.cli.demo.summary import Summary
from pgrepl.cli.demo.tally import Tally
from pgrepl.cli.demo.transcript import Transcript
from pgrepl.cli.demo.workload import KINDS, TABLES
from pgrepl.codec import Row
from pgrepl.messages import (
    UNCHANGED,
    Begin,
    Column,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Relation,
    Truncate,
    Update,
)

TIME = 848653377652022  # 2026-11-22, in microseconds since 2000
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
U = Relation(16390, "public", "u", "d", ())
KEY = Row(T, ("2",), key_only=True)


def begin(xid: int) -> Begin:
    return Begin(pgrepl.Lsn(0), TIME, xid)


def commit(end: int) -> Commit:
    return Commit(pgrepl.Lsn(end - 1), pgrepl.Lsn(end), TIME)


def insert(number: int, value: str | None = "a") -> Insert:
    return Insert(T, Row(T, (str(number), value, "t", "1.50")))


def test_ledger() -> None:
    ledger = Ledger()
    for xid in (1, 2, 3, 4):
        ledger.commit(xid, Changes({("t", "insert"): xid}))
    assert ledger.compare().missing == 4
    for xid in (4, 3, 2, 1):
        ledger.deliver(xid, Changes({("t", "insert"): xid}))
    assert ledger.compare().is_clean
    ledger.deliver(2, Changes({("t", "insert"): 2}))
    ledger.deliver(5, Changes({("t", "insert"): 1}))
    ledger.deliver(3, Changes({("t", "update"): 3}))
    ledger.commit(6, Changes())
    verdict = ledger.compare()
    assert not verdict.is_clean
    assert (verdict.missing, verdict.repeated, verdict.never_committed) == (1, 2, 1)
    assert verdict.different == 1


class FakeServer:
    def __init__(self, *rows: tuple[str | None, ...]) -> None:
        self.rows = list(rows)

    def query(self, sql: str) -> list[pgrepl.Result]:
        assert sql == 'SELECT "id", "v", "on", "n" FROM public."t"'
        return [pgrepl.Result(("id", "v", "on", "n"), self.rows, "SELECT")]


def test_replica() -> None:
    replica = Replica()
    for message in (
        T,
        insert(9),
        Truncate((T,), False, False),
        insert(1),
        insert(2),
        insert(3),
        Update(T, None, None, Row(T, ("1", UNCHANGED, None, "0"))),
        Update(T, KEY, None, Row(T, ("4", UNCHANGED, "f", "0"))),
        Delete(T, Row(T, ("3",), key_only=True), None),
        begin(742),
        commit(7),
    ):
        replica.apply(message)
    first, fourth = ("1", "a", None, "0"), ("4", "a", "f", "0")
    assert len(replica) == 2
    assert replica.differing_rows(FakeServer(fourth, first)) == 0  # type: ignore[arg-type]
    assert replica.differing_rows(FakeServer(first)) == 1  # type: ignore[arg-type]
    assert replica.differing_rows(FakeServer(first, ("4", "b", "f", "0"))) == 2  # type: ignore[arg-type]


def test_replica_survives_what_was_lost() -> None:
    replica = Replica()
    replica.apply(T)
    replica.apply(Update(T, None, None, Row(T, ("1", UNCHANGED, None, "0"))))
    replica.apply(Delete(T, KEY, None))
    assert replica.differing_rows(FakeServer(("1", "a", None, "0"))) == 2  # type: ignore[arg-type]


def test_tally() -> None:
    ledger = Ledger()
    tally = Tally(ledger, now=100.0)
    update = Update(T, None, None, insert(1).new)
    large: list[LogicalMessage] = [
        T,
        begin(742),
        *[insert(n) for n in range(5)],
        update,
        Delete(T, KEY, None),
        commit(7),
    ]
    small: list[LogicalMessage] = [
        begin(743),
        Truncate((T, U), False, False),
        Commit(pgrepl.Lsn(0), pgrepl.Lsn(9), TIME),
    ]
    for number, message in enumerate([*large, *small]):
        tally.count(message, TIME + number)
    assert ledger.delivered == {
        742: Changes({("t", "insert"): 5, ("t", "update"): 1, ("t", "delete"): 1}),
        743: Changes({("t", "truncate"): 1, ("u", "truncate"): 1}),
    }
    assert tally.changes == ledger.delivered[742] + ledger.delivered[743]
    assert (tally.transactions, tally.largest, tally.lags) == (2, 7, [9, 12])
    tally.sample(now=100.1)
    tally.sample(now=102.0)
    assert list(tally.rates) == [4.5]
    assert tally.peak_rate == 4.5


@pytest.mark.parametrize("width", [80, 120])
def test_the_screen_has_all_its_labels(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a terminal of 80 columns, whatever the numbers."""
    pytest.importorskip("rich")
    from rich.console import Console

    from pgrepl.cli.demo import display

    shown = io.StringIO()
    made = Console(width=width, height=24, file=shown, force_terminal=True, color_system=None)
    monkeypatch.setattr(display, "Console", lambda: made)
    tally = Tally(Ledger(), 0.0)
    tally.changes.update({(t, kind): 999_999 for t in TABLES for kind in KINDS})
    tally.transactions, tally.largest = 1_234_567, 20_000
    tally.rates.extend(float(rate) for rate in range(23_456))
    tally.lags.append(123_456)
    with display.Screen("title", 20.0) as screen:
        screen.draw(tally, 7.5, pgrepl.Lsn("12/F73E0220"), 123_456_789)
    told = shown.getvalue()
    for label, value in (
        ("rate", "23,455/s"),
        ("lag", r"123\.5 ms"),
        ("behind", r"123\.5 MB"),
        ("transactions", "1,234,567"),
        ("largest", "20,000 changes"),
        ("acknowledged", "12/F73E0220"),
    ):
        assert re.search(rf"│ {label} +{value} ", told), label
    for kind in KINDS:
        assert kind in told
    assert "…" not in told


def test_transcript_cuts_large_transactions() -> None:
    transcript = Transcript(shown=2, longest_value=10)
    messages: list[LogicalMessage] = [
        T,
        begin(742),
        *[insert(number) for number in range(1002)],
        commit(7),
        begin(9),
        commit(5),
    ]
    entries = [entry for message in messages for entry in transcript.tell(message, 0)]
    assert [entry.kind for entry in entries] == [
        *("begin", "insert", "insert", "omission", "commit", "begin", "commit")
    ]
    assert entries[2].line == "INSERT public.t id=1 v='a' on=true n=1.50"
    assert entries[3].line == "… and 1,000 more"
    assert entries[4].line == "COMMIT 742 0/7 (1,002 changes)"
    assert entries[6].line == "COMMIT 9 0/5 (0 changes)"


CLEAN = Verdict(missing=0, repeated=0, never_committed=0, different=0)


def summary(**different: Any) -> Summary:
    tally = Tally(Ledger(), now=0.0)
    for message in (begin(1), insert(1), commit(9)):
        tally.count(message, TIME + 2000)
    found: dict[str, Any] = {
        "title": "PostgreSQL",
        "seconds": 2.0,
        "tally": tally,
        "verdict": CLEAN,
        "replica_rows": 1,
        "replica_differences": 0,
        "rollbacks": 3,
        "acknowledged": pgrepl.Lsn(9),
        "confirmed": pgrepl.Lsn(9),
    }
    return Summary(**found | different)


def test_summary_of_a_clean_run() -> None:
    assert summary().is_clean
    told = "\n".join(summary().lines())
    for words in ("0/9, and the slot says the same", "yes: 1 transactions, 1 changes", "2.0 ms at"):
        assert words in told
    assert "NO" not in told


@pytest.mark.parametrize(
    ("different", "words"),
    [
        (
            {"verdict": Verdict(1, 2, 3, 4)},
            "NO: of the transactions 1 never delivered, 2 ",
        ),
        ({"replica_differences": 5}, "NO: 5 rows differ"),
        ({"confirmed": pgrepl.Lsn(8)}, "0/9, BUT the slot says 0/8"),
    ],
)
def test_summary_of_a_run_that_was_not(different: dict[str, Any], words: str) -> None:
    assert not summary(**different).is_clean
    assert words in "\n".join(summary(**different).lines())
