"""A client of production parts, in production's order, without a socket, a thread or a clock.

What a driver does by waiting is done here in steps: bytes arrive, a timer is up, the application
reads so much and acknowledges. The parts do not know the difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from pgrepl.messages import Insert, Message
from pgrepl.protocol.backend import ServerState
from pgrepl.protocol.conversation import Exchange, Receive, Send
from pgrepl.session.received import ReceivedTransaction
from pgrepl.session.session import Session
from pgrepl.session.transactions import Transactions
from pgrepl.session.wal_stream import WalStream
from tests.support.spooling import read_on

__all__ = ["Client", "Clock", "Delivery"]

ANSWER_GAP = 0.05  # between a status and one that is nothing but an answer


@dataclass
class Clock:
    """The virtual time, in seconds."""

    now: float = 1000.0


@dataclass
class Delivery:
    """A transaction as the application has it so far."""

    transaction: ReceivedTransaction
    keys: list[int] = field(default_factory=list)
    acknowledged: tuple[bool, bool, bool] | None = None  # once it has been read

    @property
    def is_whole(self) -> bool:
        return self.transaction.is_whole


class Client:
    """One connection's life. `send` takes what goes to the server, a frame at a time."""

    def __init__(
        self,
        codec: Any,
        clock: Clock,
        send: Callable[[bytes], None],
        *,
        sender_timeout: float,
        receive_timeout: float,
    ) -> None:
        self.wal = WalStream(codec, ServerState(), physical=False)
        self.session = Session(
            codec,
            self.wal.positions,
            status_interval=60.0,
            sender_timeout=sender_timeout,
            receive_timeout=receive_timeout,
            now=clock.now,
        )
        self.reader = codec.FrameReader()
        self.decoder = codec.Decoder(3, ordered=True)
        self.deliveries: list[Delivery] = []
        self.waits = False
        self.quiet_since = clock.now
        self.received = 0  # bytes
        self.idle = 0  # bytes that had been received when it last waited with nothing open
        self.on_end: Callable[[], None] = lambda: None
        self._transactions = Transactions()
        self._clock = clock
        self._send = send
        self._sent_at = clock.now
        self.answer_by = math.inf  # when the server is to have the status that it asked for

    # The application reads

    @property
    def open(self) -> Delivery | None:
        """The transaction that was begun and not read to its end."""
        last = self.deliveries[-1] if self.deliveries else None
        return None if last is None or last.is_whole else last

    def read(self, limit: int, to_end: bool) -> None:
        """Read up to `limit` changes, or as far as they have come; then wait for more.

        `to_end`: where only the end of a transaction is left, read that too.
        """
        while limit > 0 and not self.waits:
            delivery = self.open
            if delivery is None:
                transaction = self._transactions.next()
                if transaction is None:
                    self._fetch()
                else:
                    self.deliveries.append(Delivery(transaction))
                continue
            before = len(delivery.keys)
            self._read_on(delivery, limit)
            limit -= len(delivery.keys) - before
            if limit > 0 and not delivery.is_whole:
                self._fetch()
        delivery = self.open
        if to_end and delivery is not None and not self.waits and self._at_end:
            self._read_on(delivery, 1)

    @property
    def _at_end(self) -> bool:
        """Whether what ends the transaction comes next."""
        return self._changes.peek() in ("C", "P")

    def _read_on(self, delivery: Delivery, limit: int) -> None:
        delivery.keys += map(_key, islice(read_on(self._transactions), limit))
        moved = delivery.acknowledged
        if moved is not None and delivery.is_whole:
            assert delivery.transaction.end_lsn is not None
            self.on_end()
            self.acknowledge(delivery.transaction.end_lsn, moved)

    def _fetch(self) -> None:
        """Go on with the next batch that has something in it; if none is whole, wait."""
        while (batch := self.wal.next_batch(self.reader)) is not None:
            if self.waits:
                self.session.wait_ends()
                self.waits = False
            assert len(batch), "the stream ended"
            self.quiet_since = self._clock.now
            self.session.received(batch, self._clock.now)
            if batch.reply_requested:
                self._answer()
            self._changes = self.decoder.decode_batch(batch)
            self._transactions.feed(self._changes)
            if self._changes.peek() is not None:
                return
        if not self.waits:
            self._wait()

    def _answer(self) -> None:
        """The server wants a status: now, or soon after the last one."""
        now = self._clock.now
        self.answer_by = min(self.answer_by, max(now, self._sent_at + ANSWER_GAP))
        self.pump()
        assert self.answer_by > now, "an answer was not given at once"

    def _wait(self) -> None:
        if not self.waits:
            self.quiet_since = self._clock.now
        self.waits = True
        if self.open is None:
            self.idle = self.received
        self.session.delivered(self.decoder.delivered)
        self.session.wait_begins(self._clock.now, self.decoder.is_between)
        self.pump()

    # The application acknowledges

    def acknowledge(self, position: int, moved: tuple[bool, bool, bool]) -> None:
        self.session.delivered(self.decoder.delivered)
        self.session.acknowledge(position, self._clock.now, *moved)

    # The driver

    def arrived(self, data: bytes) -> None:
        """Take bytes from the network; who waits goes on with them."""
        self.reader.feed(data)
        self.received += len(data)
        if self.waits:
            self._fetch()

    def pump(self, final: bool = False) -> None:
        """Send what is due, as whoever drives the session does when it is."""
        now = self._clock.now
        data = self.session.data_to_send(now, int(now * 1_000_000), final)
        if data is not None:
            self._sent_at, self.answer_by = now, math.inf
            self._send(data)
        assert self.session.due_at > now, "it would be asked again and again"

    def silence(self) -> None:
        """Nothing came until `silent_at`. Raises `ConnectionFailed`."""
        self.session.silence(self._clock.now)
        assert self.session.silent_at > self._clock.now, "it would be asked again and again"
        self._wait()

    def stop(self, answer: Callable[[], bytes]) -> list[str]:
        """Stop cleanly; `answer` gives what the server sends then. Returns the results' tags."""
        self.pump(final=True)
        exchange = Exchange(self.wal.stop())
        while isinstance(request := exchange.request, Send | Receive):
            if isinstance(request, Send):
                self._send(request.data)
                exchange.answer(None)
                self.reader.feed(answer())
            else:
                frame = self.reader.next_frame()
                assert frame is not None, "it waits for more than the server sends"
                exchange.answer(frame)
        return [result.tag for result in exchange.result]


def _key(change: Insert | Message) -> int:
    return int(change.content if isinstance(change, Message) else change.new["id"])
