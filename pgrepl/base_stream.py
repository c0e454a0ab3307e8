"""What the blocking and the asyncio flavour of a stream have in common: all but waiting.

Law: a position is reported to the server as flushed when the application has acknowledged it, and
never before. What was not acknowledged comes again when the slot is streamed again.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from .base_reception import BaseReception
from .codec.abc import Changes
from .errors import ConnectionFailed, UsageError
from .lsn import Lsn
from .messages import (
    Commit,
    CommitPrepared,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Prepare,
    RollbackPrepared,
    StreamCommit,
    StreamPrepare,
    Truncate,
    Update,
)
from .ownership import Uncopied
from .session.opening import Opened
from .session.session import Session
from .session.transactions import BaseTransaction, Transactions
from .token import ResumeToken

__all__ = ["Acknowledgeable", "BaseStream", "Batch", "Change", "ReadTransaction", "StreamEvent"]

Change: TypeAlias = Insert | Update | Delete | Truncate | Message
"""What a transaction consists of."""


class Batch:
    """Changes of one or more transactions, in order.

    `end_lsn`: of the last transaction that ends in it or ended before. Acknowledging the batch
    acknowledges everything up to there, and the transaction that goes on behind it as soon as that
    turns out to have no further changes.
    """

    __slots__ = ("_acknowledged", "changes", "end_lsn")

    def __init__(self, changes: list[Change], end_lsn: Lsn) -> None:
        self.changes = changes
        self.end_lsn = end_lsn
        self._acknowledged: tuple[bool, bool, bool] | None = None

    def __repr__(self) -> str:
        return f"<Batch of {len(self.changes)} changes, end_lsn={self.end_lsn}>"

    def __iter__(self) -> Iterator[Change]:
        return iter(self.changes)

    def __len__(self) -> int:
        return len(self.changes)


Acknowledgeable: TypeAlias = (
    BaseTransaction
    | Batch
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


class ReadTransaction(Uncopied, BaseTransaction):
    """A transaction that is read from a stream."""

    __slots__ = ("_acknowledged", "_stream")

    def __init__(self, stream: Any, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._stream = stream
        # Which positions an acknowledgement moves, where it came before the end.
        self._acknowledged: tuple[bool, bool, bool] | None = None


T = TypeVar("T", bound=ReadTransaction)


class BaseStream(BaseReception, Generic[T]):
    """The decoded changes of a slot: what has come of them, and what is acknowledged."""

    def __init__(self, session: Session, opened: Opened, transaction: type[T]) -> None:
        super().__init__(session)
        self._transaction = transaction
        self._decoder = opened.decoder
        self._system = opened.checked.system
        self._start = opened.checked.start
        self._handled = opened.handled  # changes of the first transaction, not to be given again
        self._spool = opened.spool
        self._by_transaction = False
        self._last_batch: Batch | None = None  # unless more was given since
        self._wal: Any = ()  # what `_changes` are decoded from
        self._changes: Changes | None = None
        self._has_events = False  # that were given and not read yet
        self._passed = 0  # of a keepalive that was given: nothing is left to come before it
        self._transactions: Transactions[T] = Transactions(self._make)

    @property
    def start(self) -> Lsn:
        """Where the stream began: the position asked for, or the one that the slot confirmed."""
        return self._start

    @property
    def _delivered(self) -> int:
        return self._decoder.delivered

    @property
    def _is_between(self) -> bool:
        return self._decoder.is_between

    def _fail(self) -> None:
        """Close the connection, so that nothing more is sent, and give nothing more: of what has
        come, something may be missing in front."""
        self._changes = None
        self._transactions = Transactions(self._make)
        super()._fail()

    # What has come

    def _make(self, *arguments: Any, **keywords: Any) -> T:
        return self._transaction(self, *arguments, **keywords)

    def _at_hand(self) -> Changes | None:
        """Return what was decoded and not read yet; None: nothing is left of it."""
        changes = self._changes
        return None if changes is None or changes.peek() is None else changes

    def _next_transaction(self) -> T | None:
        """Begin the next transaction; None: another batch is needed."""
        with self._handing_out():
            return self._transactions.next()

    def _changes_at_hand(self, transaction: T) -> Iterator[Change]:
        """Give what has come of a transaction; then it is whole, or another batch is needed."""
        if self._transactions.open is not transaction:
            raise UsageError(
                "expected to read the transaction that was given last; the others are over"
            )
        with self._handing_out():
            changes = self._transactions.at_hand()
            while self._handled and next(changes, None) is not None:
                self._handled -= 1
            yield from changes
        if transaction.is_whole:
            self._handled = 0
            if transaction._acknowledged is not None and transaction.end_lsn is not None:
                self._tell(transaction.end_lsn, *transaction._acknowledged)

    def _take(self, changes: list[Change], room: int) -> bool:
        """Add what is at hand to a batch, up to a limit; False: nothing is."""
        transaction = self._transactions.open
        if transaction is None or transaction.is_whole:
            transaction = self._next_transaction()
            if transaction is None:
                return False
        before = len(changes)
        changes += islice(self._changes_at_hand(transaction), room)
        if len(changes) > before:
            self._last_batch = None
            return True
        self._end_batch()
        return transaction.is_whole

    def _end_batch(self) -> None:
        """Acknowledge the transaction whose changes were all given in batches, once it ends.

        Its end may come when the batch with the last of them has long been acknowledged.
        """
        batch, transaction = self._last_batch, self._transactions.open
        if batch is None or batch._acknowledged is None or transaction is None:
            return
        if transaction.is_whole and transaction.end_lsn is not None:
            self._tell(transaction.end_lsn, *batch._acknowledged)

    def _batch(self, changes: list[Change]) -> Batch:
        """Make a batch, with the end of the transaction where that comes next."""
        transaction = self._transactions.open
        if transaction is not None and self._transactions.at_end:
            changes += self._changes_at_hand(transaction)
        self._last_batch = Batch(changes, Lsn(self._decoder.delivered))
        return self._last_batch

    def _begin_to_read(self, by_transaction: bool) -> None:
        """Go on from the boundary of a transaction, in this way or the other."""
        self._by_transaction = by_transaction
        transaction = self._transactions.open
        if transaction is not None and not transaction.is_whole:
            raise UsageError(
                f"expected the last transaction to be read to its end, {transaction!r} was left in "
                "the middle: read on in it, or stop the stream and start it again, which brings "
                "what was not acknowledged once more"
            )

    def _begin_batches(self, max_rows: int) -> None:
        if max_rows < 1:
            raise UsageError(f"expected batches of at least one row, got max_rows={max_rows}")
        self._begin_to_read(by_transaction=True)

    def _decoded(self, batch: Any) -> Changes:
        """Decode a batch as it is read."""
        if not len(batch):
            raise ConnectionFailed("the server ended the stream; its log may say why")
        spool = self._spool if self._by_transaction else None
        return self._decoder.decode_batch(batch, spool)

    def _begin_to_receive(self) -> None:
        """Go on with events. Raises `UsageError` where something else was begun."""
        if self._has_events or self._at_hand() is not None:
            raise UsageError(
                "expected all that was received before to be read; read on in it, or stop the "
                "stream and start it again, which brings what was not acknowledged once more"
            )
        self._begin_to_read(by_transaction=False)

    def _events(self) -> Iterator[StreamEvent]:
        """Give the messages of a batch, each decoded when it is asked for."""
        decoder, changes = self._decoder, self._changes
        assert changes is not None
        with self._handing_out():
            for item in self._wal:
                if hasattr(item, "reply_requested"):
                    position = 0
                    if decoder.is_between:
                        position = self._passed = max(self._passed, item.wal_end)
                    yield StreamEvent(None, item.wal_end, position, item.reply_requested)
                else:
                    before = decoder.delivered
                    message = next(changes)
                    after = decoder.delivered
                    yield StreamEvent(message, item.wal_start, after if after > before else 0)
        self._has_events = False

    def _let_go(self) -> None:
        """Give back what was put aside, and the room for it."""
        if self._spool is not None:
            self._spool.close()

    # Acknowledging

    def ack(
        self,
        upto: Acknowledgeable,
        *,
        written: bool = True,
        flushed: bool = True,
        applied: bool = True,
    ) -> None:
        """Acknowledge everything up to a transaction, commit, batch or position. From any thread.

        Cumulative, and never waits: the server is told as soon as the application waits for more,
        or within a tenth of a second. A transaction that was not read to its end is acknowledged
        when it is. A position beyond what was delivered counts as the end of what was.

        Flushed is what lets the server forget. For synchronous replication the three positions that
        the server waits for can be moved apart: ``ack(txn, applied=False)`` when it is durable,
        ``ack(txn)`` when others can see it.
        """
        self._require_on()
        moved = (written, flushed, applied)
        if isinstance(upto, ReadTransaction | Batch):
            upto._acknowledged = moved
        if not isinstance(upto, ReadTransaction) or upto.is_whole:
            self._tell(_end_of(upto), *moved)
        if isinstance(upto, Batch):
            self._end_batch()

    def _tell(self, position: int, written: bool, flushed: bool, applied: bool) -> None:
        """Pass an acknowledgement on to the session."""
        delivered = self._decoder.delivered
        if delivered < position:
            delivered = max(delivered, min(position, self._passed))
        self._feedback.acknowledge(delivered, position, written, flushed, applied)

    def token(self, upto: Acknowledgeable | None = None, index: int = 0) -> ResumeToken:
        """Return what to keep beside one's own data to go on behind `upto` later.

        Without `upto`: behind the last position before which nothing is left to acknowledge, which
        moves on while the stream is idle. `index`: how many changes of the transaction behind it
        are dealt with as well. Give the token as `start` to `stream()`, which then knows if it is
        the same system and if the slot still has all that is missing.

        Once a token was asked for, or the stream began with one, the slot no longer advances by
        itself while the stream is idle, since it would get ahead of the token that was kept: now
        and then keep ``token()`` and acknowledge that.
        """
        positions = self._session.positions
        positions.automatic = False
        position = _end_of(upto) if upto is not None else positions.safe or self._start
        return ResumeToken(self._system.systemid, self._system.timeline, Lsn(position), index)


def _end_of(upto: Any) -> int:
    """Return the position by which something is acknowledged."""
    if isinstance(upto, RollbackPrepared):
        return upto.rollback_end_lsn
    if isinstance(upto, Message):
        return upto.lsn
    if isinstance(upto, int):
        return upto
    end_lsn = getattr(upto, "end_lsn", None)
    if end_lsn is None or not getattr(upto, "is_whole", True):
        raise UsageError(
            "expected a transaction that was read to its end, a batch, a message that ends a "
            f"transaction or an Lsn, got {upto!r:.100}"
        )
    return int(end_lsn)
