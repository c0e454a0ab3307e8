"""A server that plays a script: for what a real one never does, and for what it does rarely.

    def script(peer: Peer) -> None:
        handshake(peer)
        assert peer.recv_query() == "IDENTIFY_SYSTEM"
        peer.send(error_response("no", sqlstate="42501") + ready_for_query())

    with ScriptedServer(script) as server:
        client(server.host, server.port)

The script runs in a thread for each connection. What it raises, a failed `assert` above all,
comes out of the `with` block. A client that hangs up early ends the script quietly: that is often
the very thing under test, and `server.hang_ups` counts it. Nothing waits longer than `timeout`.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from tests.support import builders

PROTOCOL_3_0: Final = 196608
PROTOCOL_3_2: Final = 196610
CANCEL_REQUEST: Final = 80877102
SSL_REQUEST: Final = 80877103
GSSENC_REQUEST: Final = 80877104

SERVER_PARAMETERS: Final[Mapping[str, str]] = {
    "server_version": "18.0 (scripted)",
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "GMT",
    "integer_datetimes": "on",
    "standard_conforming_strings": "on",
    "is_superuser": "on",
    "in_hot_standby": "off",
}

_ACCEPT_POLL: Final = 0.02


class HangUp(Exception):
    """The client has closed the connection, or refused the TLS handshake."""


@dataclass(frozen=True, slots=True)
class Startup:
    """A packet without a tag. `parameters` are those of a StartupMessage, else nothing."""

    code: int
    parameters: Mapping[str, str]
    body: bytes


class Peer:
    """The server's side of one connection, for a script to use.

    Every wait ends after the server's `timeout` with a `TimeoutError` that says what was awaited.
    """

    def __init__(self, connection: socket.socket, tls: ssl.SSLContext | None) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._tls = tls
        # Whether the client sets its session's settings ahead of its first command, which goes
        # without saying: they are taken, and only the command is shown.
        self.expects_settings = False

    @property
    def has_tls(self) -> bool:
        """Whether `start_tls` can be used."""
        return self._tls is not None

    def start_tls(self) -> None:
        """The server's half of a TLS handshake; all that follows is encrypted."""
        assert self._tls is not None, "the ScriptedServer was made without tls="
        try:
            self._socket = self._tls.wrap_socket(self._socket, server_side=True)
        except (ssl.SSLError, ConnectionError) as error:
            raise HangUp(f"during the TLS handshake: {error}") from error

    def recv_exactly(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        received = bytearray()
        while len(received) < size:
            try:
                piece = self._socket.recv(size - len(received))
            except TimeoutError:
                raise TimeoutError(
                    f"the client sent nothing more: expected {size} bytes, has {bytes(received)!r}"
                ) from None
            except (ConnectionError, ssl.SSLError) as error:
                raise HangUp(str(error)) from error
            if not piece:
                raise HangUp(f"expected {size} bytes, the connection ended after {len(received)}")
            received += piece
        return bytes(received)

    def recv_startup(self) -> Startup:
        """A packet without a tag: StartupMessage, SSLRequest, GSSENCRequest or CancelRequest."""
        length, code = struct.unpack("!ii", self.recv_exactly(8))
        assert 8 <= length <= 10000, f"the client's first packet claims a length of {length}"
        body = self.recv_exactly(length - 8)
        texts = body.decode().split("\0")[:-2] if code >> 16 == 3 else []
        parameters = dict(zip(texts[::2], texts[1::2], strict=True))
        self.expects_settings = parameters.get("replication") == "database"
        return Startup(code, parameters, body)

    def recv_message(self) -> tuple[bytes, bytes]:
        """A message as (tag, body)."""
        header = self.recv_exactly(5)
        (length,) = struct.unpack("!i", header[1:])
        assert length >= 4, f"the client's message {header[:1]!r} claims a length of {length}"
        message = header[:1], self.recv_exactly(length - 4)
        if not (self.expects_settings and message[0] == b"Q" and message[1].startswith(b"SET ")):
            return message
        self.expects_settings = False
        count = message[1].count(b";") + 1
        self.send(builders.command_complete("SET") * count + builders.ready_for_query())
        return self.recv_message()

    def expect(self, tag: bytes) -> bytes:
        """The body of a message that must have this tag."""
        received, body = self.recv_message()
        assert received == tag, f"expected a message {tag!r}, the client sent {received!r} {body!r}"
        return body

    def recv_query(self) -> str:
        """The SQL or replication command of a Query."""
        return self.expect(b"Q")[:-1].decode()

    def expect_hang_up(self) -> None:
        """The client must close now, and say no more than goodbye (Terminate) before that."""
        try:
            rest = self.recv_message()
            assert rest == (b"X", b""), f"expected the end of the connection, got {rest!r}"
            rest = self.recv_message()
        except HangUp:
            return
        raise AssertionError(f"expected the end of the connection, got {rest!r}")

    def send(self, data: bytes) -> None:
        """Send it all."""
        try:
            self._socket.sendall(data)
        except TimeoutError:
            raise TimeoutError(f"the client does not read the {len(data)} bytes sent") from None
        except (ConnectionError, ssl.SSLError) as error:
            raise HangUp(str(error)) from error

    def send_slowly(self, data: bytes, step: int = 1, pause: float = 0.0005) -> None:
        """Send `step` bytes at a time, `pause` seconds apart, so that they come in pieces."""
        for offset in range(0, len(data), step):
            self.send(data[offset : offset + step])
            time.sleep(pause)

    def interrupt(self) -> None:
        """Let whatever waits for this connection, in whichever thread, find it ended."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the connection in an orderly way; no TLS close_notify, as with real servers.

        What the client has sent by now is read first, since closing on it would be a reset.
        """
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            self._socket.setblocking(False)
            while self._socket.recv(65536):
                pass
        self._socket.close()

    def reset(self) -> None:
        """End it with a TCP RST, as a crashed machine or a firewall does."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


Script = Callable[[Peer], object]


class ScriptedServer:
    """Plays scripts to the clients that connect, each connection in a thread of its own.

    Args:
        scripts: one for every connection, or several for one connection each, in that order; who
            comes after those is hung up on.
        tls: what `Peer.start_tls` presents; None: the server has no TLS.
        timeout: seconds for each wait of the scripts, and for them to end after the client.
    """

    host: Final = "127.0.0.1"

    def __init__(
        self, *scripts: Script, tls: ssl.SSLContext | None = None, timeout: float = 10.0
    ) -> None:
        if not scripts:
            raise ValueError("a scripted server needs a script")
        self._scripts = scripts
        self._tls = tls
        self._timeout = timeout
        self._listener = socket.create_server((self.host, 0))
        self._listener.settimeout(_ACCEPT_POLL)
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.hang_ups = 0
        self._errors: list[BaseException] = []
        self._closing = threading.Event()
        self._peers: list[Peer] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.set()
        # After a failure in the test the scripts wait in vain.
        if not self._all_ended(within=self._timeout if error is None else 0.1):
            for peer in self._peers:
                peer.interrupt()
            self._all_ended(within=self._timeout)
            self._errors.append(
                TimeoutError(f"a script has not ended {self._timeout:g} s after the client")
            )
        self._listener.close()
        if error is None and self._errors:
            raise self._errors[0]
        if error is not None:
            for each in self._errors:
                error.add_note(f"The scripted server failed too: {each!r}")

    def _all_ended(self, within: float) -> bool:
        deadline = time.monotonic() + within
        for thread in self._threads:  # grows while the accepting thread, its first, still runs
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _accept(self) -> None:
        """Also takes whoever came before the test was over, and was not seen by then."""
        while True:
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                if self._closing.is_set():
                    return
                continue
            several, number = len(self._scripts) > 1, self.connections
            self.connections += 1
            if several and number >= len(self._scripts):
                connection.close()
                continue
            connection.settimeout(self._timeout)
            peer = Peer(connection, self._tls)
            script = self._scripts[number if several else 0]
            self._peers.append(peer)
            self._threads.append(
                threading.Thread(target=self._play, args=(script, peer), daemon=True)
            )
            self._threads[-1].start()

    def _play(self, script: Script, peer: Peer) -> None:
        try:
            script(peer)
        except HangUp:
            self.hang_ups += 1
        except BaseException as error:  # it comes out of the `with` block, in the test's thread
            self._errors.append(error)
        finally:
            peer.close()


def handshake(
    peer: Peer,
    *,
    parameters: Mapping[str, str] = SERVER_PARAMETERS,
    before_ready: Iterable[bytes] = (),
) -> Startup:
    """Let the client in without a password and become idle; returns its StartupMessage.

    A wish for TLS is granted if the server has TLS, one for GSS is refused. `before_ready` are
    messages to send before ReadyForQuery.
    """
    startup = negotiate(peer)
    assert startup.code >> 16 == 3, f"expected a StartupMessage, got code {startup.code}"
    peer.send(
        builders.authentication(builders.AUTHENTICATION_OK)
        + b"".join(builders.parameter_status(k, v) for k, v in parameters.items())
        + builders.backend_key_data()
        + b"".join(before_ready)
        + builders.ready_for_query()
    )
    return startup


def negotiate(peer: Peer) -> Startup:
    """Answer requests for encryption; returns the StartupMessage or CancelRequest after them."""
    while (startup := peer.recv_startup()).code in (SSL_REQUEST, GSSENC_REQUEST):
        if startup.code == SSL_REQUEST and peer.has_tls:
            peer.send(b"S")
            peer.start_tls()
        else:
            peer.send(b"N")
    return startup
