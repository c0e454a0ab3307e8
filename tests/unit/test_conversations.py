"""Notices, TLS, queries and what cannot be said, spoken without a connection."""

from __future__ import annotations

import logging
import struct

import pytest

from pgrepl.errors import (
    ServerError,
    ServerShutdown,
    TLSError,
    UsageError,
)
from pgrepl.protocol import frontend
from pgrepl.protocol.authentication import Credentials
from pgrepl.protocol.backend import ServerState
from pgrepl.protocol.conversation import Send
from pgrepl.protocol.query import Result, drain, simple_query
from pgrepl.protocol.startup import request_tls, start_up
from tests.support import builders
from tests.support.dialogue import Dialogue, refused

OK = builders.authentication(0)
READY = builders.ready_for_query()
FATAL = builders.error_response("go away", severity="FATAL", sqlstate="57P01")
ERROR = builders.error_response("no", sqlstate="42601")


# Notices


def starting(state: ServerState | None = None) -> Dialogue:
    return Dialogue(start_up(state or ServerState(), {"user": "ann"}, Credentials("ann")))


def test_notices_are_logged_and_cannot_steer_a_terminal(caplog: pytest.LogCaptureFixture) -> None:
    levels = {"WARNING": "WARNING", "NOTICE": "INFO", "DEBUG5": "DEBUG", "LOG": "INFO", "X": "INFO"}
    with caplog.at_level(logging.DEBUG, "pgrepl.notice"):
        for severity in levels:
            text = f"\x1b[2J {severity} \ud800"
            raw = text.encode("utf-8", "surrogatepass")
            message = builders.message(b"N", b"V%b\0M%b\0\0" % (severity.encode(), raw))
            starting().receive(message)
        starting().receive(builders.message(b"N", b"\0"))
    assert [each.levelname for each in caplog.records] == [*levels.values(), "INFO"]
    assert all(each.getMessage().isprintable() for each in caplog.records)


def test_a_notice_is_logged_with_its_detail_and_its_hint(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "pgrepl.notice"):
        shown = b"VWARNING\0C01000\0Mskipped\0DIt \xe9 \x1b.\0HCreate it.\0"
        starting().receive(builders.message(b"N", shown + b"WSQL secret\0qsecret\0\0"))
        starting().receive(builders.message(b"N", b"VNOTICE\0M" + b"m" * 9000 + b"\0\0"))
    first, second = (each.getMessage() for each in caplog.records)
    assert first == r"WARNING 01000: 'skipped' DETAIL: 'It \udce9 \x1b.' HINT: 'Create it.'"
    assert second.endswith("mmm...'")
    assert len(second) < 2100


def test_a_notice_of_a_publication_that_is_left_out_says_where(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fields = b"VWARNING\0C55000\0Mm\0Hh\0RLoadPublications\0Wassociated LSN 0/37241B0\0\0"
    starting().receive(builders.message(b"N", fields))
    [record] = caplog.records
    assert "HINT: 'h\\nthe server looks a publication up as of each" in record.getMessage()
    assert record.getMessage().endswith(" LSN: 0/37241B0")


# TLS


@pytest.mark.parametrize("required", [True, False])
def test_the_server_has_tls(required: bool) -> None:
    dialogue = Dialogue(request_tls(required))
    assert dialogue.sent == [struct.pack("!ii", 8, 80877103)]
    dialogue.receive_byte(b"S")
    assert not dialogue.ended
    assert dialogue.start_tls().result is True


def test_v18_the_server_has_no_tls() -> None:
    assert Dialogue(request_tls(False)).receive_byte(b"N").result is False
    with pytest.raises(TLSError, match="does not offer TLS, which this sslmode requires"):
        Dialogue(request_tls(True)).receive_byte(b"N")


def test_v2_any_other_answer_to_the_request_for_tls() -> None:
    for byte in (bytes((i,)) for i in range(256) if i not in b"SN"):
        shown = "an error message, which is not shown" if byte == b"E" else repr(byte)
        for required in (True, False):
            with pytest.raises(TLSError) as caught:
                Dialogue(request_tls(required)).receive_byte(byte)
            assert shown in str(caught.value)


# Queries


def asking(state: ServerState | None = None) -> Dialogue:
    return Dialogue(simple_query(state or ServerState(), "SELECT 1"))


def test_results_of_several_statements() -> None:
    dialogue = asking()
    assert dialogue.sent == [b"Q\0\0\0\x0dSELECT 1\0"]
    dialogue.receive(
        builders.row_description("a", "b"),
        builders.data_row("1", None),
        builders.notice_response("by the way"),
        builders.data_row("", "ü".encode("latin-1")),
        builders.command_complete("SELECT 2"),
        builders.command_complete("CREATE TABLE"),
        builders.row_description(),
        builders.data_row(),
        builders.command_complete("SELECT 1"),
        builders.empty_query_response(),
        builders.ready_for_query(b"T"),
    )
    assert dialogue.result == [
        Result(("a", "b"), [("1", None), ("", "\udcfc")], "SELECT 2"),
        Result((), [], "CREATE TABLE"),
        Result((), [()], "SELECT 1"),
        Result((), [], ""),
    ]


def test_the_transaction_status_is_known() -> None:
    for status in (b"I", b"T", b"E"):
        state = ServerState()
        asking(state).receive(builders.command_complete("X"), builders.ready_for_query(status))
        assert state.transaction_status == status


def test_an_error_is_raised_when_the_answer_was_read() -> None:
    dialogue = asking().receive(
        builders.row_description("a"),
        builders.data_row("1"),
        builders.error_response("first", sqlstate="22012"),
        builders.error_response("second"),
    )
    assert not dialogue.ended
    assert "ERROR 22012: first" in refused(dialogue, READY, kind=ServerError)


def test_a_fatal_error_is_raised_at_once() -> None:
    assert "FATAL 57P01: go away" in refused(asking(), ERROR, FATAL, kind=ServerShutdown)


@pytest.mark.parametrize(
    ("answer", "reply", "words"),
    [
        (
            [builders.copy_in_response(0, [0, 0]), builders.error_response("copy failed")],
            [b"f"],
            "COPY FROM STDIN",
        ),
        (
            [
                builders.copy_out_response(0, [0]),
                builders.copy_data(b"1\n"),
                builders.copy_done(),
                builders.command_complete("COPY 1"),
            ],
            [],
            "COPY TO STDOUT",
        ),
        (
            [
                builders.copy_both_response(),
                builders.copy_data(builders.keepalive(1)),
                builders.copy_done(),
                builders.command_complete("COPY 0"),
                builders.command_complete("START_REPLICATION"),
            ],
            [b"c"],
            "START_REPLICATION; use start_streaming()",
        ),
    ],
)
def test_a_query_that_copies_is_read_to_its_end_and_refused(
    answer: list[bytes], reply: list[bytes], words: str
) -> None:
    dialogue = asking()
    assert words in refused(dialogue, *answer, READY, kind=UsageError)
    assert [each[:1] for each in dialogue.sent[1:]] == reply


TWO = builders.row_description("a", "b")


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        (
            (builders.data_row("1"),),
            "expected RowDescription before the first row, got message b'D'",
        ),
        ((TWO, builders.data_row("1")), "expected a row of 2 columns as described, got 1"),
        ((TWO, builders.data_row(*"123")), "expected a row of 2 columns as described, got 3"),
        ((TWO, builders.message(b"D", b"\xff\xff")), "a row of 2 columns as described, got -1"),
        ((TWO, builders.message(b"D", b"\0")), "expected a field of 2 bytes in message b'D'"),
        (
            (TWO, builders.message(b"D", b"\0\2" + struct.pack("!i", -2))),
            "expected a column length of 0 or more, or -1 for NULL, got -2",
        ),
        (
            (TWO, builders.message(b"D", b"\0\2" + struct.pack("!i", -(2**31)))),
            "expected a column length of 0 or more, or -1 for NULL, got -2147483648",
        ),
        (
            (TWO, builders.message(b"D", b"\0\2" + struct.pack("!i", 2**31 - 1) + b"x")),
            "expected a field of 2147483647 bytes in message b'D', got its end after 7 bytes",
        ),
        ((TWO, builders.message(b"D", builders.data_row("1", "2")[5:] + b"x")), "got 1 more bytes"),
        ((builders.message(b"T", b"\xff\xff"),), "expected a number of columns, got -1"),
        ((builders.message(b"T", b"\x7f\xff"),), "a zero-terminated string in message b'T'"),
        ((builders.message(b"T", b"\0\1a\0" + bytes(17)),), "a field of 18 bytes in message b'T'"),
        ((builders.message(b"T", TWO[5:] + b"x"),), "the end of message b'T', got 1 more bytes"),
        ((builders.message(b"C", b"SELECT 1"),), "a zero-terminated string in message b'C'"),
        ((builders.message(b"C", b"SELECT\0x"),), "the end of message b'C', got 1 more bytes"),
        ((builders.message(b"I", b"x"),), "the end of message b'I', got 1 more bytes"),
        ((OK,), "expected the answer to a query, got message b'R' of 4 bytes"),
        (
            (builders.copy_data(b"x"),),
            "expected the answer to a query, got message b'd' of 1 bytes",
        ),
        ((builders.copy_done(),), "expected the answer to a query, got message b'c' of 0 bytes"),
        ((builders.message(b"1"),), "expected the answer to a query, got message b'1'"),
    ],
)
def test_v5_v6_v8_what_no_answer_to_a_query_holds(messages: tuple[bytes, ...], words: str) -> None:
    assert words in refused(asking(), *messages)


def test_what_is_left_of_an_answer_is_drained() -> None:
    dialogue = Dialogue(drain(ServerState())).receive(
        builders.copy_data(b"x"),
        ERROR,
        builders.command_complete("X"),
        builders.row_description("a"),
    )
    assert not dialogue.ended
    assert dialogue.receive(READY).ended
    assert "57P01" in refused(Dialogue(drain(ServerState())), FATAL, kind=ServerShutdown)


# What cannot be said


def test_v11_a_zero_byte_in_a_text_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match="without a zero byte"):
        Dialogue(simple_query(ServerState(), "SELECT '\0'"))
    with pytest.raises(ValueError, match="without a zero byte"):
        Dialogue(start_up(ServerState(), {"user": "a\0b"}, Credentials("ann")))


class Claims(bytes):
    """Bytes that claim to be a gibibyte."""

    def __len__(self) -> int:
        return (1 << 30) - 5


def test_v11_a_message_that_no_server_reads_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match="at most 1073741822 bytes, .* got 1073741823"):
        frontend.message(b"Q", Claims())
    assert frontend.message(b"Q", b"x" * 100) == b"Q\0\0\0\x68" + b"x" * 100


def test_v11_a_startup_message_that_no_server_reads_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 10000 bytes of startup parameters"):
        frontend.startup({"user": "u", "options": "x" * 10000})
    assert len(frontend.startup({"options": "x" * (10000 - 14)})) == 10004


def test_v17_what_is_sent_does_not_show() -> None:
    assert repr(Send(b"p secret")) == "Send(<8 bytes>)"
