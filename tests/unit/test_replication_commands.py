"""Replication commands: what is sent for them, and what their answers may be."""

from __future__ import annotations

from typing import Any

import pytest

from pgrepl import Lsn
from pgrepl.errors import ServerShutdown, SlotInUse, UsageError
from pgrepl.protocol import frontend, replication
from pgrepl.protocol.backend import ServerState
from pgrepl.protocol.query import Result
from tests.support import builders
from tests.support.dialogue import Dialogue, refused

READY = builders.ready_for_query()
FATAL = builders.error_response("go away", severity="FATAL", sqlstate="57P01")


def answer(*rows: tuple[str | None, ...], columns: int = 4) -> list[bytes]:
    return [
        builders.row_description(*(f"c{i}" for i in range(columns))),
        *(builders.data_row(*row) for row in rows),
        builders.command_complete("SELECT"),
        READY,
    ]


def state_of(version: str) -> ServerState:
    state = ServerState()
    state.parameters["server_version"] = version
    return state


def test_identify_system() -> None:
    dialogue = Dialogue(replication.identify_system(ServerState()))
    assert dialogue.sent == [frontend.query("IDENTIFY_SYSTEM")]
    identity = dialogue.receive(*answer(("7291", "3", "0/016B3740", None))).result
    assert (identity.systemid, identity.timeline, identity.dbname) == ("7291", 3, None)
    assert (type(identity.xlogpos), identity.xlogpos) == (Lsn, 0x16B3740)


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        (answer(), "expected one row of 4 columns in answer to IDENTIFY_SYSTEM, got 0 rows"),
        (answer(*[("1", "1", "0/0", None)] * 2), "got 2 rows"),
        (answer(("1", "1", "0/0"), columns=3), "got 1 rows of [3] columns"),
        (answer((None, "1", "0/0", None)), "expected text in the server's answer, got NULL"),
        (answer(("1", None, "0/0", None)), "expected text in the server's answer, got NULL"),
        (answer(("1", "-1", "0/0", None)), "expected a number in the server's answer, got '-1'"),
        (
            answer(("1", "9" * 5000, "0/0", None)),
            "expected a number in the server's answer, got '999",
        ),
        (answer(("1", "\u0661", "0/0", None)), "expected a number in the server's answer"),
        (answer(("1", "1", "0:0", None)), "expected an LSN in the server's answer, got '0:0'"),
    ],
)
def test_an_identity_that_makes_no_sense(messages: list[bytes], words: str) -> None:
    said = refused(Dialogue(replication.identify_system(ServerState())), *messages)
    assert words in said
    assert len(said) < 300


def create(version: str, **options: Any) -> str:
    """The command that creates a slot on a server of this version."""
    settings: dict[str, Any] = {
        "temporary": False,
        "snapshot": "nothing",
        "two_phase": False,
        "failover": False,
    }
    dialogue = Dialogue(
        replication.create_logical_slot(state_of(version), "s", "pgoutput", **settings | options)
    )
    dialogue.receive(*answer(("s", "0/1", None, "pgoutput")))
    assert dialogue.result == replication.Slot("s", Lsn(1), None, "pgoutput")
    return dialogue.sent[0][5:-1].decode()


def test_a_slot_is_created_in_the_grammar_of_the_servers_version() -> None:
    def both(**options: Any) -> tuple[str, str]:
        return create("14.19", **options), create("15.0", **options)

    start = 'CREATE_REPLICATION_SLOT "s" '
    assert both() == (
        start + 'LOGICAL "pgoutput" NOEXPORT_SNAPSHOT',
        start + "LOGICAL \"pgoutput\" (SNAPSHOT 'nothing')",
    )
    assert both(temporary=True, snapshot="use") == (
        start + 'TEMPORARY LOGICAL "pgoutput" USE_SNAPSHOT',
        start + "TEMPORARY LOGICAL \"pgoutput\" (SNAPSHOT 'use')",
    )
    assert both(snapshot="export")[0] == start + 'LOGICAL "pgoutput" EXPORT_SNAPSHOT'


def test_a_server_may_be_too_old_for_an_option() -> None:
    assert create("15.0", two_phase=True).endswith("(SNAPSHOT 'nothing', TWO_PHASE)")
    assert create("17.0", failover=True).endswith("(SNAPSHOT 'nothing', FAILOVER)")
    for version, option, needed in (
        ("14.19", "two_phase", "two-phase slots need PostgreSQL 15"),
        ("14.19", "failover", "failover slots need PostgreSQL 17"),
        ("16.10", "failover", "failover slots need PostgreSQL 17"),
        ("", "failover", "failover slots need PostgreSQL 17"),
    ):
        with pytest.raises(UsageError, match=f"{needed} or later, the server is {version}"):
            create(version, **{option: True})
    with pytest.raises(UsageError, match="expected snapshot 'nothing', 'export' or 'use', got 'x'"):
        create("18.0", snapshot="x")


def test_streaming_begins() -> None:
    command = "START_REPLICATION SLOT s LOGICAL 0/0"
    dialogue = Dialogue(replication.start_streaming(ServerState(), command))
    assert dialogue.sent == [frontend.query(command)]
    assert dialogue.receive(builders.notice_response("n")).ended is False
    assert dialogue.receive(builders.copy_both_response(0, [0, 0])).result is None


def test_streaming_does_not_begin() -> None:
    def starting_to_stream() -> Dialogue:
        return Dialogue(replication.start_streaming(ServerState(), "START_REPLICATION 0/0"))

    busy = builders.error_response(
        'replication slot "s" is active for PID 12',
        sqlstate="55006",
        source_function="ReplicationSlotAcquire",
    )
    assert "PID 12" in refused(starting_to_stream(), busy, READY, kind=SlotInUse)
    assert "57P01" in refused(starting_to_stream(), FATAL, kind=ServerShutdown)
    at_the_end = starting_to_stream().receive(*answer(("2", "0/5000000"), columns=2))
    assert at_the_end.result == [Result(("c0", "c1"), [("2", "0/5000000")], "SELECT")]
    for body, words in (
        (b"", "a field of 1 bytes in message b'W'"),
        (b"\0\0", "a field of 2 bytes in message b'W'"),
        (b"\0\0\1", "a field of 2 bytes in message b'W'"),
        (b"\0\xff\xff", "a field of -2 bytes in message b'W'"),
        (b"\0\0\0x", "the end of message b'W', got 1 more bytes"),
    ):
        assert words in refused(starting_to_stream(), builders.message(b"W", body))
    assert "answer to a query, got message b'd'" in refused(
        starting_to_stream(), builders.copy_data(b"x")
    )


def test_names_that_the_grammar_cannot_say() -> None:
    for name in ('a"b', "a\0b", ""):
        with pytest.raises(UsageError, match="without quotes and zero bytes"):
            replication.identifier(name)
    with pytest.raises(UsageError, match="without zero bytes"):
        replication.literal("a\0b")
    for names in ([], ["p", ""]):
        with pytest.raises(UsageError, match="one publication name or more"):
            replication.publication_list(names)
    with pytest.raises(UsageError, match=r"use \['p'\]"):
        replication.publication_list("p")


def test_names_are_quoted() -> None:
    options = {
        "proto_version": "1",
        "publication_names": replication.publication_list(["A,b\"c'd"]),
    }
    command = replication.start_logical_command("x'; DROP", 8443003424, options)
    assert command == (
        'START_REPLICATION SLOT "x\'; DROP" LOGICAL 1/F73E0220 '
        '("proto_version" \'1\', "publication_names" \'"A,b""c\'\'d"\')'
    )
    assert replication.is_logical(command)
    assert not replication.is_logical("START_REPLICATION PHYSICAL 0/0 TIMELINE 1")


@pytest.mark.parametrize("command", ["SELECT 1", "start_replication 0/0", ""])
def test_only_a_stream_can_be_started(command: str) -> None:
    with pytest.raises(UsageError, match="expected a START_REPLICATION command, in upper case"):
        Dialogue(replication.start_streaming(ServerState(), command))
