"""Where a stream stands, as its positions, its counts and the clocks tell it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from .lsn import Lsn
from .public import imported_from

__all__ = ["Stats"]


@imported_from("pgrepl")
@dataclass(frozen=True, slots=True)
class Stats:
    """Where a stream stands at a moment, and what has come since it began.

    `received`: the highest position that came; `delivered`: the end of the last transaction that
    the application was given, of a raw stream the highest position that it was given; `written`,
    `flushed`, `applied`: as last reported to the server; `statuses`: how many reports were sent.

    `server_end`: the furthest position of the server's WAL that the server told of: where its WAL
    ended when the stream began, and how far it has read it since. It tells no more, so its WAL may
    go on behind that. `lag_bytes`: WAL from `flushed`, or from the stream's beginning where that is
    later, to `server_end`: so much at least is kept by the server for this stream.

    `lag_seconds`: 0.0 when nothing up to `server_end` is left to acknowledge. Else how long ago, by
    the server's clock then and this machine's now, the transaction was committed that was last read
    to its end: it says how old is what is being read, and not how long reading the rest will take;
    what was read and not acknowledged may be older. None before the first such transaction; raw
    streams, which know nothing of transactions, have 0.0 or None.

    `transactions`: how many have been read to their end, a message that belongs to none and the
    outcome of a prepared one included. `changes`: how many were decoded, or put aside when they
    were streamed, whatever became of their transaction. None of raw streams, both. `nbytes`: the
    size of all messages that came, headers included, TLS not. `last_message_at`: when the last one
    came, a keepalive for instance, by this machine's clock, an aware `datetime` in UTC; None before
    the first.
    """

    received: Lsn
    delivered: Lsn
    written: Lsn
    flushed: Lsn
    applied: Lsn
    statuses: int
    server_end: Lsn
    lag_bytes: int
    lag_seconds: float | None
    transactions: int | None
    changes: int | None
    nbytes: int
    last_message_at: datetime | None

    def __str__(self) -> str:
        """Return a line for a log."""
        lag = f"{self.lag_bytes} bytes"
        if self.lag_seconds is not None:
            lag += f", {self.lag_seconds:.1f} s"
        parts = [
            f"received {self.received}, delivered {self.delivered}, flushed {self.flushed} of "
            f"{self.server_end} (lag {lag})"
        ]
        if self.transactions is not None:
            parts.append(f"{self.transactions} transactions, {self.changes} changes")
        parts.append(f"{self.nbytes} bytes, {self.statuses} statuses")
        if self.last_message_at is not None:
            parts.append(f"last message at {self.last_message_at:%Y-%m-%d %H:%M:%S}Z")
        return "; ".join(parts)
