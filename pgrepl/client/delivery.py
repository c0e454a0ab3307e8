"""What a stream delivers: transactions, batches of changes, and single events.

Law: what was delivered is never silently less than it was, see `session.received`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeAlias

from ..codec.outlines import outlines_of
from ..lsn import Lsn
from ..messages import (
    Commit,
    CommitPrepared,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Origin,
    Prepare,
    RollbackPrepared,
    StreamCommit,
    StreamPrepare,
    Truncate,
    Update,
    to_datetime,
)
from ..ownership import Uncopied
from ..public import imported_from
from ..resume import ResumeToken
from ..session.received import Kind, ReceivedTransaction

__all__ = [
    "Acknowledgeable",
    "BaseTransaction",
    "Batch",
    "Change",
    "Idle",
    "Part",
    "Source",
    "StreamEvent",
    "TransactionPart",
    "received_and_reading_of",
    "source_of",
]

Change: TypeAlias = Insert | Update | Delete | Truncate | Message
"""What a transaction consists of."""

Part: TypeAlias = "tuple[ReceivedTransaction | bytearray, int, int]"
"""Of which transaction changes are, where they begin in their batch, and how many came before. In
place of the transaction the outlines of several, see `codec.outlines`, whose changes follow."""

Source: TypeAlias = tuple[str, str]
"""Whose positions something has: the slot's name and the system's identifier."""


class BaseTransaction(Uncopied):
    """What the server says of a transaction; how to get at its changes is each flavour's to add.

    `kind`: ``commit``, a committed transaction. With two-phase decoding also ``prepare``, one that
    is prepared, whose outcome comes later by its `gid`, and ``commit prepared`` and ``rollback
    prepared``, that outcome, without changes. ``message``: a logical message that belongs to no
    transaction.

    `commit_lsn`, `commit_time` (microseconds since 2000-01-01 UTC): of the commit, or of what
    `kind` says; None for a message. `end_lsn`: by which it is acknowledged once it `is_whole`; None
    while the server has not told, as it does at the latest behind the changes. `xid` and `origin`
    None where there is none.
    """

    __slots__ = ("_reading", "_received")

    def __init__(self, received: ReceivedTransaction, reading: Any) -> None:
        self._received = received
        self._reading = reading  # by which its changes come

    @property
    def kind(self) -> Kind:
        """What has become of it, see above."""
        return self._received.kind

    @property
    def xid(self) -> int | None:
        """Its id at the server; None where there is none."""
        return self._received.xid

    @property
    def commit_lsn(self) -> Lsn | None:
        """The position of the commit, or of what `kind` says; None for a message."""
        return self._received.commit_lsn

    @property
    def commit_time(self) -> int | None:
        """When that was, in microseconds since 2000-01-01 UTC; None for a message."""
        return self._received.commit_time

    @property
    def gid(self) -> str | None:
        """The name of a prepared transaction, or None."""
        return self._received.gid

    @property
    def commit_datetime(self) -> datetime | None:
        """`commit_time` as an aware `datetime`, or None."""
        return None if self.commit_time is None else to_datetime(self.commit_time)

    @property
    def end_lsn(self) -> Lsn | None:
        """By which it is acknowledged; None while the server has not told."""
        return self._received.end_lsn

    @property
    def origin(self) -> Origin | None:
        """Where it was replicated from; None: nowhere."""
        return self._received.origin

    @property
    def is_whole(self) -> bool:
        """Whether all of it has been read, or skipped on purpose: it can be acknowledged."""
        return self._received.is_whole

    def skip(self) -> None:
        """Say that its changes, or the rest of them, are not needed. Never waits.

        It can then be acknowledged although they were passed over, and no longer be read. What they
        took is given back.
        """
        self._received.skip()

    def __repr__(self) -> str:
        return repr(self._received)


@imported_from("pgrepl")
@dataclass(frozen=True, slots=True)
class TransactionPart:
    """What a batch has of one transaction, all of it perhaps: see `Batch.transactions`.

    ``batch.changes[part.changes]`` are its changes; `index`: how many of the transaction's came
    before them, in other batches or before the stream began. `end_lsn`: None unless the transaction
    ends in the batch. `kind`, `xid`, `gid`, `commit_lsn`, `commit_time` (microseconds since
    2000-01-01 UTC) and `origin` as a `Transaction` has them.
    """

    kind: Kind
    xid: int | None
    gid: str | None
    commit_lsn: Lsn | None
    commit_time: int | None
    origin: Origin | None
    end_lsn: Lsn | None
    index: int
    changes: slice


@imported_from("pgrepl")
class Batch:
    """Changes of one or more transactions, in order.

    `end_lsn`: of the last transaction that ends in it or ended before, never before the stream's
    start. `index`: how many changes of the transaction that goes on behind it are dealt with, in
    this batch and before; 0 where none goes on. Acknowledging the batch acknowledges everything up
    to `end_lsn`, and the transaction that goes on behind it as soon as that turns out to have no
    further changes.
    """

    __slots__ = ("_is_end", "_parts", "_source", "changes", "end_lsn", "index")

    def __init__(
        self,
        changes: list[Change],
        end_lsn: Lsn,
        index: int = 0,
        *,
        parts: Sequence[Part] = (),
        is_end: bool = False,
        source: Source | None = None,
    ) -> None:
        """`parts`: see `Part`; `is_end`: whether the last of them ends here; `source`: of the
        stream that gave it."""
        self.changes = changes
        self.end_lsn = end_lsn
        self.index = index
        self._parts: Sequence[Part | TransactionPart] = parts
        self._is_end = is_end
        self._source = source

    @property
    def transactions(self) -> tuple[TransactionPart, ...]:
        """What the batch has of each transaction, in order; of none that has no changes in it."""
        parts, size = self._parts, len(self.changes)
        if not isinstance(parts, tuple):
            made: list[TransactionPart] = []
            for number, (transaction, begin, index) in enumerate(parts, 1):  # type: ignore[misc]
                is_last = number == len(parts)
                if isinstance(transaction, bytearray):
                    made += _whole_parts(transaction, begin)
                    continue
                end = size if is_last else parts[number][1]  # type: ignore[index]
                made.append(_part(transaction, not is_last or self._is_end, index, begin, end))
            self._parts = tuple(made)
        return self._parts  # type: ignore[return-value]

    def __repr__(self) -> str:
        index = f", index={self.index}" if self.index else ""
        return f"<Batch of {len(self.changes)} changes, end_lsn={self.end_lsn}{index}>"

    def __iter__(self) -> Iterator[Change]:
        return iter(self.changes)

    def __len__(self) -> int:
        return len(self.changes)

    def __getstate__(self) -> object:
        self.transactions  # noqa: B018 - made of what cannot be pickled
        return object.__getstate__(self)

    def __setstate__(self, state: tuple[None, dict[str, Any]]) -> None:
        # A pickle of another version may tell of what batches have no more.
        for name in state[1].keys() & {*Batch.__slots__}:
            setattr(self, name, state[1][name])


def _part(
    transaction: ReceivedTransaction, has_ended: bool, index: int, begin: int, end: int
) -> TransactionPart:
    return TransactionPart(
        *(transaction.kind, transaction.xid, transaction.gid),
        *(transaction.commit_lsn, transaction.commit_time, transaction.origin),
        transaction.end_lsn if has_ended else None,
        index,
        slice(begin, end),
    )


def _whole_parts(outlines: bytearray, begin: int) -> Iterator[TransactionPart]:
    for commit_lsn, end_lsn, time, changes, xid in outlines_of(outlines):
        end = begin + changes
        if changes:
            lsn, end_at = Lsn(commit_lsn), Lsn(end_lsn)
            yield TransactionPart(
                "commit", xid, None, lsn, time, None, end_at, 0, slice(begin, end)
            )
        begin = end


# The package's doors to what users hold, and see nothing of.
received_and_reading_of: Final[Callable[[BaseTransaction], tuple[ReceivedTransaction, Any]]] = (
    attrgetter("_received", "_reading")
)
source_of: Final[Callable[[Batch], Source | None]] = attrgetter("_source")


@imported_from("pgrepl")
@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing came for a while, and nothing is left to acknowledge: see `Stream.transactions`.

    `token`: where to go on, to be kept like that of a transaction and then acknowledged, by
    ``stream.ack(idle)``. `wal_end`: how far the server has read its WAL, as it last told.
    """

    token: ResumeToken
    wal_end: Lsn

    @property
    def end_lsn(self) -> Lsn:
        """By which it is acknowledged: the token's position."""
        return self.token.end_lsn


Acknowledgeable: TypeAlias = (
    BaseTransaction
    | Batch
    | Idle
    | Commit
    | StreamCommit
    | Prepare
    | StreamPrepare
    | CommitPrepared
    | RollbackPrepared
    | Message
    | ResumeToken
    | int
)
"""What `ack` takes: something that ends at a position, or the position itself."""


@imported_from("pgrepl")
class StreamEvent(NamedTuple):
    """One message of the server's, decoded, in order with all others: what `receive` gives.

    `message`: what pgoutput says; None for a keepalive, and `reply_requested` is the keepalive's.
    `lsn`: the position in the header, which is no position to go on from. `position`: what may be
    acknowledged once this event and all before it are dealt with, 0 for nothing.
    """

    message: LogicalMessage | None
    lsn: int
    position: int
    reply_requested: bool = False
