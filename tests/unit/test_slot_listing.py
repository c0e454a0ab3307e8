"""Slots that are listed, and slots that are taken where they exist: what each version is asked, and
what its answers may be."""

from __future__ import annotations

import datetime
import json
import re
from typing import Any

import pytest

from pgrepl import Lsn, ReplicationSlot, Slot
from pgrepl.errors import ProtocolError, ServerError, SlotExists, SlotInUse, UsageError
from pgrepl.protocol import frontend, slots
from pgrepl.protocol.backend import ServerState
from pgrepl.protocol.slot_listing import list_slots
from tests.support import builders
from tests.support.dialogue import Dialogue, refused

READY = builders.ready_for_query()
FOUND: dict[str, Any] = {
    "name": "s",
    "slot_type": "logical",
    "plugin": "pgoutput",
    "database": "shop",
    "temporary": False,
    "confirmed_flush_lsn": "1/F",
}
EXISTS = builders.error_response(
    'replication slot "s" already exists', sqlstate="42710", source_function="ReplicationSlotCreate"
)
NO_SQL = builders.error_response("cannot execute SQL commands", sqlstate="0A000")


def state_of(version: int) -> ServerState:
    state = ServerState()
    state.parameters["server_version"] = f"{version}.1"
    return state


def answer(*rows: tuple[str | None, ...]) -> list[bytes]:
    columns = [f"c{i}" for i in range(len(rows[0]) if rows else 1)]
    return [
        builders.row_description(*columns),
        *(builders.data_row(*row) for row in rows),
        builders.command_complete("SELECT"),
        READY,
    ]


def slot_rows(*found: dict[str, Any]) -> list[bytes]:
    return answer(*((json.dumps(values),) for values in found))


def listed(version: int = 18, **values: Any) -> ReplicationSlot:
    dialogue = Dialogue(list_slots(state_of(version)))
    [slot] = dialogue.receive(*slot_rows({**FOUND, **values})).result
    assert isinstance(slot, ReplicationSlot)
    return slot


# Listing


@pytest.mark.parametrize(
    ("version", "columns"),
    [
        (10, ()),
        (12, ()),
        (13, ("wal_status", "safe_wal_size")),
        (14, ("two_phase",)),
        (15, ()),
        (16, ("conflicting",)),
        (17, ("failover", "synced", "invalidation_reason", "inactive_since")),
        (18, ()),
    ],
)
def test_only_columns_that_a_version_has_are_asked_for(
    version: int, columns: tuple[str, ...]
) -> None:
    """Each is asked for since the version that brought it."""
    asked, before = (
        Dialogue(list_slots(state_of(each))).sent[0][5:].decode() for each in (version, version - 1)
    )
    for column in columns:
        assert f"s.{column}" in asked
        assert f"s.{column}" not in before
        assert f"NULL AS {column}" in before


def test_v15_a_name_is_quoted_and_nothing_depends_on_the_search_path() -> None:
    [asked] = Dialogue(list_slots(state_of(18), "x' OR \\ '")).sent
    assert rb"OPERATOR(pg_catalog.=) E'x'' OR \\ '''::pg_catalog.text ORDER BY" in asked
    bare = re.sub(r"E?'([^']|'')*'|OPERATOR\(.*?\)", "", asked.decode())
    assert not re.search(r"[-=*<>] |::(?!pg_catalog)|(?<!pg_catalog)\.pg_", bare)


def test_answers() -> None:
    slot = listed(
        restart_lsn="1/A",
        lag_ms=1500,
        inactive_ms=250,
        inactive_since=1_767_225_600_000_001,
        two_phase=True,
    )
    assert (slot.restart_lsn, slot.confirmed_flush_lsn) == (Lsn("1/A"), Lsn("1/F"))
    assert (slot.lag_seconds, slot.inactive_seconds) == (1.5, 0.25)
    assert slot.inactive_since == datetime.datetime(2026, 1, 1, 0, 0, 0, 1, datetime.UTC)
    assert (slot.two_phase, slot.failover, slot.active_pid) == (True, None, None)


@pytest.mark.parametrize(
    "values",
    [{"name": 1}, {"temporary": "f"}, {"restart_lsn": "x"}, {"inactive_since": 1 << 80}],
)
def test_hostile_answers(values: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        listed(**values)


def test_a_connection_without_sql() -> None:
    dialogue = Dialogue(list_slots(state_of(18)))
    assert "listed by SQL" in refused(dialogue, NO_SQL, READY, kind=UsageError)


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
    assert listed(**values).invalidation == reason


# Taking


def taking(database: str | None = "shop", version: int = 18, **options: Any) -> Dialogue:
    """A logical slot is to be created if it does not exist; the system was asked for."""
    wanted = {"temporary": False, "snapshot": "nothing", "two_phase": False, "failover": False}
    state = state_of(version)
    state.pid = 7
    if database is None:
        made = slots.create_physical_slot(
            state, "s", temporary=False, reserve_wal=True, if_not_exists=True
        )
    else:
        made = slots.create_logical_slot(
            state, "s", "pgoutput", **{**wanted, **options}, if_not_exists=True
        )
    dialogue = Dialogue(made)
    assert dialogue.sent == [frontend.query("IDENTIFY_SYSTEM")]
    return dialogue.receive(*answer(("7291", "1", "0/0", database)))


def test_one_that_is_there_is_taken_without_a_command_that_fails() -> None:
    dialogue = taking().receive(*slot_rows(FOUND))
    assert dialogue.result == Slot("s", Lsn("1/F"), None, "pgoutput", created=False)
    assert not any(b"CREATE" in sent for sent in dialogue.sent)


def test_one_that_is_not_there_is_created() -> None:
    dialogue = taking().receive(*slot_rows()).receive(*answer(("s", "1/F", None, "pgoutput")))
    assert dialogue.result == Slot("s", Lsn("1/F"), None, "pgoutput")
    assert dialogue.result.created


def test_somebody_else_creates_it_in_between() -> None:
    dialogue = taking().receive(*slot_rows()).receive(EXISTS, READY).receive(*slot_rows(FOUND))
    assert not dialogue.result.created


def test_one_that_comes_and_goes() -> None:
    """It is not looked for for ever."""
    dialogue = taking()
    for _ in range(2):
        dialogue.receive(*slot_rows()).receive(EXISTS, READY)
    dialogue.receive(*slot_rows())
    assert "already exists" in refused(dialogue, EXISTS, READY, kind=SlotExists)


@pytest.mark.parametrize(
    ("values", "kind", "said"),
    [
        ({"plugin": "wal2json"}, SlotExists, "it is a logical slot of the plugin 'wal2json'"),
        ({"database": "other"}, SlotExists, "and the database 'other'"),
        (
            {"slot_type": "physical", "plugin": None, "database": None},
            SlotExists,
            "it is a physical slot",
        ),
        ({"temporary": True, "active_pid": 8}, SlotExists, "it is a temporary .*of PID 8"),
        ({"confirmed_flush_lsn": None, "active_pid": 8}, SlotInUse, "still being created by PID 8"),
    ],
)
def test_another_one_is_not_taken(values: dict[str, Any], kind: Any, said: str) -> None:
    complaint = refused(taking(), *slot_rows({**FOUND, **values}), kind=kind)
    assert re.search(said, complaint)


@pytest.mark.parametrize(("pid", "is_ours"), [(7, True), (8, False)])
def test_a_temporary_slot_is_taken_by_its_own_session_alone(pid: int, is_ours: bool) -> None:
    rows = slot_rows({**FOUND, "temporary": True, "active_pid": pid})
    dialogue = taking(temporary=True)
    if is_ours:
        assert not dialogue.receive(*rows).result.created
    else:
        assert "of PID 8" in refused(dialogue, *rows, kind=SlotExists)


def test_a_snapshot_cannot_be_used_of_one_that_is_there() -> None:
    with pytest.raises(UsageError, match="expected snapshot 'nothing' or 'export' with if_not"):
        Dialogue(
            slots.create_logical_slot(
                state_of(18),
                "s",
                "pgoutput",
                temporary=False,
                snapshot="use",
                two_phase=False,
                failover=False,
                if_not_exists=True,
            )
        )


def test_on_a_physical_connection() -> None:
    dialogue = taking(None).receive(*answer(("physical", "1/A", "1")))
    assert dialogue.result == Slot("s", Lsn(0), None, None, created=False)
    said = refused(taking(None), NO_SQL, READY, kind=SlotExists)
    assert "to be a physical slot, it is a logical slot" in said
    other = builders.error_response("no", sqlstate="42501")
    assert "42501" in refused(taking(None), other, READY, kind=ServerError)


def test_on_a_physical_connection_that_cannot_look() -> None:
    """Before 15 there is nothing to ask by."""
    dialogue = taking(None, version=14).receive(EXISTS, READY)
    assert dialogue.result == Slot("s", Lsn(0), None, None, created=False)
