"""``pgrepl slots``: how slots are shown, and what is refused."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

import pytest

import pgrepl
from pgrepl.cli import main
from pgrepl.cli.slots.listing import slot_json, slot_remarks, slot_table

FIELDS = dataclasses.fields(pgrepl.ReplicationSlot)
NOTHING: dict[str, Any] = dict.fromkeys(each.name for each in FIELDS)
SLOT = pgrepl.ReplicationSlot(
    **{
        **NOTHING,
        "name": "changes",
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


def test_json() -> None:
    """Keys as docs/cli.md has them; positions and times are text."""
    since = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    told = slot_json(dataclasses.replace(SLOT, inactive_since=since))
    assert list(told) == ["slot", *(each.name for each in FIELDS[1:])]
    assert (told["slot"], told["restart_lsn"]) == ("changes", "1/A")
    assert told["inactive_since"] == "2026-01-02T00:00:00.000000Z"


def shown(*slots: pgrepl.ReplicationSlot) -> list[list[str]]:
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
    values = {"name": "p\n", "slot_type": "physical", "temporary": True}
    bare = pgrepl.ReplicationSlot(**{**NOTHING, **values})
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


def test_an_invalidated_slot() -> None:
    lost = dataclasses.replace(SLOT, wal_status="lost")
    assert slot_remarks(SLOT) == []
    assert slot_remarks(lost) == ["invalidated: wal_removed"]


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
