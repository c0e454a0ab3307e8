"""What a stream delivers: transactions, batches of changes, and single events.

Law: what was delivered is never silently less than it was. Changes that can no longer be read from
the stream are missed aloud, by whoever reads them and by whoever acknowledges them unread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple, TypeAlias

from ..errors import UsageError
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
)
from ..ownership import Uncopied
from ..resume import ResumeToken
from ..session.transactions import PASSED, PASSING, BaseTransaction, Kind, Over

__all__ = [
    "Acknowledgeable",
    "Batch",
    "Change",
    "Idle",
    "ReadTransaction",
    "Rest",
    "StreamEvent",
    "TransactionPart",
]

Change: TypeAlias = Insert | Update | Delete | Truncate | Message
"""What a transaction consists of."""

_KEEP: Final = (
    "read() it while it is the last one, which gives a list and lets it keep its changes, or use "
    "transactions(whole=True), whose transactions keep theirs"
)
_TOO_LATE: Final = {
    Over.READ: (
        "expected to read the changes of a transaction once, all of them have been read: to have "
        f"them again, {_KEEP}"
    ),
    Over.PASSING: (
        "expected to read the changes of a transaction before the next one is asked for, which "
        f"passes over them: to have them later, or elsewhere, {_KEEP}"
    ),
    Over.SKIPPED: "expected to read the changes of a transaction, or to skip() it; it was skipped",
}
_TOO_LATE[Over.PASSED] = _TOO_LATE[Over.PASSING]


class ReadTransaction(Uncopied, BaseTransaction):
    """A transaction that is read from a stream."""

    __slots__ = ("_acknowledged", "_owned", "_stream")

    _stream: Any

    def __init__(
        self,
        kind: Kind,
        xid: int | None,
        commit_lsn: Lsn | None,
        commit_time: int | None,
        end_lsn: Lsn | None = None,
        gid: str | None = None,
    ) -> None:
        BaseTransaction.__init__(self, kind, xid, commit_lsn, commit_time, end_lsn, gid)
        # Which positions an acknowledgement moves, where it came before the end.
        self._acknowledged: tuple[bool, bool, bool] | None = None
        self._owned: Iterable[Change] | None = None

    def skip(self) -> None:
        """Say that its changes, or the rest of them, are not needed. Never waits.

        It can then be acknowledged although they were passed over, and no longer be read. What they
        took is given back.
        """
        if self._over is not Over.READ or self._owned is not None:
            self._over = Over.SKIPPED
        self._owned = None

    def _require_unread(self) -> None:
        if self._over is not None:
            raise UsageError(f"{_TOO_LATE[self._over]}, {self!r}")

    def _require_complete(self) -> None:
        """Raise `UsageError` where its end came while somebody else passed over a part of it."""
        if self._over is not Over.READ:
            self._require_unread()

    def _acknowledge(self, moved: tuple[bool, bool, bool]) -> None:
        """Take note of an acknowledgement, which counts from the transaction's end on."""
        over = self._over
        if (over is PASSED or over is PASSING) and self._acknowledged is None:
            raise UsageError(
                "expected a transaction to be read before it is acknowledged, the next one was "
                f"asked for and its changes were passed over, {self!r}: {_KEEP}; or skip() it, to "
                "say that they are not needed"
            )
        self._acknowledged = moved


class Rest:
    """Changes without the first ones of them, to be iterated over again and again."""

    __slots__ = ("_changes", "_count")

    def __init__(self, changes: Iterable[Change], count: int) -> None:
        self._changes = changes
        self._count = count  # of those that are left out

    def __iter__(self) -> Iterator[Change]:
        return islice(self._changes, self._count, None)


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


class Batch:
    """Changes of one or more transactions, in order.

    `end_lsn`: of the last transaction that ends in it or ended before, never before the stream's
    start. `index`: how many changes of the transaction that goes on behind it are dealt with, in
    this batch and before; 0 where none goes on. Acknowledging the batch acknowledges everything up
    to `end_lsn`, and the transaction that goes on behind it as soon as that turns out to have no
    further changes.
    """

    __slots__ = ("_acknowledged", "_is_end", "_parts", "_source", "changes", "end_lsn", "index")

    def __init__(self, changes: list[Change], end_lsn: Lsn, index: int = 0) -> None:
        self.changes = changes
        self.end_lsn = end_lsn
        self.index = index
        self._acknowledged: tuple[bool, bool, bool] | None = None
        # Transactions, where their changes begin, and how many came before.
        self._parts: Sequence[tuple[BaseTransaction, int, int] | TransactionPart] = ()
        self._is_end = False  # whether the last of them ends here
        self._source: tuple[str, str] | None = None  # slot and system, where a stream gave it

    @property
    def transactions(self) -> tuple[TransactionPart, ...]:
        """What the batch has of each transaction, in order; of none that has no changes in it."""
        parts, size = self._parts, len(self.changes)
        if not isinstance(parts, tuple):
            made = []
            for number, (transaction, begin, index) in enumerate(parts, 1):  # type: ignore[misc]
                is_last = number == len(parts)
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


def _part(
    transaction: BaseTransaction, has_ended: bool, index: int, begin: int, end: int
) -> TransactionPart:
    return TransactionPart(
        *(transaction.kind, transaction.xid, transaction.gid),
        *(transaction.commit_lsn, transaction.commit_time, transaction.origin),
        transaction.end_lsn if has_ended else None,
        index,
        slice(begin, end),
    )


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
