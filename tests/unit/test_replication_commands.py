"""Commands about the system, slots and streams: what is sent for them, on servers old and new, and
what their answers may be."""

from __future__ import annotations

from typing import Any

import pytest

from pgrepl import Lsn
from pgrepl.errors import ProtocolError, ServerError, ServerShutdown, SlotInUse, UsageError
from pgrepl.protocol import frontend, quoting, replication, slots
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
        slots.create_logical_slot(state_of(version), "s", "pgoutput", **settings | options)
    )
    dialogue.receive(*answer(("s", "0/1", None, "pgoutput")))
    assert dialogue.result == slots.Slot("s", Lsn(1), None, "pgoutput")
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


HOSTILE = [
    "x'; DROP",
    "a,b",
    "\\",
    "a\\'b",
    "é",
    "🐘",
    " ",
    "trailing ",
    "LOGICAL",
    "a\n;b",
    "(x)",
    "x" * 63,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_v15_names_stay_one_word_of_the_grammar(name: str) -> None:
    assert quoting.identifier(name) == f'"{name}"'
    assert replication.start_physical_command(name, 1, 2) == (
        f'START_REPLICATION SLOT "{name}" PHYSICAL 0/1 TIMELINE 2'
    )
    value = quoting.literal(name)
    assert value[1:-1].replace("''", "").count("'") == 0
    assert value[1:-1].replace("''", "'") == name


def test_v15_names_that_the_grammar_cannot_say() -> None:
    for name in ('a"b', "a\0b", "", '"'):
        with pytest.raises(UsageError, match="without quotes and zero bytes"):
            quoting.identifier(name)
    # The server would cut them off, and drop a slot of another name.
    for name in ("x" * 64, "é" * 32, "🐘" * 16):
        with pytest.raises(UsageError, match="at most 63 bytes.*got 64"):
            quoting.identifier(name)
    assert quoting.identifier("é" * 31)
    for say in (quoting.identifier, quoting.literal):
        with pytest.raises(UsageError, match="expected text that UTF-8 can say"):
            say("\ud800")
        assert say("\udcff")[1:-1] == "\udcff"
    with pytest.raises(UsageError, match="without zero bytes"):
        quoting.literal("a\0b")
    for names in ([], ["p", ""]):
        with pytest.raises(UsageError, match="one publication name or more"):
            quoting.publication_list(names)
    with pytest.raises(UsageError, match=r"use \['p'\]"):
        quoting.publication_list("p")


def test_v15_names_are_quoted() -> None:
    options = {
        "proto_version": "1",
        "publication_names": quoting.publication_list(["A,b\"c'd"]),
    }
    command = replication.start_logical_command("x'; DROP", 8443003424, options)
    assert command == (
        'START_REPLICATION SLOT "x\'; DROP" LOGICAL 1/F73E0220 '
        '("proto_version" \'1\', "publication_names" \'"A,b""c\'\'d"\')'
    )
    assert replication.is_logical(command)
    assert not replication.is_logical("START_REPLICATION PHYSICAL 0/0 TIMELINE 1")


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ((None, 0, None), "START_REPLICATION PHYSICAL 0/0"),
        ((None, 2**64 - 1, 2**32 - 1), "PHYSICAL FFFFFFFF/FFFFFFFF TIMELINE 4294967295"),
        (("s", 0x16B3740, None), 'START_REPLICATION SLOT "s" PHYSICAL 0/16B3740'),
        (("s", Lsn("1/A"), 1), 'START_REPLICATION SLOT "s" PHYSICAL 1/A TIMELINE 1'),
    ],
)
def test_physical_streams(arguments: tuple[Any, ...], command: str) -> None:
    said = replication.start_physical_command(*arguments)
    assert said.endswith(command)
    assert not replication.is_logical(said)


@pytest.mark.parametrize("timeline", [0, -1, 2**32])
def test_timelines_that_there_are_not(timeline: int) -> None:
    with pytest.raises(UsageError, match="expected a timeline from 1 to 4294967295"):
        replication.start_physical_command(None, 0, timeline)
    with pytest.raises(ValueError, match="expected an LSN"):
        replication.start_physical_command(None, -1, 1)


@pytest.mark.parametrize("command", ["SELECT 1", "start_replication 0/0", ""])
def test_only_a_stream_can_be_started(command: str) -> None:
    with pytest.raises(UsageError, match="expected a START_REPLICATION command, in upper case"):
        Dialogue(replication.start_streaming(ServerState(), command))


# Slots, on servers old and new

VERSIONS = [
    "10.23",
    "11.22",
    "12.22",
    "13.23",
    "14.19",
    "15.14",
    "16.10",
    "17.6",
    "18.4",
    "19beta1",
]


def said(conversation: Any, *messages: bytes) -> tuple[str, Any]:
    """The command of a conversation, and what it makes of the answer."""
    dialogue = Dialogue(conversation)
    dialogue.receive(*messages)
    return dialogue.sent[0][5:-1].decode(), dialogue.result


def major(version: str) -> int:
    return int(version[:2])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("temporary", [False, True])
@pytest.mark.parametrize("reserve_wal", [False, True])
def test_physical_slots(version: str, temporary: bool, reserve_wal: bool) -> None:
    command, slot = said(
        slots.create_physical_slot(
            state_of(version), "s", temporary=temporary, reserve_wal=reserve_wal
        ),
        *answer(("s", "0/0", None, None)),
    )
    expected = ['CREATE_REPLICATION_SLOT "s"']
    expected += ["TEMPORARY"] * temporary + ["PHYSICAL"]
    expected += ["RESERVE_WAL" if major(version) < 15 else "(RESERVE_WAL)"] * reserve_wal
    assert command == " ".join(expected)
    assert slot == slots.Slot("s", Lsn(0), None, None)


@pytest.mark.parametrize("version", VERSIONS)
def test_logical_slots(version: str) -> None:
    command = create(version, temporary=True, snapshot="export")
    expected = "(SNAPSHOT 'export')" if major(version) >= 15 else "EXPORT_SNAPSHOT"
    assert command == f'CREATE_REPLICATION_SLOT "s" TEMPORARY LOGICAL "pgoutput" {expected}'


@pytest.mark.parametrize("version", VERSIONS)
def test_slots_that_are_read(version: str) -> None:
    state = state_of(version)
    if major(version) < 15:
        with pytest.raises(UsageError, match="READ_REPLICATION_SLOT needs PostgreSQL 15 or later"):
            Dialogue(slots.read_slot(state, "s"))
        return
    for row, expected in (
        (("physical", "0/016B3740", "2"), slots.PhysicalSlot(Lsn(0x16B3740), 2)),
        (("physical", None, None), slots.PhysicalSlot(None, None)),
        ((None, None, None), None),
    ):
        command, slot = said(slots.read_slot(state, "s"), *answer(row, columns=3))
        assert (command, slot) == ('READ_REPLICATION_SLOT "s"', expected)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("logical", "0/1", "1"), "expected a slot of type 'physical', got 'logical'"),
        (("physical", "x", "1"), "expected an LSN"),
        (("physical", "0/1", "0"), "expected a timeline from 1 to 4294967295"),
        (("physical", "0/1", "4294967296"), "expected a timeline from 1 to 4294967295"),
        (("physical", "0/1", "-1"), "expected a number"),
    ],
)
def test_slots_that_make_no_sense(row: tuple[str, ...], words: str) -> None:
    dialogue = Dialogue(slots.read_slot(state_of("18.4"), "s"))
    assert words in refused(dialogue, *answer(row, columns=3))


@pytest.mark.parametrize(
    ("version", "options", "expected"),
    [
        ("17.6", {"failover": True}, '"s" (FAILOVER true)'),
        ("17.6", {"failover": False}, '"s" (FAILOVER false)'),
        ("18.4", {"two_phase": True}, '"s" (TWO_PHASE true)'),
        ("19beta1", {"failover": True, "two_phase": False}, '"s" (FAILOVER true, TWO_PHASE false)'),
        ("16.10", {"failover": True}, "ALTER_REPLICATION_SLOT needs PostgreSQL 17 or later"),
        ("10.23", {"two_phase": False}, "ALTER_REPLICATION_SLOT needs PostgreSQL 17 or later"),
        ("17.6", {"two_phase": True}, "slots whose two_phase is altered need PostgreSQL 18"),
        ("18.4", {}, "expected failover, two_phase or both to alter, got neither"),
    ],
)
def test_slots_that_are_altered(version: str, options: dict[str, bool], expected: str) -> None:
    settings: dict[str, Any] = {"failover": None, "two_phase": None}
    conversation = slots.alter_slot(state_of(version), "s", **settings | options)
    if not expected.startswith('"'):
        with pytest.raises(UsageError, match=expected):
            Dialogue(conversation)
        return
    complete = builders.command_complete("ALTER_REPLICATION_SLOT")
    assert said(conversation, complete, READY) == (f"ALTER_REPLICATION_SLOT {expected}", None)


@pytest.mark.parametrize("wait", [False, True])
def test_slots_that_are_dropped(wait: bool) -> None:
    # Servers up to 12 say that it is done twice.
    for tags in (["DROP_REPLICATION_SLOT"], ["DROP_REPLICATION_SLOT", "SELECT"]):
        done = [builders.command_complete(tag) for tag in tags]
        command, _ = said(slots.drop_slot(state_of("12.22"), "s", wait), *done, READY)
        assert command == 'DROP_REPLICATION_SLOT "s"' + " WAIT" * wait


def test_errors_of_slots_leave_the_connection_usable() -> None:
    for conversation in (
        slots.read_slot(state_of("18.4"), "s"),
        slots.alter_slot(state_of("18.4"), "s", failover=True, two_phase=None),
        slots.drop_slot(state_of("18.4"), "s", False),
        slots.create_physical_slot(state_of("18.4"), "s", temporary=False, reserve_wal=False),
    ):
        error = builders.error_response("no", sqlstate="0A000")
        assert "0A000" in refused(Dialogue(conversation), error, READY, kind=ServerError)


def test_a_slot_of_no_known_shape() -> None:
    dialogue = Dialogue(
        slots.create_physical_slot(state_of("18.4"), "s", temporary=False, reserve_wal=False)
    )
    with pytest.raises(ProtocolError, match="expected text in the server's answer, got NULL"):
        dialogue.receive(*answer((None, "0/0", None, None)))
