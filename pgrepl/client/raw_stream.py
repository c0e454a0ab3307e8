"""What the blocking and the asyncio flavour of a raw stream have in common: all but waiting.

Law: nothing is known of what the payloads say, so nothing is read into them. A position in a header
may be acknowledged all the same: PostgreSQL sends transactions in the order of their commits, and
sends one again, whole, unless everything up to its commit was confirmed. The changes of one that is
still coming lie before its commit, and so does every keepalive in between.

Source: PostgreSQL documentation, "Streaming Replication Protocol", "Logical Decoding Concepts".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from ..codec.abc import PrimaryKeepalive, WalBatch, XLogData
from ..errors import ConnectionFailed, UsageError
from ..protocol.preflight import Preflight
from ..session.session import Session
from .reception import BaseReception

__all__ = ["BaseRawStream", "RawAcknowledgeable", "data_of"]

RawAcknowledgeable: TypeAlias = WalBatch | XLogData | PrimaryKeepalive | int
"""What `ack` takes: what the stream gave, or a position."""


class BaseRawStream(BaseReception):
    """The messages of a slot, undecoded: what was given, and what is acknowledged."""

    def __init__(self, session: Session, checked: Preflight) -> None:
        super().__init__(session, checked)
        # The highest position that the application was given: of XLogData, and of any message.
        self._highest_data_given = self._highest_given = 0

    @property
    def _delivered(self) -> int:
        return self._highest_data_given

    @property
    def _is_between(self) -> bool:
        # Whatever is open, its commit lies behind all positions that came.
        return True

    @property
    def _totals(self) -> tuple[int | None, int | None, int | None]:
        return None, None, None

    def _note_given(self, batch: WalBatch) -> WalBatch:
        """Take note that the application is given a batch, and return it."""
        if not len(batch):
            raise ConnectionFailed("the server ended the stream; its log may say why")
        starts = batch.wal_start
        highest = batch.received(False)
        # Without keepalives, which are few, one number says it all.
        data = highest if len(starts) == len(batch) else max(starts, default=0)
        self._highest_given = max(self._highest_given, highest)
        self._highest_data_given = max(self._highest_data_given, data)
        return batch

    def _release_storage(self) -> None:
        """Do nothing: a raw stream takes nothing beside its connection."""

    def ack(
        self,
        upto: RawAcknowledgeable,
        *,
        written: bool = True,
        flushed: bool = True,
        applied: bool = True,
    ) -> None:
        """Acknowledge everything up to a batch, a message or a position. From any thread.

        Cumulative, and never waits; see `Stream.ack`. A transaction counts when its last message,
        the commit, is acknowledged; before that all of it comes again. A position beyond what was
        given counts as the end of what was.
        """
        self._require_on()
        position = min(_position(upto), self._highest_given)
        self._feedback.acknowledge(position, position, written, flushed, applied)


def data_of(batch: Any) -> Iterator[XLogData]:
    """Iterate over a batch without its keepalives."""
    return (message for message in batch if hasattr(message, "data"))


def _position(upto: Any) -> int:
    for name in ("received", "wal_start", "wal_end"):
        value = getattr(upto, name, None)
        if value is not None:
            return int(value(False)) if name == "received" else int(value)
    if isinstance(upto, int):
        return upto
    raise UsageError(
        f"expected a WalBatch, an XLogData, a PrimaryKeepalive or an Lsn, got {upto!r:.100}"
    )
