"""``pgrepl slots``: how slots are asked for on each version and shown, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

import pgrepl
from pgrepl.cli import main
from pgrepl.cli.slot_listing import (
    ListedSlot,
    listed_slots,
    slot_json,
    slot_remarks,
    slot_table,
)

NOTHING: dict[str, Any] = dict.fromkeys(each.name for each in dataclasses.fields(ListedSlot))
SLOT = ListedSlot(
    **{
        **NOTHING,
        "slot": "changes",
        "slot_type": "logical",
        "plugin": "pgoutput",
        "database": "shop",
        "temporary": False,
        "restart_lsn": pgrepl.Lsn("1/A"),
        "confirmed_flush_lsn": pgrepl.Lsn("1/F"),
        "wal_held_bytes": 2048,
        "lag_bytes": 100,
    }
)


class FakeServer:
    """A server of some version with one slot, of which it tells all that it is asked for."""

    def __init__(self, version: int, **values: object) -> None:
        self.server_version = version
        self.asked = ""
        self._values = {"slot": "s", "slot_type": "logical", "temporary": False, **values}

    def query(self, sql: str) -> list[pgrepl.Result]:
        self.asked = sql
        return [pgrepl.Result(("row_to_json",), [(json.dumps(self._values),)], "SELECT")]


@pytest.mark.parametrize(
    ("version", "columns"),
    [
        (100000, ()),
        (120000, ()),
        (130000, ("wal_status", "safe_wal_size")),
        (140000, ("two_phase",)),
        (150000, ()),
        (160000, ("conflicting",)),
        (170000, ("failover", "synced", "invalidation_reason", "inactive_since")),
        (180000, ()),
    ],
)
def test_only_columns_that_a_version_has_are_asked_for(
    version: int, columns: tuple[str, ...]
) -> None:
    """Each is asked for since the version that brought it."""
    server: Any = FakeServer(version)
    listed_slots(server)
    before: Any = FakeServer(version - 10000)
    listed_slots(before)
    for column in columns:
        assert f"s.{column}" in server.asked
        assert f"s.{column}" not in before.asked
        assert f"NULL AS {column}" in before.asked


def test_a_name_is_quoted() -> None:
    server: Any = FakeServer(180000)
    listed_slots(server, "x' OR \\ '")
    assert r"WHERE s.slot_name::text = E'x'' OR \\ ''' ORDER BY" in server.asked


def test_answers() -> None:
    server: Any = FakeServer(
        180000, restart_lsn="1/A", lag_ms=1500, inactive_ms=250, inactive_since="2026-..."
    )
    [slot] = listed_slots(server)
    assert (slot.lag_seconds, slot.inactive_seconds) == (1.5, 0.25)
    assert slot_json(slot)["restart_lsn"] == "1/A"
    assert list(slot_json(slot)) == [each.name for each in dataclasses.fields(ListedSlot)]


@pytest.mark.parametrize("values", [{"slot": 1}, {"temporary": "f"}, {"restart_lsn": "x"}])
def test_hostile_answers(values: dict[str, Any]) -> None:
    server: Any = FakeServer(180000, **values)
    with pytest.raises(pgrepl.ProtocolError):
        listed_slots(server)


def shown(*slots: ListedSlot) -> list[list[str]]:
    """The cells of the table, line by line."""
    pytest.importorskip("rich")
    table: Any = slot_table(slots)
    columns = [[cell.plain for cell in column.cells] for column in table.columns]
    return [list(line) for line in zip(*columns, strict=True)]


def test_table() -> None:
    used = dataclasses.replace(
        SLOT,
        active_pid=7,
        application_name="\x1b[2J[red]",
        client_addr="::1",
        lag_seconds=61.0,
        wal_status="unreserved",
        safe_wal_size=-5,
        two_phase=True,
        failover=True,
    )
    bare = ListedSlot(**{**NOTHING, "slot": "p\n", "slot_type": "physical", "temporary": True})
    assert shown(SLOT, used, bare) == [
        ["changes", "pgoutput", "shop", "nobody", "100 bytes", "2.0 kB", "-", ""],
        [
            "changes",
            "pgoutput",
            "shop",
            r"pid 7 \x1b[2J[red] ::1",
            "100 bytes, 1 min 1 s",
            "2.0 kB",
            "unreserved",
            "0 bytes of WAL until it may be lost, two_phase, failover",
        ],
        [r"p\n", "physical", "-", "nobody", "-", "-", "-", "temporary"],
    ]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, None),
        ({"wal_status": "lost"}, "wal_removed"),
        (
            {"wal_status": "lost", "conflicting": True},
            "wal_removed, or a conflict with recovery",
        ),
        ({"wal_status": "lost", "invalidation_reason": "idle_timeout"}, "idle_timeout"),
    ],
)
def test_invalidation(values: dict[str, Any], reason: str | None) -> None:
    slot = dataclasses.replace(SLOT, **values)
    assert slot.invalidation == reason
    assert slot_remarks(slot) == ([] if reason is None else [f"invalidated: {reason}"])


def test_how_long_nobody_uses_it() -> None:
    slot = dataclasses.replace(SLOT, inactive_seconds=7200.0)
    assert shown(slot)[0][3] == "nobody for 2 h"


# The command line


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said of a mistake on the command line."""
    pytest.importorskip("click")
    with pytest.raises(SystemExit) as ended:
        main(("slots", *arguments))
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (2, "")
    return " ".join(said.err.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("list", "--replication", "maybe"), "'maybe' is not one of"),
        (("list", "host=x", "--replication", "physical"), "slots are listed by SQL"),
        (("create", "host=x"), "Missing option '--slot'"),
        (("create", "--slot", "s", "--temporary"), "lives as long as the connection"),
        (("create", "--slot", "s", "--physical", "--plugin", "p"), "--plugin is for logical"),
        (("create", "--slot", "s", "--physical", "--two-phase"), "--two-phase is for logical"),
        (("create", "--slot", "s", "--physical", "--failover"), "--failover is for logical"),
        (("create", "--slot", "s", "--reserve-wal"), "--reserve-wal is for physical slots"),
        (("create", "--slot", "s", "--replication", "physical"), "needs a database"),
        (("drop", "host=x"), "Missing option '--slot'"),
        (("alter", "--slot", "s"), "expected --failover or --two-phase"),
        (("advance", "--slot", "s"), "Missing option '--to'"),
        (("advance", "--slot", "s", "--to", "back"), "expected an LSN"),
        (("advance", "--slot", "s", "--to", "0/1", "--replication", "physical"), "by SQL"),
        (("list", "nonsense"), "expected keyword=value"),
    ],
)
def test_usage(arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert words in refused(capsys, *arguments)


@pytest.mark.parametrize("command", ["list", "create", "drop", "alter", "advance"])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("click")
    with pytest.raises(SystemExit) as ended:
        main(("slots", command, "--help"))
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"  pgrepl slots {command} " in said
    assert "--json" in said
