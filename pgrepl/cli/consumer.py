"""A logical stream as decoded events, and the positions that may be reported for them.

Law: a position is reported when the event that carries it was delivered, and not before. A
transaction's is the end of its commit. A keepalive's may be reported too, so that an idle slot lets
the server forget, but not while a transaction is open: there is more to come of it. Nothing is ever
added to a position.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, cast

from ..codec import Decoder, XLogData
from ..codec.abc import PrimaryKeepalive, WalBatch
from ..connection import Connection
from ..errors import ConnectionFailed, ProtocolError, UsageError
from ..lsn import Lsn
from ..messages import Begin, Commit, LogicalMessage, StreamAbort
from ..protocol.replication import publication_list, start_logical_command

__all__ = ["Consumer", "Event", "require_publications"]

_LOGICAL_MESSAGES: Final = 140000
_LAST_WORDS: Final = 0.2
"""Seconds that the server gets to take in the last report before the connection is closed."""


class Event(NamedTuple):
    """A message, or None for a keepalive.

    `lsn` is where the server's header says it stands, `position` what may be acknowledged once this
    event and all before it are delivered, 0 for nothing.
    """

    message: LogicalMessage | None
    lsn: int
    position: int


class Consumer:
    """Streams one slot over a connection, without ever waiting.

    The server hears from it every `interval` seconds: `status_interval`, or a third of the server's
    wal_sender_timeout where that is less. Whoever waits elsewhere for longer than `due_in()` must
    call `report_if_due()` in between.
    """

    def __init__(
        self,
        connection: Connection,
        slot: str,
        publications: Sequence[str],
        *,
        status_interval: float = 10.0,
        ask_for_keepalives: bool = False,
    ) -> None:
        """Start the stream. `ask_for_keepalives`: every report asks how far the server has come.

        Raises what `Connection.start_streaming` raises.
        """
        timeout = _wal_sender_timeout(connection)
        self.interval = min(status_interval, timeout / 3) if timeout else status_interval
        self.acknowledged = Lsn(0)
        self._connection = connection
        self._ask = ask_for_keepalives
        self._decoder = Decoder(1, typed=False)
        self._in_transaction = False
        self._last_end = 0  # of the last commit that was received
        self._reported = 0
        options = {"proto_version": "1", "publication_names": publication_list(publications)}
        if connection.server_version >= _LOGICAL_MESSAGES:
            options["messages"] = "true"
        connection.start_streaming(start_logical_command(slot, 0, options))
        self._due = time.monotonic() + self.interval

    def receive(self) -> Iterator[Event] | None:
        """Return what has arrived, to be taken to its end or not at all; None: nothing has.

        Raises `ConnectionFailed`, `ServerShutdown`, `ServerError`, `ProtocolError`, and while the
        events are taken `DecodeError`.
        """
        try:
            batch = self._connection.receive_wal_messages(timeout=0)
        except TimeoutError:
            return None
        if not batch:
            raise ConnectionFailed("the server ended the stream; its log may say why")
        return self._events(batch)

    def _events(self, batch: WalBatch) -> Iterator[Event]:
        for item in batch:
            if isinstance(item, XLogData):
                message = self._decoder.feed(item)
                position = 0
                if isinstance(message, Begin):
                    self._in_transaction = True
                elif isinstance(message, Commit):
                    self._in_transaction = False
                    position = self._last_end = message.end_lsn
                if isinstance(message, StreamAbort):
                    # PostgreSQL 18 sends it of a large transaction that it never sent.
                    yield Event(None, item.wal_start, 0)
                else:
                    yield Event(message, item.wal_start, position)
            else:
                if cast(PrimaryKeepalive, item).reply_requested:
                    self._due = 0.0
                yield Event(None, item.wal_end, 0 if self._in_transaction else item.wal_end)

    def acknowledge(self, position: int) -> None:
        """Take note that everything up to an event's `position` was delivered."""
        self.acknowledged = Lsn(max(self.acknowledged, position))

    def due_in(self) -> float:
        """Return the seconds until the next report is due."""
        return max(self._due - time.monotonic(), 0.0)

    def report(self) -> None:
        """Tell the server what is acknowledged; that is also the sign of life it waits for."""
        position = self.acknowledged
        # What cannot be sent now, as the server does not read, goes out before the next report.
        with contextlib.suppress(TimeoutError):
            self._connection.send_standby_status(
                position, position, position, reply_requested=self._ask, timeout=0
            )
        self._reported = position
        self._due = time.monotonic() + self.interval

    def report_if_due(self) -> None:
        """Report if it is time, or if the server asked for it."""
        if not self.due_in():
            self.report()

    def report_commits(self) -> None:
        """Report if a commit that was acknowledged is not reported yet: for when all is quiet."""
        if self._reported < self._last_end <= self.acknowledged:
            self.report()

    def finish(self, timeout: float = 0.5) -> None:
        """Report for the last time and end the stream; afterwards the connection takes commands.

        Except in the middle of a transaction, or where ending it takes more than `timeout` seconds:
        the server would send all the rest of a large transaction first, so the connection is closed
        instead.
        """
        self.report()
        if not self._in_transaction:
            try:
                self._connection.stop_streaming(timeout)
            except TimeoutError:
                pass
            else:
                return
        # A server that can send does not look for messages. Once it is stuck, with nobody reading,
        # it does, and takes in the last report.
        time.sleep(_LAST_WORDS)
        self._connection.disconnect()


def require_publications(connection: Connection, names: Sequence[str]) -> None:
    """Raise `UsageError` for a publication that the database does not have.

    The server itself would say so at the first change, or from version 18 on stream nothing.
    """
    results = connection.query("SELECT pubname FROM pg_catalog.pg_publication")
    there = {row[0] for result in results for row in result.rows if row}
    for name in names:
        if name not in there:
            raise UsageError(
                f"expected the publication {name!r}, which this database does not have; "
                "create it first, with CREATE PUBLICATION"
            )


def _wal_sender_timeout(connection: Connection) -> float:
    """Return the server's limit of silence in seconds, 0 for none."""
    results = connection.query(
        "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'"
    )
    texts = [value or "" for result in results for row in result.rows for value in row]
    if len(texts) != 1 or not (texts[0].isascii() and texts[0].isdigit()):
        raise ProtocolError(
            f"expected the server's wal_sender_timeout in milliseconds, got {texts[:3]!r:.80}"
        )
    return int(texts[0]) / 1000
