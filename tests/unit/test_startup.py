"""From the first byte to the first ReadyForQuery: what is said, what may come, how much of it."""

from __future__ import annotations

import struct

import pytest

from pgrepl.errors import AuthenticationRejected, ProtocolError, ServerError
from pgrepl.protocol import frontend
from pgrepl.protocol.authentication import Credentials
from pgrepl.protocol.backend import ServerState
from pgrepl.protocol.startup import start_up
from pgrepl.secret import Secret
from tests.support import builders
from tests.support.dialogue import Dialogue, refused

OK = builders.authentication(0)
CLEARTEXT = builders.authentication(3)
READY = builders.ready_for_query()
V3_0, V3_2 = 0x30000, 0x30002


def starting(
    state: ServerState | None = None, *, lowest: int = V3_0, highest: int = V3_0
) -> Dialogue:
    credentials = Credentials("ann", Secret("pencil"), is_local=True)
    return Dialogue(
        start_up(
            state or ServerState(),
            {"user": "ann"},
            credentials,
            min_protocol_version=lowest,
            max_protocol_version=highest,
        )
    )


def test_a_session_begins() -> None:
    state = ServerState()
    dialogue = Dialogue(start_up(state, {"user": "ann", "database": "shop"}, Credentials("ann")))
    body = struct.pack("!i", 3 << 16) + b"user\0ann\0database\0shop\0\0"
    assert dialogue.sent == [struct.pack("!i", len(body) + 4) + body]
    dialogue.receive(
        builders.notice_response("hello"),
        OK,
        builders.parameter_status("server_version", "15.18 (Debian 15.18-1)"),
        builders.parameter_status("client_encoding", "UTF8"),
        builders.backend_key_data(4711, b"\1\2\3\4"),
    )
    assert not dialogue.ended
    dialogue.receive(READY)
    assert dialogue.ended
    assert len(dialogue.sent) == 1
    assert (state.pid, state.cancel_key, state.transaction_status) == (
        4711,
        b"\1\2\3\4",
        b"I",
    )
    assert state.version == 150018
    assert state.protocol_version == V3_0
    assert state.parameters["client_encoding"] == "UTF8"


@pytest.mark.parametrize(
    ("text", "number"),
    [("18.4", 180004), ("19beta1", 190000), ("9.6.24", 90006), ("10.23 (x)", 100023), ("", 0)]
    + [("devel", 0), ("99999", 99990000)],
)
def test_the_servers_version(text: str, number: int) -> None:
    state = ServerState()
    starting(state).receive(OK, builders.parameter_status("server_version", text), READY)
    assert state.version == number
    assert ServerState().version == 0


@pytest.mark.parametrize("before", [(), (OK,), (OK, builders.backend_key_data())])
@pytest.mark.parametrize(
    ("sqlstate", "kind", "retryable"),
    [
        ("57P03", ServerError, True),  # starting up or shutting down: another host may serve
        ("53300", ServerError, True),
        ("3D000", ServerError, False),
        ("28000", AuthenticationRejected, False),
        ("28P01", AuthenticationRejected, False),
    ],
)
def test_the_server_turns_the_session_away(
    before: tuple[bytes, ...], sqlstate: str, kind: type[ServerError], retryable: bool
) -> None:
    message = builders.error_response("go away", severity="FATAL", sqlstate=sqlstate)
    dialogue = starting().receive(*before)
    with pytest.raises(kind) as caught:
        dialogue.receive(message)
    assert type(caught.value) is kind
    assert (caught.value.sqlstate, caught.value.retryable) == (sqlstate, retryable)
    assert str(caught.value) == f"FATAL {sqlstate}: go away"


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ((READY,), "expected an Authentication message, got message b'Z' of 1 bytes"),
        ((builders.message(b"R"),), "expected a field of 4 bytes in message b'R', got its end"),
        ((builders.message(b"R", b"\0\0\0"),), "expected a field of 4 bytes in message b'R'"),
        (
            (OK[:1] + OK[1:] + b"x",),
            "expected the end of message b'R', got 1 more bytes (offset 4)",
        ),
        ((OK, OK), "expected BackendKeyData or ReadyForQuery, got message b'R'"),
        (
            (OK, builders.copy_data(b"x")),
            "expected BackendKeyData or ReadyForQuery, got message b'd'",
        ),
        ((OK, builders.message(b"K", b"\0\0")), "expected a field of 4 bytes in message b'K'"),
        ((OK, builders.message(b"S", b"name\0value")), "a zero-terminated string in message b'S'"),
        ((OK, builders.message(b"S", b"name\0value\0x")), "expected the end of message b'S'"),
        ((OK, builders.message(b"N", b"Mtext")), "a zero-terminated string in message b'N'"),
        ((OK, builders.message(b"N", b"Mtext\0")), "a field of 1 bytes in message b'N'"),
        ((OK, builders.message(b"E", b"\0x")), "expected the end of message b'E'"),
        (
            (OK, builders.ready_for_query(b"")),
            "transaction status I, T or E in ReadyForQuery, got b''",
        ),
        (
            (OK, builders.ready_for_query(b"X")),
            "transaction status I, T or E in ReadyForQuery, got b'X'",
        ),
        ((OK, builders.ready_for_query(b"II")), "status I, T or E in ReadyForQuery, got b'II'"),
        ((OK, builders.parameter_status("client_encoding", "LATIN1"), READY), "got 'LATIN1'"),
        ((OK, builders.negotiate_protocol_version()), "or ReadyForQuery, got message b'v'"),
    ],
)
def test_what_has_no_place_in_a_start_up(messages: tuple[bytes, ...], words: str) -> None:
    assert words in refused(starting(), *messages)


# What may come before authentication is over, and how much


@pytest.mark.parametrize("before", [(), (CLEARTEXT,)], ids=["at first", "in an exchange"])
@pytest.mark.parametrize(
    "message",
    [
        builders.parameter_status("TimeZone", "UTC"),
        builders.notification_response("channel"),
        builders.backend_key_data(),
        READY,
        builders.row_description("a"),
        builders.copy_both_response(),
    ],
    ids=lambda message: message[:1].decode(),
)
def test_v7_only_a_few_messages_may_come_before_authentication_is_over(
    before: tuple[bytes, ...], message: bytes
) -> None:
    dialogue = starting().receive(builders.notice_response("hello"), *before)
    said = refused(dialogue, message)
    assert f"expected an Authentication message, got message {message[:1]!r}" in said


def padded(tag: bytes, body: bytes, length: int) -> bytes:
    """A message of this length, which is counted as in its header."""
    return builders.message(tag, body.ljust(length - 4, b"x"))


@pytest.mark.parametrize(
    ("tag", "body", "limit"),
    [(b"R", b"\0\0\0\x0a", 2000), (b"v", b"", 2000), (b"E", b"Mno", 30000), (b"N", b"M", 30000)],
)
def test_v7_a_message_before_authentication_is_over_is_bounded(
    tag: bytes, body: bytes, limit: int
) -> None:
    words = f"expected a length of at most {limit} for message {tag!r} before authentication"
    assert words in refused(starting(highest=V3_2), padded(tag, body, limit + 1))
    # It is not its length that the longest is refused for.
    assert words not in refused(starting(highest=V3_2), padded(tag, body, limit))
    if tag in b"EN":
        assert words not in refused(starting(), OK, padded(tag, body, limit + 1))


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ((), builders.notice_response("still here")),
        ((OK,), builders.notice_response("still here")),
        ((OK,), builders.parameter_status("TimeZone", "UTC")),
        ((OK,), builders.notification_response("channel")),
        ((OK,), builders.backend_key_data()),
    ],
    ids=["notices at first", "notices", "settings", "notifications", "keys"],
)
def test_v7_a_start_up_takes_no_end_of_messages(message: bytes, before: tuple[bytes, ...]) -> None:
    bound = 1000
    dialogue = starting().receive(*before, *[message] * (bound - len(before)))
    assert "expected at most 1000 messages before the server is ready" in refused(dialogue, message)
    enough = starting().receive(*[message] * (not before), OK, *[message] * (bound - 3), READY)
    assert enough.ended


def test_v7_a_start_up_takes_no_end_of_bytes() -> None:
    setting = builders.parameter_status("search_path", "x" * 60_000)
    fitting = (1 << 20) // len(setting)
    dialogue = starting().receive(OK, *[setting] * fitting)
    said = refused(dialogue, setting)
    assert "expected at most 1048576 bytes before the server is ready, got more" in said
    notice = builders.notice_response("x" * 29_000)
    dialogue = starting().receive(*[notice] * ((1 << 20) // len(notice)))
    assert "expected at most 1048576 bytes" in refused(dialogue, notice)


# The version of the protocol


def version(number: int, *names: str) -> bytes:
    return builders.negotiate_protocol_version(number, names)


def test_the_version_that_is_asked_for() -> None:
    for highest in (V3_0, V3_2, 0x3270F):
        state = ServerState()
        dialogue = starting(state, highest=highest)
        assert dialogue.sent[0][4:8] == struct.pack("!i", highest)
        assert dialogue.receive(OK, READY).ended
        assert state.protocol_version == highest


@pytest.mark.parametrize(
    ("highest", "offered"), [(V3_2, V3_0), (0x3270F, V3_2), (0x3270F, V3_0), (0x30003, V3_2)]
)
def test_the_server_comes_down_to_an_older_version(highest: int, offered: int) -> None:
    state = ServerState()
    key = bytes(4) if offered == V3_0 else bytes(32)
    dialogue = starting(state, highest=highest)
    dialogue.receive(builders.notice_response("hello"), version(offered))
    dialogue.receive(OK, builders.backend_key_data(1, key), READY)
    assert dialogue.ended
    assert len(dialogue.sent) == 1
    assert (state.protocol_version, state.cancel_key) == (offered, key)


def test_the_server_does_not_come_down_as_far_as_this_side_goes() -> None:
    said = refused(starting(lowest=V3_2, highest=0x3270F), version(V3_0))
    assert "speaks 3.2 as min_protocol_version demands, got one that speaks 3.0" in said
    assert starting(lowest=V3_2, highest=0x3270F).receive(version(V3_2), OK, READY).ended


@pytest.mark.parametrize(
    ("highest", "message", "words"),
    [
        (V3_2, version(V3_2), "a version below 3.2 as asked for, got 3.2"),
        (V3_0, version(V3_0), "a version below 3.0 as asked for, got 3.0"),
        (V3_0, version(V3_2), "a version below 3.0 as asked for, got 3.2"),
        (V3_2, version(0x30003), "a version below 3.2 as asked for, got 3.3"),
        (V3_2, version(0x30001), "a version 3, but not 3.1, got 3.1"),
        (V3_2, version(0x20000), "a version 3, but not 3.1, got 2.0"),
        (V3_2, version(0x2FFFF), "a version 3, but not 3.1, got 2.65535"),
        (V3_2, version(0x40000), "a version 3, but not 3.1, got 4.0"),
        (V3_2, version(0), "a version 3, but not 3.1, got 0.0"),
        (V3_2, version(-1), "a version 3, but not 3.1, got -1.65535"),
        (V3_2, version(V3_0, "_pq_.x"), "no unknown protocol options, got 1 of them"),
        (V3_2, version(V3_0, "x", "y"), "no unknown protocol options, got 2 of them"),
        (V3_2, version(V3_2, "_pq_.x"), "no unknown protocol options, got 1 of them"),
        (
            V3_2,
            builders.message(b"v", struct.pack("!ii", V3_0, -1)),
            "no unknown protocol options, got -1 of them",
        ),
        (
            V3_2,
            builders.message(b"v", struct.pack("!ii", V3_0, 2**31 - 1)),
            "no unknown protocol options, got 2147483647 of them",
        ),
        (V3_2, builders.message(b"v", bytes(7)), "expected a field of 4 bytes in message b'v'"),
        (V3_2, builders.message(b"v"), "expected a field of 4 bytes in message b'v'"),
        (
            V3_2,
            builders.message(b"v", struct.pack("!ii", V3_0, 0) + b"x"),
            "expected the end of message b'v', got 1 more bytes (offset 8)",
        ),
    ],
)
def test_a_negotiation_that_makes_no_sense(highest: int, message: bytes, words: str) -> None:
    dialogue = starting(highest=highest)
    assert words in refused(dialogue, message)
    assert len(dialogue.sent) == 1


def test_the_version_is_negotiated_once_and_before_anything_else() -> None:
    for before in ((version(V3_0),), (CLEARTEXT,), (version(V3_0), CLEARTEXT)):
        said = refused(starting(highest=V3_2), *before, version(V3_0))
        assert "expected an Authentication message, got message b'v' of 8 bytes" in said
    said = refused(starting(highest=V3_2), OK, version(V3_0))
    assert "expected BackendKeyData or ReadyForQuery, got message b'v'" in said


# The key to cancel by


@pytest.mark.parametrize(
    ("highest", "sizes", "bad", "words"),
    [
        (V3_0, (4,), (0, 1, 3, 5, 32, 256), "of 4 to 4 bytes in protocol 3.0"),
        (V3_2, (1, 4, 32, 256), (0, 257, 1000), "of 1 to 256 bytes in protocol 3.2"),
    ],
)
def test_the_length_of_the_cancel_key(
    highest: int, sizes: tuple[int, ...], bad: tuple[int, ...], words: str
) -> None:
    for size in sizes:
        state = ServerState()
        key = bytes(range(256))[:size]
        dialogue = starting(state, highest=highest)
        assert dialogue.receive(OK, builders.backend_key_data(-5, key), READY).ended
        assert (state.pid, state.cancel_key) == (-5, key)
    for size in bad:
        state = ServerState()
        dialogue = starting(state, highest=highest)
        said = refused(dialogue, OK, builders.backend_key_data(1, bytes(size)))
        assert f"expected a cancel key {words}, got {size}" in said
        assert (state.pid, state.cancel_key) == (0, b"")


def test_a_server_may_have_no_key() -> None:
    state = ServerState()
    assert starting(state).receive(OK, READY).ended
    assert (state.pid, state.cancel_key) == (0, b"")


def test_what_a_cancel_request_says() -> None:
    request = frontend.cancel_request(4711, b"\1\2\3\4")
    assert request == struct.pack("!iii", 16, 80877102, 4711) + b"\1\2\3\4"
    request = frontend.cancel_request(-1, bytes(32))
    assert request == struct.pack("!iii", 44, 80877102, -1) + bytes(32)
    assert len(frontend.cancel_request(1, bytes(256))) == 268
    for key in (b"", bytes(257)):
        with pytest.raises(ValueError, match=f"of 1 to 256 bytes, got {len(key)}"):
            frontend.cancel_request(1, key)


def test_an_error_of_the_protocol_names_message_and_offset() -> None:
    with pytest.raises(ProtocolError) as caught:
        starting(highest=V3_2).receive(version(V3_0, "x"))
    assert (caught.value.tag, caught.value.offset) == (b"v", 4)
    with pytest.raises(ProtocolError) as caught:
        starting().receive(OK, builders.backend_key_data(1, b"x"))
    assert (caught.value.tag, caught.value.offset) == (b"K", 4)
