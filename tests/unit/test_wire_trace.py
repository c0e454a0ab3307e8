"""Logger `pgrepl.wire`: what is said on a connection, and what is not told of it."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from pgrepl.transport.wire_trace import WireTrace
from tests.support import builders
from tests.support.canary import CANARY, CLEARTEXT, OK, READY, USER, found_in, scram_until
from tests.support.flavours import FEW_FLAVOURS
from tests.support.scripted import Peer, ScriptedServer, handshake

if TYPE_CHECKING:
    from tests.support.certificates import CertificateSet

pytestmark = pytest.mark.flavours(*FEW_FLAVOURS)

PATIENCE = 20
PAYLOAD = b"a row that nobody is to see"
SQL = "SELECT a_name_that_nobody_is_to_see"


def xlog_data(start: int, end: int) -> bytes:
    return builders.copy_data(builders.xlog_data(start, end, 0, PAYLOAD))


def keepalive(end: int, reply_requested: bool = False) -> bytes:
    return builders.copy_data(builders.keepalive(end, reply_requested=reply_requested))


def streams(peer: Peer) -> None:
    """Ask for a password, answer a query, stream, and go on with commands."""
    peer.recv_startup()
    peer.send(CLEARTEXT)
    peer.expect(b"p")
    peer.send(OK + builders.backend_key_data() + READY)
    peer.recv_query()
    peer.send(
        builders.row_description("a")
        + builders.data_row(PAYLOAD)
        + builders.command_complete("SELECT 1")
        + READY
    )
    peer.recv_query()
    peer.send(builders.copy_both_response())
    peer.send(xlog_data(0x10, 0x20) + xlog_data(0x30, 0x40) + keepalive(0x50, reply_requested=True))
    peer.expect(b"d")
    peer.send(builders.notice_response("what nobody is to see"))
    peer.send(xlog_data(0x60, 0x70))
    peer.expect(b"d")
    peer.expect(b"c")
    peer.send(builders.copy_done() + builders.command_complete("COPY 0") + READY)
    peer.expect(b"X")


def use(connect: Callable[..., Any], server: ScriptedServer) -> None:
    with connect(
        host=server.host, port=server.port, user=USER, password=CANARY, sslmode="disable"
    ) as connection:
        connection.query(SQL, timeout=PATIENCE)
        connection.start_streaming("START_REPLICATION SLOT s LOGICAL 0/0", timeout=PATIENCE)
        came = 0
        while came < 3:
            came += len(connection.receive_wal_messages(timeout=PATIENCE))
        connection.send_standby_status(0x50, 0x40, 0x30, reply_requested=True)
        assert len(connection.receive_wal_messages(timeout=PATIENCE)) == 1
        connection.send_standby_status(0x60, 0x50, 0x40)
        connection.stop_streaming(timeout=PATIENCE)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the trace says, without the numbers of connections."""
    told = [each.getMessage() for each in caplog.records if each.name == "pgrepl.wire"]
    assert len({each.partition(" ")[0] for each in told}) == 1
    return [each.partition(" ")[2] for each in told]


def test_what_is_told(connect: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "pgrepl.wire"), ScriptedServer(streams) as server:
        use(connect, server)
    told = lines(caplog)
    assert told[0] == f"connected to {server.host}:{server.port}"
    # The two reads may be one.
    at = next(index for index, each in enumerate(told) if each.startswith("< d "))
    end = next(index for index, each in enumerate(told) if each.startswith("> d "))
    size = len(xlog_data(0, 0)) * 2 + len(keepalive(0))
    if end == at + 1:
        assert told[at] == (
            "< d 2 XLogData, wal_start 0/10 to 0/30, wal_end 0/40; "
            f"1 PrimaryKeepalive, wal_end 0/50, reply requested, {size} bytes"
        )
    begun = told.index("< Z ReadyForQuery, 6 bytes")
    assert [re.sub(r"\d+ bytes", "n bytes", each) for each in told[1:begun]] == [
        "> StartupMessage, n bytes",
        "< R AuthenticationCleartextPassword, n bytes",
        "> p, an answer to that",
        "< R AuthenticationOk, n bytes",
        "< K BackendKeyData, process 4711, n bytes",
    ]
    # The settings of the session go with the first query.
    names = [each.partition(",")[0] for each in told[begun + 1 : at]]
    assert [name for name, _ in itertools.groupby(names)] == [
        "> Q Query",
        "< C CommandComplete",
        "< Z ReadyForQuery",
        "< T RowDescription",
        "< D DataRow",
        "< C CommandComplete",
        "< Z ReadyForQuery",
        "> Q Query",
        "< W CopyBothResponse",
    ]
    status = "> d StandbyStatusUpdate, written"
    one, notice = len(xlog_data(0, 0)), len(builders.notice_response("what nobody is to see"))
    assert told[end:] == [
        f"{status} 0/50, flushed 0/40, applied 0/30, reply requested, 39 bytes",
        f"< N NoticeResponse, SQLSTATE 00000, {notice} bytes",
        f"< d 1 XLogData, wal_start 0/60, wal_end 0/70, {one} bytes",
        f"{status} 0/60, flushed 0/50, applied 0/40, 39 bytes",
        "> c CopyDone, 5 bytes",
        "< c CopyDone, 5 bytes",
        f"< C CommandComplete, {len(builders.command_complete('COPY 0'))} bytes",
        "< Z ReadyForQuery, 6 bytes",
        "> X Terminate, 5 bytes",
    ]
    assert f"> Q Query, SELECT, {len(SQL) + 6} bytes" in told
    assert any(each.startswith("> Q Query, START_REPLICATION, ") for each in told)


def test_v17_what_is_not_told(
    connect: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """No payload, no SQL, and nothing of a password, nor how long it is."""
    with caplog.at_level(logging.DEBUG, "pgrepl.wire"):
        with ScriptedServer(streams) as server:
            use(connect, server)
        with ScriptedServer(scram_until(3)) as server, pytest.raises(Exception, match="."):
            connect(
                host=server.host, port=server.port, user=USER, password=CANARY, sslmode="disable"
            )
    records = [each for each in caplog.records if each.name == "pgrepl.wire"]
    told = "\n".join(each.getMessage() for each in records)
    assert told.count("> p, an answer to that") == 3
    told += "".join(str(vars(each)) for each in records)
    assert found_in(told) == []
    for secret in (PAYLOAD.decode(), SQL, "nobody is to see", USER, "\1\2\3\4"):
        assert secret not in told
    assert not re.search(rf"\b{len(CANARY) + 6}\b", told)


def test_tls(
    connect: Callable[..., Any], caplog: pytest.LogCaptureFixture, certificates: CertificateSet
) -> None:
    """Told as it is before it is encrypted, and the byte that comes before that."""

    def begins_tls(peer: Peer) -> None:
        peer.recv_startup()
        peer.send(b"S")
        peer.start_tls()
        handshake(peer)
        peer.expect(b"X")

    with (
        caplog.at_level(logging.DEBUG, "pgrepl.wire"),
        ScriptedServer(begins_tls, tls=certificates.server.server_context()) as server,
    ):
        connect(host=server.host, port=server.port, user=USER, sslmode="require").close()
    told = lines(caplog)
    assert told[1:3] == ["> SSLRequest, 8 bytes", "< S: TLS, in answer to that"]
    assert told[3].startswith("> StartupMessage, ")
    assert told[-1] == "> X Terminate, 5 bytes"


def test_nobody_wants_to_know(
    connect: Callable[..., Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The level is looked up when a connection is made. Without a trace there is no object that
    could cost anything."""
    monkeypatch.setattr(WireTrace, "__init__", lambda *_: pytest.fail("a trace"))
    with caplog.at_level(logging.INFO, "pgrepl.wire"), ScriptedServer(streams) as server:
        use(connect, server)
    assert not [each for each in caplog.records if each.name == "pgrepl.wire"]


def test_a_cancel_request_and_what_nobody_knows(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "pgrepl.wire"):
        trace = WireTrace("somewhere")
        trace.sent(bytes.fromhex("00000010 04d2162e 00001267 01020304"), is_reply=False)
        trace.received((b"?", b"x"))
        trace.sent(builders.message(b"d", b"r" + bytes(33)), is_reply=False)
        trace.sent(builders.message(b"d", b"h" + bytes(24)), is_reply=True)
        trace.sent(b"c\0\0\0\4X\0\0\0\4", is_reply=True)
        trace.sent(b"X\0\0", is_reply=True)
    assert lines(caplog) == [
        "connected to somewhere",
        "> CancelRequest, process 4711, 16 bytes",
        "< tag 0x3f, unknown, 6 bytes",
        "> d CopyData, 39 bytes",
        "> d HotStandbyFeedback, 30 bytes",
        "> c CopyDone, 5 bytes",
        "> X Terminate, 5 bytes",
    ]


def test_a_line_does_not_grow_with_what_came(
    connect: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """As many keepalives as a server that is far ahead sends are a run, like the WAL."""
    many = 500

    def sends_keepalives(peer: Peer) -> None:
        handshake(peer)
        peer.recv_query()
        peer.send(builders.copy_both_response())
        peer.send(b"".join(keepalive(end, reply_requested=end % 2 == 0) for end in range(many)))
        peer.expect_hang_up()

    with (
        caplog.at_level(logging.DEBUG, "pgrepl.wire"),
        ScriptedServer(sends_keepalives) as server,
        connect(host=server.host, port=server.port, user=USER, sslmode="disable") as connection,
    ):
        connection.start_streaming("START_REPLICATION SLOT s LOGICAL 0/0", timeout=PATIENCE)
        came = 0
        while came < many:
            came += len(connection.receive_wal_messages(timeout=PATIENCE))
        connection.disconnect()
    told = [each for each in lines(caplog) if each.startswith("< d ")]
    assert max(map(len, told)) < 150
    counts = [re.match(r"< d (\d+) PrimaryKeepalive, wal_end 0/0?", each) for each in told]
    assert sum(int(each[1]) for each in counts if each) == many
    if len(told) == 1:
        assert f"wal_end 0/0 to 0/1F3, reply requested by {many // 2}, " in told[0]


def test_each_record_says_of_which_connection_it_is(
    connect: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """As attributes, which a filter can choose by: the number, and the server's process."""

    def serves(peer: Peer) -> None:
        handshake(peer)
        peer.expect(b"X")

    with caplog.at_level(logging.DEBUG, "pgrepl.wire"), ScriptedServer(serves) as server:
        connection = connect(host=server.host, port=server.port, user=USER, sslmode="disable")
        process = connection.pid
        connection.close()
    records: list[Any] = [each for each in caplog.records if each.name == "pgrepl.wire"]
    assert {f"#{each.connection}" for each in records} == {records[0].args[0]}
    at = next(n for n, each in enumerate(records) if f"process {process}" in each.getMessage())
    assert {each.server_process for each in records[:at]} == {0}
    assert {each.server_process for each in records[at:]} == {process}


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("create\n  publication secret for table secret", ", CREATE PUBLICATION"),
        ("CREATE secret", ", CREATE"),
        ("ALTER ROLE secret PASSWORD 'secret'", ", ALTER ROLE"),
        ("START_REPLICATION SLOT secret", ", START_REPLICATION"),
        ("  \t" * 40 + "SELECT", ""),
        ("secret", ""),
        ("SELECTsecret", ""),
        ("SELECT table", ", SELECT"),
        ("-- secret", ""),
        ("\u0131nsert", ""),
        ("", ""),
    ],
)
def test_what_is_told_of_a_command(caplog: pytest.LogCaptureFixture, sql: str, told: str) -> None:
    """A word or two of lists, never one that somebody has made up."""
    query = builders.message(b"Q", sql.encode() + b"\0")
    with caplog.at_level(logging.DEBUG, "pgrepl.wire"):
        WireTrace("somewhere").sent(query, is_reply=False)
    assert lines(caplog)[1] == f"> Q Query{told}, {len(query)} bytes"


@pytest.mark.parametrize(
    ("tag", "body", "told"),
    [
        (b"E", b"SERROR\0C42P01\0Mwhat is secret\0\0", "E ErrorResponse, SQLSTATE 42P01"),
        (b"E", b"SERROR\0Csecret\0MC42P01\0\0", "E ErrorResponse"),
        (b"N", b"C4\xb22P0\0\0", "N NoticeResponse"),
        (b"R", b"\0\0\0\x0aSCRAM-SHA-256\0\0", "R AuthenticationSASL"),
        (b"R", b"\0\0\0\x63", "R Authentication, unknown"),
        (b"R", b"", "R Authentication, unknown"),
        (b"K", b"\0\0\0\x01", "K BackendKeyData"),
    ],
)
def test_what_is_told_of_an_answer(
    caplog: pytest.LogCaptureFixture, tag: bytes, body: bytes, told: str
) -> None:
    """Codes that are what they should be."""
    with caplog.at_level(logging.DEBUG, "pgrepl.wire"):
        trace = WireTrace("somewhere")
        trace.received((tag, body))
        for answer in (b"N", b"E", b"?", b""):
            trace.received_byte(answer)
    assert lines(caplog)[1:] == [
        f"< {told}, {len(body) + 5} bytes",
        "< N: no TLS, in answer to that",
        "< E: an error, in answer to that",
        "< unknown, in answer to that",
        "< unknown, in answer to that",
    ]
