"""What a logical stream owes the server, and when: positions, answers, signs of life.

Bytes do not come here, and no clock is read: a driver tells what it received, when its application
waits and what that acknowledged, asks what to send, and passes the time in seconds of any clock
that never goes back. So the same state serves a thread, an event loop and a test.

The times:

status
    At the latest `interval` seconds after the last one. What is new goes out as soon as the
    application waits for more, and within `_BUSY_DELAY` while it does not, but never more often
    than every `_GAP`. Where the server asks for it at once, but what is not new not twice within
    `_ANSWER_GAP`: as long as something is not acknowledged, a server that shuts down takes every
    answer for a reason to ask again.
silence
    Counted only while somebody waits, since what nobody reads is no silence of the server's. After
    half of `receive_timeout` the server is asked for a reply; another half after that the peer is
    dead. So nobody is given up unasked, not even where this process itself was stopped for long.
position
    Who waits for the server to come to a position asks for a reply every `_ASKING`, since a server
    that has nothing to send may say nothing for long.
health
    Once in `_HEALTH_INTERVAL`, for the log.
"""

from __future__ import annotations

import math
from typing import Final

from ..codec.abc import Codec, WalBatch
from ..errors import ConnectionFailed, UsageError
from .positions import Positions

__all__ = ["Session"]

_ASKING: Final = 1.0
_HEALTH_INTERVAL: Final = 60.0
_GAP: Final = 0.0002
_BUSY_DELAY: Final = 0.05
_ANSWER_GAP: Final = 0.05


class Session:
    """The clockwork of one stream. Not safe for threads: the driver has a lock."""

    def __init__(
        self,
        codec: Codec,
        positions: Positions,
        *,
        status_interval: float,
        sender_timeout: float = 0.0,
        receive_timeout: float | None,
        now: float,
    ) -> None:
        """`sender_timeout`: of the server, 0 for none; `receive_timeout` None: none."""
        for name, limit in (
            ("status_interval", status_interval),
            ("receive_timeout", receive_timeout),
        ):
            if limit is not None and not limit > 0:
                raise UsageError(f"expected a {name} above 0 seconds, got {limit!r}")
        self.positions: Final = positions
        self.delivered: Final = positions.deliver
        """The application has been given everything up to the end of a transaction, at a
        position."""
        self.interval: Final = (
            min(status_interval, sender_timeout / 3) if sender_timeout else status_interval
        )
        self.receive_timeout: Final = receive_timeout
        self.statuses = 0
        self.nbytes = 0  # of all that was received
        self.received_at: float | None = None  # the last of it
        self._asks_at = -math.inf  # when `ask` asks again
        self.health_at = now + _HEALTH_INTERVAL
        self._codec = codec
        self._sent_at = now
        self._news_at = math.inf  # when what is new is to be reported
        self._must_answer = False  # the server wants a status
        self._must_ask = False  # we want an answer to ours
        self._asked_at: float | None = None
        self._heard_at = now
        self._waits = False
        self.takes_notes = False
        """Whether a status is to come for what was acknowledged, and will have what is noted until
        then: see `Positions.notes`. Who adds a note looks at this behind that; who sends turns it
        off before taking the notes in. So one of them sees the other, without a lock."""

    # What the driver tells

    def wait_begins(self, now: float, idle: bool) -> None:
        """The application has been given all that was received, and waits for more.

        `idle`: no transaction is open.
        """
        if not self._waits:
            self._waits = True
            self._heard_at = max(self._heard_at, now)
            self._asked_at, self._must_ask = None, False
        self.positions.take_in()
        if idle:
            self.positions.settle()
        if self._news_at < math.inf or self.positions.peek() != self.positions.last:
            self._news_at = min(self._news_at, now)

    def wait_ends(self) -> None:
        """The application waits no more though nothing came: it is busy with something else."""
        self._waits = False

    def received(self, batch: WalBatch, now: float) -> None:
        """Something has come, which ends the wait: the application is busy with it. Its positions
        are known already, see `WalStream`."""
        self._waits = False
        self._heard_at = self.received_at = now
        self._asked_at, self._must_ask = None, False
        self.nbytes += batch.nbytes
        if batch.reply_requested:
            self._must_answer = True

    def acknowledge(
        self, position: int, now: float, written: bool, flushed: bool, applied: bool
    ) -> bool:
        """The application has acknowledged everything up to a position.

        Says whether something is due earlier for it: of many that come one after the other, only
        the first one has that.
        """
        if not self.positions.acknowledge(position, written, flushed, applied):
            return False
        news_at = now if self._waits else now + _BUSY_DELAY
        if news_at >= self._news_at:
            return False
        self._news_at = news_at
        self.takes_notes = True
        return True

    def ask(self, now: float) -> float:
        """The application waits to hear how far the server has come. Has it asked, at most once in
        `_ASKING`; returns the seconds after which to call again."""
        if now >= self._asks_at:
            self._asks_at = now + _ASKING
            self._must_ask = True
        return self._asks_at - now

    def silence(self, now: float) -> None:
        """Nothing came while somebody waited. Raises `ConnectionFailed` if that is too long."""
        # Held against the very number that the driver was told: a sum made in another way can be
        # less by rounding, and the driver would come back at once, again and again.
        if not self._waits or now < self.silent_at:
            return
        if self._asked_at is not None:
            raise ConnectionFailed(
                f"nothing came from the server within {self.receive_timeout:g} s "
                "(receive_timeout), not even an answer to a request for one; the server or the "
                "network in between is gone: connect again, and go on after the last acknowledged "
                "transaction"
            )
        self._asked_at, self._must_ask = now, True

    # What the driver asks

    @property
    def due_at(self) -> float:
        """When a status is to be sent; not after all of time, since there is an interval."""
        if self._must_ask:
            return -math.inf
        news_at = max(self._news_at, self._sent_at + _GAP)
        answer_at = self._sent_at + _ANSWER_GAP if self._must_answer else math.inf
        return min(self._sent_at + self.interval, news_at, answer_at)

    @property
    def silent_at(self) -> float:
        """When to call `silence`, if nothing comes until then."""
        if self.receive_timeout is None:
            return math.inf
        begun_at = self._heard_at if self._asked_at is None else self._asked_at
        return begun_at + self.receive_timeout / 2

    def is_health_due(self, now: float) -> bool:
        """Say whether it is time to tell of the stream's health; not again for some time then."""
        if now < self.health_at:
            return False
        self.health_at = now + _HEALTH_INTERVAL
        return True

    def data_to_send(self, now: float, timestamp: int, final: bool = False) -> bytes | None:
        """Return the status message that is due, or None.

        `timestamp` in microseconds since 2000-01-01 UTC; a `final` one is always due.
        """
        if not final and now < self.due_at:
            return None
        self.takes_notes = False
        self.positions.take_in()
        report = self.positions.due()
        ask = self._must_ask
        self._must_answer = self._must_ask = False
        self._news_at = math.inf
        self._sent_at = now
        self.statuses += 1
        return self._codec.standby_status(*report, timestamp, ask)
