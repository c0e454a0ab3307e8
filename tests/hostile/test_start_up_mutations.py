"""Recorded start-ups with a bit flipped, an end cut off, a message too few or too many.

Law: whatever comes of it is a session that was begun by the very words of the recording, an error
of the documented kinds, or a wait for the rest. A mutated exchange never proves anything, and no
mutation gets a client to send what it had not meant to send.
"""

from __future__ import annotations

import itertools
import secrets
import ssl
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

from pgrepl.conninfo.parameters import AuthenticationSettings
from pgrepl.errors import AuthenticationError, Error, ProtocolError, ServerError
from pgrepl.protocol.authentication import Credentials
from pgrepl.protocol.backend import ServerState
from pgrepl.protocol.channel_binding import end_point
from pgrepl.protocol.startup import start_up
from pgrepl.secret import Secret
from pgrepl.transport.attempts import STARTUP_LIMIT
from tests.support import builders
from tests.support.authenticating import CLEARTEXT, MD5, OK, REJECTED, SASL, SASL_PLUS
from tests.support.dialogue import Dialogue
from tests.support.scram import ScramServer

PASSWORD = "pencil"
RAW = PASSWORD.encode()
DOCUMENTED = (ProtocolError, AuthenticationError, ServerError)

BEGINNING = (
    builders.parameter_status("server_version", "18.0"),
    builders.parameter_status("client_encoding", "UTF8"),
    builders.notice_response("hello", severity="NOTICE"),
)
OLD_KEY = builders.backend_key_data()
NEW_KEY = builders.backend_key_data(key=bytes(range(32)))
READY = builders.ready_for_query()


@dataclass(frozen=True)
class Kind:
    """How a session begins: the server's messages, of which `steps` get an answer each."""

    request: bytes
    has_tls: bool = False
    channel_binding: Any = "prefer"
    version: int = 0x30000
    server: Callable[[], ScramServer] | None = None
    before: tuple[bytes, ...] = ()
    after: tuple[bytes, ...] = (OK, *BEGINNING, OLD_KEY, READY)


@pytest.fixture(scope="module")
def certificate(certificates: Any) -> bytes:

    return ssl.PEM_cert_to_DER_cert(certificates.server.certificate.read_text())


def kinds(certificate: bytes) -> dict[str, Kind]:
    def plain() -> ScramServer:
        return ScramServer(RAW, iterations=16)

    def bound() -> ScramServer:
        return ScramServer(RAW, iterations=16, end_point=end_point(certificate))

    new: dict[str, Any] = {
        "version": 0x30002,
        "after": (OK, *BEGINNING, NEW_KEY, READY),
    }
    return {
        "trust": Kind(OK, after=(*BEGINNING, OLD_KEY, READY)),
        "password": Kind(CLEARTEXT),
        "md5": Kind(MD5),
        "scram": Kind(SASL, server=plain),
        "scram over tls": Kind(SASL, has_tls=True, server=plain),
        "scram-plus": Kind(SASL_PLUS, has_tls=True, server=bound),
        "scram-plus required": Kind(
            SASL_PLUS, has_tls=True, channel_binding="require", server=bound
        ),
        "3.2": Kind(SASL, server=plain, **new),
        "3.2 negotiated down": Kind(
            SASL,
            server=plain,
            version=0x30002,
            before=(builders.negotiate_protocol_version(0x30000),),
        ),
        "rejected": Kind(CLEARTEXT, after=(REJECTED,)),
    }


KINDS = list(kinds(b""))


@pytest.fixture(autouse=True)
def the_same_nonce(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what a client says in an exchange of SCRAM depends on what it hears alone."""
    monkeypatch.setattr(secrets, "token_bytes", lambda size: bytes(range(size)))


class Recording:
    """A start-up that went well: what either side said."""

    def __init__(self, kind: Kind, certificate: bytes) -> None:
        self.kind = kind
        self._certificate = certificate if kind.has_tls else None
        dialogue = self.client()
        self.messages = [*kind.before, kind.request]
        dialogue.receive(*self.messages)
        if kind.server is not None:
            server = kind.server()
            client_first = dialogue.sent[1][5:].partition(b"\0")[2][4:]
            self._receive(dialogue, builders.authentication(11, server.first(client_first)))
            final = server.final(dialogue.sent[2][5:])
            self._receive(dialogue, builders.authentication(12, final))
        self.messages += kind.after
        with_error = REJECTED in kind.after
        try:
            dialogue.receive(*kind.after)
        except ServerError:
            assert with_error
        else:
            assert dialogue.ended
        self.sent = list(dialogue.sent)

    def _receive(self, dialogue: Dialogue, message: bytes) -> None:
        self.messages.append(message)
        dialogue.receive(message)

    @property
    def data(self) -> bytes:
        return b"".join(self.messages)

    def client(self) -> Dialogue:
        """Another client that says the same as long as it hears the same."""
        kind = self.kind
        credentials = Credentials(
            "ann",
            Secret(PASSWORD),
            AuthenticationSettings(channel_binding=kind.channel_binding, scram_max_iterations=1000),
            is_encrypted=kind.has_tls,
            is_local=True,
        )
        conversation = start_up(
            ServerState(),
            {"user": "ann"},
            credentials,
            max_protocol_version=kind.version,
        )
        return Dialogue(conversation, certificate=self._certificate)

    def hears(self, codec: ModuleType, data: bytes) -> Exception | bool:
        """What comes of these bytes: an error, or whether a session has begun."""
        dialogue = self.client()
        reader = codec.FrameReader()
        reader.limit = STARTUP_LIMIT
        reader.feed(data)
        outcome: Exception | bool
        try:
            while not dialogue.ended and (frame := reader.next_frame()) is not None:
                dialogue.receive(frame[0] + bytes(4) + frame[1])
            outcome = dialogue.ended
        except Error as error:
            outcome = error
        self._judge(dialogue, outcome)
        return outcome

    def _judge(self, dialogue: Dialogue, outcome: Exception | bool) -> None:
        """Whatever it has come to, nothing was given away, and no lie was believed."""
        if isinstance(outcome, Exception):
            assert isinstance(outcome, DOCUMENTED)
            assert PASSWORD not in str(outcome)
        proves = self.kind.server is not None
        if outcome is True and proves:
            assert dialogue.sent == self.sent
        assert dialogue.sent[0] == self.sent[0]
        for said in dialogue.sent[1:]:
            assert said[:1] == b"p"
            if self.kind.request != CLEARTEXT:
                assert RAW not in said
            if self.kind.channel_binding == "require":
                assert said in self.sent or said.startswith(self.sent[2][:5] + b"c=cD10")
            if proves:
                # Its parts are those of SCRAM alone, and each comes once.
                assert b"SCRAM-SHA-256" in said or b"c=" in said
        assert len(dialogue.sent) <= len(self.sent)


@pytest.fixture(params=KINDS)
def recording(request: pytest.FixtureRequest, certificate: bytes) -> Recording:
    return Recording(kinds(certificate)[request.param], certificate)


def test_the_recording_is_a_session(codec: ModuleType, recording: Recording) -> None:
    outcome = recording.hears(codec, recording.data)
    assert outcome is True or isinstance(outcome, ServerError)


def test_v22_every_bit_flipped(codec: ModuleType, recording: Recording) -> None:
    data = bytearray(recording.data)
    outcomes: list[Exception | bool] = []
    for at, bit in itertools.product(range(len(data)), range(8)):
        data[at] ^= 1 << bit
        outcomes.append(recording.hears(codec, bytes(data)))
        data[at] ^= 1 << bit
    errors = [each for each in outcomes if isinstance(each, Exception)]
    assert len(errors) > len(data), "most flips are errors"
    assert {True, False} & {each for each in outcomes if isinstance(each, bool)}


def test_v6_v22_every_end_cut_off(codec: ModuleType, recording: Recording) -> None:
    data = recording.data
    for size in range(len(data)):
        assert recording.hears(codec, data[:size]) is False


def test_every_message_cut_off_or_continued(codec: ModuleType, recording: Recording) -> None:
    """With a length that is right for what is left of it."""
    for number, message in enumerate(recording.messages):
        for body in (*(message[5:size] for size in range(5, len(message))), message[5:] + b"x"):
            changed = [*recording.messages]
            changed[number] = message[:1] + struct.pack("!i", len(body) + 4) + body
            recording.hears(codec, b"".join(changed))


def rearranged(messages: list[bytes]) -> Iterator[list[bytes]]:
    """With one message left out, said twice, or said before or after another."""
    for one, message in enumerate(messages):
        rest = messages[:one] + messages[one + 1 :]
        yield rest
        for other in range(len(messages) + 1):
            yield [*messages[:other], message, *messages[other:]]
            yield [*rest[:other], message, *rest[other:]]


def test_v22_every_message_left_out_repeated_or_moved(
    codec: ModuleType, recording: Recording
) -> None:
    for messages in rearranged(recording.messages):
        recording.hears(codec, b"".join(messages))
    # Nor are the requests of another kind of start-up answered in the middle of this one.
    asked = recording.messages.index(recording.kind.request) + 1
    for foreign in (OK, CLEARTEXT, MD5, SASL, SASL_PLUS, READY, REJECTED):
        for at in range(asked, len(recording.messages) + 1):
            messages = [*recording.messages[:at], foreign, *recording.messages[at:]]
            recording.hears(codec, b"".join(messages))
