"""A TCP proxy that misbehaves as networks do: between a client and a real server.

    with Proxy((cluster.host, cluster.port), slicing=one_byte()) as proxy:
        client(proxy.host, proxy.port)
        proxy.stall()      # both directions freeze, the connections stay open
        proxy.resume()
        proxy.cut()        # RST to both sides

What the server sends is cut into other pieces than it came in by a `Slicing`; what the client sends
passes as it is. New connections are always taken, also after `cut`. An error in the proxy's thread
comes out of the `with` block.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Final, Self

# How many of `waiting` bytes go out as the next piece; 0: wait for more. `idle` says that nothing
# more has come for `_IDLE` seconds, and then it must not be 0, or the stream would stand still.
Slice = Callable[[int, bool], int]
# Makes the policy of one connection, so that each begins anew with the same seed.
Slicing = Callable[[], Slice]

_IDLE: Final = 0.02
_PATIENCE: Final = 10.0
_BUFFER: Final = 1 << 18
_READ: Final = 1 << 16


def whole() -> Slicing:
    """Pass on what has come, as it has come."""
    return lambda: lambda waiting, idle: waiting


def one_byte() -> Slicing:
    """One byte a segment."""
    return lambda: lambda waiting, idle: 1


def random_pieces(seed: int, largest: int = 64) -> Slicing:
    """Pieces of 1 to `largest` bytes, drawn anew from `seed` in each connection."""

    def policy() -> Slice:
        sizes = random.Random(seed)
        return lambda waiting, idle: min(waiting, sizes.randint(1, largest))

    return policy


def coalesce(size: int) -> Slicing:
    """Hold everything back until there are `size` bytes, or until the server pauses."""
    return lambda: lambda waiting, idle: waiting if idle or waiting >= size else 0


class _Side:
    """A socket, and the bytes that wait to be sent to it."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection
        self.waiting = bytearray()
        self.last_arrival = 0.0
        self.at_end = False  # it will send no more
        self.broken = False  # because it was reset
        self.told = False  # it knows that the other side will send no more

    def close(self) -> None:
        """Send what the kernel has, then FIN. Closing on unread bytes would be a reset."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
            while self.socket.recv(_READ):
                pass
        self.socket.close()

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class _Link:
    """One client's connection and the one to the server that belongs to it."""

    def __init__(self, client: _Side, server: _Side, cut: Slice) -> None:
        self.client = client
        self.server = server
        self.cut = cut
        self.piece = 0  # bytes that are to go to the client next

    def other(self, side: _Side) -> _Side:
        return self.server if side is self.client else self.client

    def choose_piece(self) -> None:
        if self.piece == 0 and self.client.waiting:
            idle = self.server.at_end or time.monotonic() - self.server.last_arrival > _IDLE
            self.piece = self.cut(len(self.client.waiting), idle)

    def sendable(self, side: _Side) -> int:
        """How many of the bytes that wait for `side` may go out now."""
        return self.piece if side is self.client else len(side.waiting)

    def lose(self, side: _Side) -> None:
        """It was reset: nothing comes from it any more, and nothing can go to it."""
        side.waiting.clear()
        side.at_end = side.broken = side.told = True
        if side is self.client:
            self.piece = 0

    def reset(self) -> None:
        self.client.reset()
        self.server.reset()

    def close(self) -> None:
        self.client.close()
        self.server.close()


class Proxy:
    """Listens on 127.0.0.1 and forwards to `target`, a (host, port).

    `to_client` and `to_server` count the bytes that were passed on, `connections` those that came.
    The methods may be called from any thread, and have taken effect when they return.
    """

    host: Final = "127.0.0.1"

    def __init__(self, target: tuple[str, int], *, slicing: Slicing | None = None) -> None:
        self._target = target
        self._slicing = slicing or whole()
        self._listener = socket.create_server((self.host, 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.to_client = 0
        self.to_server = 0
        # What follows belongs to the thread alone; the others send it actions.
        self._links: list[_Link] = []
        self._stalled = False
        self._limit: int | None = None
        self._running = True
        self._error: BaseException | None = None
        self._actions: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._do(self._end)
        self._thread.join(_PATIENCE)
        for each in (self._listener, self._wake_reader, self._wake_writer):
            each.close()
        if self._error is not None and error is None:
            raise self._error

    def stall(self) -> None:
        """Pass nothing on in either direction, nor read it, until `resume`."""
        self._do(lambda: setattr(self, "_stalled", True))

    def resume(self) -> None:
        """Pass everything on again, beginning with what was held back."""
        self._do(lambda: setattr(self, "_stalled", False))

    def cut(self) -> None:
        """Reset every connection, on both sides."""
        self._do(self._reset_all)

    def close_after(self, size: int) -> None:
        """Close in an orderly way after exactly `size` more bytes to the client, wherever that is.

        With several connections their sum counts, and all are closed. It holds once: those made
        after that live.
        """
        self._do(lambda: setattr(self, "_limit", self.to_client + size))

    def _do(self, action: Callable[[], object]) -> None:
        """Let the thread do it between two turns of its loop, and wait for that."""
        done = threading.Event()
        self._actions.put(action)
        self._actions.put(done.set)
        self._wake_writer.send(b"\0")
        while self._thread.is_alive() and not done.wait(0.1):
            pass

    # All below runs in the thread.

    def _run(self) -> None:
        try:
            while self._running:
                self._turn()
        except BaseException as error:  # it comes out of the `with` block, in the test's thread
            self._error = error
        finally:
            self._reset_all()

    def _end(self) -> None:
        self._running = False

    def _reset_all(self) -> None:
        for link in self._links:
            link.reset()
        self._links.clear()

    def _turn(self) -> None:
        """Wait until something can be done, do it once for each socket, then act on requests."""
        interests = {} if self._stalled else self._interests()
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._wake_reader, select.POLLIN)
        for number, (_, _, events) in interests.items():
            poll.register(number, events)
        holds_back = any(link.client.waiting and link.piece == 0 for link in self._links)
        for number, happened in poll.poll(_IDLE * 1000 if holds_back else None):
            if number in interests:
                link, side, events = interests[number]
                if events & select.POLLIN and happened & ~select.POLLOUT:
                    self._receive(link, side)
                if events & select.POLLOUT and happened & ~select.POLLIN:
                    self._send(link, side)
            elif number == self._listener.fileno():
                self._accept()
        self._tidy()
        self._act()

    def _interests(self) -> dict[int, tuple[_Link, _Side, int]]:
        """What to wait for, by file descriptor."""
        found = {}
        for link in self._links:
            link.choose_piece()
            for side in (link.client, link.server):
                events = 0
                if not side.at_end and len(link.other(side).waiting) < _BUFFER:
                    events |= select.POLLIN
                if link.sendable(side):
                    events |= select.POLLOUT
                if events:
                    found[side.socket.fileno()] = (link, side, events)
        return found

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        self.connections += 1
        client = _Side(connection)
        try:
            upstream = socket.create_connection(self._target, timeout=_PATIENCE)
        except OSError:
            client.reset()  # as if the server itself had refused
        else:
            self._links.append(_Link(client, _Side(upstream), self._slicing()))

    def _receive(self, link: _Link, side: _Side) -> None:
        try:
            data = side.socket.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            link.lose(side)
            return
        side.at_end = not data
        side.last_arrival = time.monotonic()
        other = link.other(side)
        if not other.broken:
            other.waiting += data

    def _send(self, link: _Link, side: _Side) -> None:
        size = min(link.sendable(side), len(side.waiting))
        if side is link.client and self._limit is not None:
            size = min(size, self._limit - self.to_client)
        try:
            sent = side.socket.send(side.waiting[:size])
        except BlockingIOError:
            return
        except OSError:
            link.lose(side)
            return
        del side.waiting[:sent]
        if side is link.client:
            link.piece -= sent
            self.to_client += sent
        else:
            self.to_server += sent

    def _tidy(self) -> None:
        """Pass on the ends of streams; forget links that are over."""
        for link in list(self._links):
            if self._limit is not None and self.to_client >= self._limit:
                link.close()
                self._links.remove(link)
                continue
            for side in (link.client, link.server):
                other = link.other(side)
                if side.at_end and not other.waiting and not other.told:
                    other.told = True
                    if side.broken:
                        other.reset()
                    else:
                        with contextlib.suppress(OSError):
                            other.socket.shutdown(socket.SHUT_WR)
            if link.client.told and link.server.told:
                link.close()
                self._links.remove(link)
        if self._limit is not None and self.to_client >= self._limit:
            self._limit = None

    def _act(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_reader.recv(_READ)
        with contextlib.suppress(Empty):
            while True:
                self._actions.get_nowait()()
