"""pgoutput, pure Python: the twin of pgrepl/codec/_native/pgoutput.pyx and src_c/pgr_pgoutput.c.

What users see of it; `decoding` has the state, and `readers` the messages.

Source: PostgreSQL documentation, "Logical Replication Message Formats".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, final

from ...messages import (
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Origin,
    Prepare,
    Truncate,
    Update,
)
from ...typedefs import TypeDefinition
from .. import abc as contract
from ..spool import Spool
from ..stored import Stored
from ..unpicklable import Unpicklable
from .decoding import Decoding, contents_of
from .spool import Kept, Replay, Writer
from .values import Override
from .wal import WalBatch, XLogData

__all__ = ["Decoder"]


@final
class Decoder(Unpicklable):
    __doc__ = contract.Decoder.__doc__

    __slots__ = ("_decoding",)

    def __init__(
        self,
        proto_version: int = 1,
        streaming: str = "off",
        types: Mapping[int | str, Override] | None = None,
        typed: bool = True,
        ordered: bool = False,
        encoding: str = "utf-8",
    ) -> None:
        self._decoding = Decoding(proto_version, streaming, types, typed, ordered, encoding)

    def feed(self, payload: Any, lsn: int | None = None) -> LogicalMessage:
        """Decode one message from any bytes-like object or an `XLogData`.

        Raises `DecodeError`, and raises it again for whatever comes after that.
        """
        return self._decoding.feed(payload, lsn)

    def define(self, definitions: Iterable[TypeDefinition]) -> None:
        """Take in what the catalogue says of types, before the relations that use them come."""
        self._decoding.types.define(definitions)

    @property
    def delivered(self) -> int:
        """The highest position by which something that was decoded can be acknowledged."""
        return self._decoding.delivered

    @property
    def totals(self) -> tuple[int, int, int | None]:
        """How many changes and transactions there were, and when the last one was committed."""
        decoding = self._decoding
        return decoding.changes, decoding.transactions, decoding.time

    @property
    def is_between(self) -> bool:
        """Whether no transaction is open or being read, and no stream block is open."""
        decoding = self._decoding
        return not decoding.transaction and decoding.block is None and not decoding.unsettled

    def decode_batch(self, batch: WalBatch, spool: Spool | None = None) -> Changes:
        """Decode the payloads of a `WalBatch` of the same twin, one at a time.

        With a `spool`, what stream blocks hold is checked, put aside, and not given: see `Changes`.
        A stream is decoded with one spool from its beginning, or without.
        """
        return Changes(
            self._decoding, [each for each in batch if isinstance(each, XLogData)], spool
        )


@final
class Changes(Unpicklable):
    __doc__ = contract.Changes.__doc__

    __slots__ = ("_decoding", "_next", "_payloads", "_spool", "end", "origin")

    def __init__(self, decoding: Decoding, payloads: list[XLogData], spool: Spool | None) -> None:
        self._decoding = decoding
        self._payloads = payloads
        self._spool = spool
        self._next = 0
        self.end: LogicalMessage | None = None
        self.origin: Origin | None = None

    def __iter__(self) -> Changes:
        return self

    def __next__(self) -> LogicalMessage:
        while self._next < len(self._payloads):
            message = self._decoded()
            if message is not None:
                return message
        raise StopIteration

    def _decoded(self) -> LogicalMessage | None:
        """Decode the next message; None: it was put aside."""
        spool = self._spool
        self._decoding.check_alone()
        if spool is None:
            at = self._next
            if at == len(self._payloads):
                return None  # somebody was here since our caller looked
            self._next = at + 1
            return self._decoding.feed(self._payloads[at])
        with spool.moving():
            self._next += 1
            return self._decoding.take_aside(self._payloads[self._next - 1], spool)

    def peek(self) -> str | None:
        """Return the tag of the next message, None at the end of the batch."""
        if self._next == len(self._payloads):
            return None
        return chr((self._payloads[self._next].data[:1] or b"\0")[0])

    def streamed(self, xid: int) -> Replay:
        """Iterate over what a streamed transaction consists of, whose end was just decoded."""
        if self._spool is None:
            raise ValueError("expected changes that were decoded with a spool")
        return Replay(self._spool.take(xid))

    def put_aside(self, stored: Stored) -> None:
        """Put the changes of the transaction that is open aside."""
        writer = stored.writer = Writer.of(stored)
        self.end = self.origin = None
        while self._next < len(self._payloads):
            payload = self._payloads[self._next]
            message = self._decoded()
            if isinstance(message, Insert | Update | Delete | Truncate | Message):
                with stored.moving():
                    layouts = self._decoding.layouts_of(None, message)
                    writer.append(contents_of(payload), self._decoding.lsn, layouts)
            elif message is not None and self._ends(message):
                return

    def kept(self, stored: Stored) -> Kept:
        """Iterate over what was put aside as often as wanted."""
        return Kept(stored, in_block=False)

    def settle(self) -> None:
        """Count the streamed transaction as delivered: its changes have been read."""
        self._decoding.settle()

    def of_transaction(self) -> Iterator[LogicalMessage]:
        """Iterate over the changes of the transaction that is open."""
        self.end = self.origin = None
        while self._next < len(self._payloads):
            message = self._decoded()
            if isinstance(message, Insert | Update | Delete | Truncate | Message):
                yield message
            elif message is not None and self._ends(message):
                return

    def _ends(self, message: LogicalMessage) -> bool:
        """Take note of what is no change; say whether it ends the transaction."""
        if isinstance(message, Origin):
            self.origin = message
        elif isinstance(message, Commit | Prepare):
            self.end = message
            return True
        return False
