"""pgoutput, pure Python: the twin of pgrepl/codec/_native/pgoutput.pyx and src_c/pgr_pgoutput.c.

What users see of it; `decoding` has the state, and `readers` the messages.

Source: PostgreSQL documentation, "Logical Replication Message Formats".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, final

from ...errors import UsageError
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
from ..outlines import OUTLINE, Outline
from ..spool import Spool
from ..stored import Stored, entered
from ..unpicklable import Unpicklable
from .decoding import Decoding, contents_of
from .runs import Mould
from .spool import Kept, Replay, Writer
from .values import Override
from .wal import WalBatch, XLogData

__all__ = ["Decoder"]

_BEGIN: Final = struct.Struct(">xQqI")
_COMMIT: Final = struct.Struct(">xxQQ8x")


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

    def begin(self, mould: Mould) -> Any:
        """Begin the transaction that comes next, if the batch has all of it and it is ordinary."""
        outline = self._outline_ahead()
        if outline is None:
            return None
        self._decoded()
        return mould.make(self._next_of_whole, outline)

    def gather(self, changes: list[Any], parts: list[Any], max_rows: int) -> int:
        """Add the changes of ordinary transactions that the batch has as a whole."""
        first, end_lsn, outlines = len(changes), 0, bytearray()
        while (outline := self._outline_ahead()) is not None:
            if outline.changes > max_rows - len(changes):
                break
            self._decoded()
            while (change := self._next_of_whole()) is not None:
                changes.append(change)
            end_lsn = outline.end_lsn
            outlines += OUTLINE.pack(*outline, 0)
        if end_lsn:
            parts.append((outlines, first, 0))
        return end_lsn

    def _outline_ahead(self) -> Outline | None:
        """Return what there is to know of the transaction that comes next, if the batch has all of
        it: Begin, changes and what describes relations, Commit, in order. All else is left to the
        general way: what comes with an origin, was prepared or streamed, or is wrong, which is
        said there."""
        decoding, count = self._decoding, 0
        if decoding.block is not None or decoding.unsettled or decoding.failed is not None:
            return None
        for place in range(self._next, len(self._payloads)):
            data = self._payloads[place].data
            tag = bytes(data[:1])
            if place == self._next:
                if tag != b"B" or len(data) != _BEGIN.size:
                    return None
                commit_lsn, time, xid = _BEGIN.unpack(data)
            elif tag == b"C":
                if len(data) != _COMMIT.size:
                    return None
                lsn, end_lsn = _COMMIT.unpack(data)
                if lsn != commit_lsn or not decoding.delivered <= lsn <= end_lsn:
                    return None
                return Outline(commit_lsn, end_lsn, time, count, xid)
            elif tag and tag in b"IUDTM":
                count += 1
            elif not tag or tag not in b"RY":
                return None
        return None

    def _next_of_whole(self) -> LogicalMessage | None:
        """Decode the next change of a transaction that is at hand as a whole; None behind them."""
        while self._next < len(self._payloads):
            message = self._decoded()
            if isinstance(message, Insert | Update | Delete | Truncate | Message):
                return message
            if isinstance(message, Commit):
                return None
        raise UsageError(entered)  # somebody was here while a relation was described

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
