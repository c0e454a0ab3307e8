"""What a server may go on with after authentication, without a word of what was asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from pgrepl.errors import ProtocolError
from tests.hostile.sessions import PATIENCE, address, assert_broken, begin_stream, streaming
from tests.support import builders
from tests.support.flavours import EVERY_FLAVOUR
from tests.support.scripted import Peer, Script, ScriptedServer, handshake

pytestmark = pytest.mark.flavours(*EVERY_FLAVOUR)

Connect = Callable[..., Any]


def goes_on(beginning: Callable[[Peer], object], make: Callable[[int], bytes]) -> Script:
    """A script that begins, and sends what is made of 0, 1 and so on until it is hung up on."""

    def script(peer: Peer) -> None:
        beginning(peer)
        number = 0
        while True:
            peer.send(b"".join(make(number + i) for i in range(50)))
            number += 50

    return script


def asked(peer: Peer) -> None:
    handshake(peer)
    peer.recv_query()


SETTINGS = {
    "many": lambda number: builders.parameter_status(f"name{number}", "x"),
    "long": lambda number: builders.parameter_status(f"name{number % 50}", "x" * 29_000),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_without_end(connect: Connect, name: str) -> None:
    """All of them are kept, so there is a limit to them; one may change as often as it likes."""
    with ScriptedServer(goes_on(asked, SETTINGS[name])) as server:
        connection = connect(**address(server))
        with pytest.raises(ProtocolError, match="at most 1000 settings in 1048576 bytes, got more"):
            connection.query("SELECT 1", timeout=PATIENCE)
        assert_broken(connection)
    with ScriptedServer(goes_on(begin_stream, SETTINGS[name])) as server:
        connection = streaming(connect, server)
        with pytest.raises(ProtocolError, match="at most 1000 settings in 1048576 bytes, got more"):
            connection.receive_wal_message(timeout=PATIENCE)
        assert_broken(connection)


def test_a_setting_that_changes_all_the_time(connect: Connect) -> None:
    def script(peer: Peer) -> None:
        asked(peer)
        for number in range(100):
            peer.send(builders.parameter_status("TimeZone", f"{number:02000d}"))
        peer.send(builders.command_complete("SELECT 0") + builders.ready_for_query())

    with ScriptedServer(script) as server, connect(**address(server)) as connection:
        connection.query("SELECT 1", timeout=PATIENCE)
        assert int(connection.parameters["TimeZone"]) == 99


def test_rows_without_end_for_a_command_that_has_one(connect: Connect) -> None:
    def begins(peer: Peer) -> None:
        asked(peer)
        peer.send(builders.row_description("a"))

    with ScriptedServer(goes_on(begins, lambda _: builders.data_row("x" * 10_000))) as server:
        connection = connect(**address(server))
        with pytest.raises(ProtocolError, match="at most 4194304 bytes in answer to this command"):
            connection.identify_system(timeout=PATIENCE)
        assert_broken(connection)


def test_a_notice_cannot_steer_a_terminal(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    notice = builders.notice_response("a\x1b[2J\nb", severity="\x1b]0;x\7\n", sqlstate="\u202e")
    with (
        ScriptedServer(lambda peer: handshake(peer, before_ready=[notice])) as server,
        caplog.at_level(logging.DEBUG, "pgrepl.notice"),
    ):
        connect(**address(server)).close()
    [told] = [each for each in caplog.records if each.name == "pgrepl.notice"]
    assert told.getMessage().isprintable()
    assert "a\\x1b[2J\\nb" in told.getMessage()
