"""Decoded messages put together into transactions, in commit order, batch by batch.

The driver feeds the decoded batches and asks for the next transaction, then for its changes, run by
run: a run is what has come of it. None, or a run whose end was not the transaction's, says that
another batch is needed. So nothing of a transaction is collected here, however large it is, and no
code runs for each change. What the server streams before its transaction ends waits in the spool
that the batches are decoded with; the transaction begins when its end has come, and is then at hand
as a whole.

What is held against the rules: a transaction ends with the commit that its beginning announced, and
commits come in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final

from ..codec.abc import Changes, Mould, Replay
from ..codec.spool import Spool
from ..codec.stored import Stored
from ..errors import DecodeError
from ..lsn import Lsn, encode_lsn
from ..messages import (
    Begin,
    BeginPrepare,
    Commit,
    CommitPrepared,
    LogicalMessage,
    Message,
    Origin,
    Prepare,
    RollbackPrepared,
    StreamCommit,
    StreamPrepare,
)
from .received import Kind, ReceivedTransaction

__all__ = ["Transactions"]

# Where each message that ends a transaction has the position of its record; of a rollback there is
# only the end.
_LSN_AT: Final = {b"C": 2, b"P": 2, b"K": 2, b"c": 6, b"p": 2, b"r": 10}


class Transactions:
    """Makes transactions of decoded batches."""

    def __init__(self) -> None:
        self._changes: Changes | None = None
        self.open: ReceivedTransaction | None = None
        """The transaction whose changes are being read, or the last one that was."""
        # Of the open one, as long as it has not ended:
        self._outside: Iterator[Any] | None = None  # the changes that are not in the batch
        self._replay: Replay | None = None  # the same, where it was streamed
        self._stored: Stored | None = None  # where it is put aside, to be given as a whole
        self.last_end = 0
        """Where the last transaction that has ended did so, of those that come in order."""

    @property
    def is_gathering(self) -> bool:
        """Whether the open transaction is being put aside, to be given as a whole."""
        return self._stored is not None

    @property
    def at_end(self) -> bool:
        """Whether the open transaction has come to its end, though that was not read yet."""
        transaction, changes = self.open, self._changes
        if transaction is None or changes is None or transaction.has_ended:
            return False
        if transaction.end_lsn is None:
            return changes.peek() in ("C", "P")
        replay = self._replay
        return replay is not None and replay.peek() is None

    def feed(self, changes: Changes) -> None:
        """Go on with another batch; the one before must be used up."""
        self._changes = changes

    def begin(self, mould: Mould) -> Any:
        """Begin the next transaction where it is at hand as a whole, and the one before has ended;
        None: ask `next`. Raises `DecodeError`."""
        changes, before = self._changes, self.open
        if changes is None or (before is not None and not before.has_ended):
            return None
        begun = changes.begin(mould)
        if begun is not None:
            self.open = mould.received
        return begun

    def gather_whole(self, changes: list[Any], parts: list[Any], max_rows: int) -> bool:
        """Add the changes of transactions that are at hand as a whole to a list, where the one
        before has ended, see `Changes.gather`; False: ask `next`. Raises `DecodeError`."""
        at_hand, before = self._changes, self.open
        if at_hand is None or (before is not None and not before.has_ended):
            return False
        end_lsn = at_hand.gather(changes, parts, max_rows)
        if end_lsn:
            self.open, self.last_end = None, max(self.last_end, end_lsn)
        return end_lsn != 0

    def next(self) -> ReceivedTransaction | None:
        """Begin the next transaction; None: another batch is needed.

        The one before must have ended. Raises `DecodeError`.
        """
        before = self.open
        if before is not None and before.kind == "commit" and before.end_lsn is not None:
            # Where it was read by its run, nobody has taken note of that here.
            self.last_end = max(self.last_end, before.end_lsn)
        changes = self._changes
        if changes is None:
            return None
        for message in changes:
            # First what comes by the thousand.
            if type(message) is Begin:
                self.open = ReceivedTransaction(
                    "commit", message.xid, message.final_lsn, message.commit_time
                )
            elif (made := self._begun_by(message)) is not None:
                self.open = made
            else:
                continue
            if changes.peek() == "O":
                self._read_origin(self.open, changes)
            return self.open
        return None

    def _read_origin(self, transaction: ReceivedTransaction, changes: Changes) -> None:
        """Read an Origin that comes next; where that is in another batch, `run` finds it."""
        if transaction.end_lsn is None:
            origin = next(changes)
            assert isinstance(origin, Origin)
            transaction.origin = origin

    def _begun_by(self, message: LogicalMessage) -> ReceivedTransaction | None:
        if isinstance(message, BeginPrepare):
            lsn, time, gid = message.prepare_lsn, message.prepare_time, message.gid
            return ReceivedTransaction("prepare", message.xid, lsn, time, gid=gid)
        if isinstance(message, StreamCommit):
            self._require_order(message.commit_lsn, message.end_lsn, b"c")
            return self._streamed(message, "commit", message.commit_lsn, message.commit_time)
        if isinstance(message, StreamPrepare):
            self._require_order(message.prepare_lsn, message.end_lsn, b"p")
            lsn, time = message.prepare_lsn, message.prepare_time
            return self._streamed(message, "prepare", lsn, time, message.gid)
        return self._without_changes(message)

    def _streamed(
        self,
        message: StreamCommit | StreamPrepare,
        kind: Kind,
        lsn: Lsn,
        time: int,
        gid: str | None = None,
    ) -> ReceivedTransaction:
        assert self._changes is not None
        made = ReceivedTransaction(kind, message.xid, lsn, time, message.end_lsn, gid)
        self._replay = self._outside = self._changes.streamed(message.xid)
        made.has_ended = False
        made.origin = self._replay.origin
        return made

    def _without_changes(self, message: LogicalMessage) -> ReceivedTransaction | None:
        if isinstance(message, CommitPrepared):
            self._require_order(message.commit_lsn, message.end_lsn, b"K")
            return ReceivedTransaction(
                "commit prepared",
                message.xid,
                message.commit_lsn,
                message.commit_time,
                message.end_lsn,
                message.gid,
            )
        if isinstance(message, RollbackPrepared):
            end = message.rollback_end_lsn
            self._require_order(end, end, b"r")
            return ReceivedTransaction(
                "rollback prepared", message.xid, None, message.rollback_time, end, message.gid
            )
        if isinstance(message, Message):
            made = ReceivedTransaction("message", None, None, None, message.lsn)
            self._outside = iter((message,))
            made.has_ended = False
            return made
        return None

    def run(self) -> Iterator[Any]:
        """Return an iterator over the changes of the open transaction that have come.

        When there are no more in it, ask `run_ends`. Both raise `DecodeError`, and iterating does.
        """
        transaction, changes = self.open, self._changes
        if transaction is None or changes is None:
            return iter(())
        if self._outside is not None:
            return self._outside
        if transaction.end_lsn is not None:
            return iter(())
        if changes.peek() == "O":
            self._read_origin(transaction, changes)
        return changes.of_transaction()

    def run_ends(self) -> bool:
        """Take note that a run was read to its end; say whether the transaction was as well.

        If not, another run comes, or another batch is needed. Raises `DecodeError`.
        """
        transaction, changes = self.open, self._changes
        if transaction is None or changes is None:
            return True
        if self._outside is not None:
            self._outside = self._replay = None
            if transaction.end_lsn is None:
                return False
            changes.settle()
        elif transaction.end_lsn is None:
            if changes.origin is not None:
                transaction.origin = changes.origin
            end = changes.end
            if end is None:
                return False
            if (
                type(end) is Commit
                and end.commit_lsn == transaction.commit_lsn
                and self.last_end <= end.commit_lsn <= end.end_lsn
            ):
                self.last_end = transaction.end_lsn = end.end_lsn
            else:
                self._note_end(transaction, end)
        transaction.has_ended = True
        return True

    def gather(self, spool: Spool) -> Iterable[Any] | None:
        """Put what has come of the open transaction aside; return all of its changes at its end.

        None: it has not come yet. What is returned can be iterated over again and again, also when
        the stream has ended. Raises `DecodeError` and `SpoolError`.
        """
        transaction, changes = self.open, self._changes
        assert transaction is not None and changes is not None
        gathered: Iterable[Any] = ()
        if self._replay is not None:
            gathered = self._replay.keep()
        elif self._outside is not None:
            gathered = tuple(self._outside)
        elif transaction.end_lsn is None:
            if self._stored is None:
                self._stored = spool.put_aside()
            if changes.peek() == "O":
                self._read_origin(transaction, changes)
            changes.put_aside(self._stored)
            if not self.run_ends():
                return None
            gathered, self._stored = changes.kept(self._stored), None
            return gathered
        self.run_ends()
        return gathered

    def put_back(self, changes: list[Any]) -> None:
        """Have the next run of the open transaction begin with changes of one that was cut off."""
        transaction = self.open
        if transaction is not None and changes:
            self._outside = chain(changes, self._outside or ())

    def pass_over(self) -> tuple[bool, bool]:
        """Pass over what has come of the open transaction.

        Returns whether a change was passed over, and whether the transaction has ended with that.
        """
        transaction = self.open
        replay = None if transaction is None else self._replay
        if replay is not None:
            # Without making its changes one by one.
            any_passed = replay.peek() is not None
            replay.release()
            return any_passed, self.run_ends()
        run = self.run()
        any_passed = next(run, None) is not None
        deque(run, maxlen=0)
        return any_passed, self.run_ends()

    def _note_end(self, transaction: ReceivedTransaction, end: LogicalMessage) -> None:
        if isinstance(end, Commit):
            lsn, tag = end.commit_lsn, b"C"
        else:
            assert isinstance(end, Prepare)
            lsn, tag = end.prepare_lsn, b"P"
        if lsn != transaction.commit_lsn:
            raise DecodeError(
                f"expected the transaction that was to end at {transaction.commit_lsn} to do so, "
                f"got its end at {encode_lsn(lsn)}",
                tag=tag,
                offset=_LSN_AT[tag],
                lsn=lsn,
            )
        self._require_order(lsn, end.end_lsn, tag)
        transaction.end_lsn = end.end_lsn

    def _require_order(self, lsn: Lsn, end_lsn: Lsn, tag: bytes) -> None:
        if end_lsn < lsn:
            raise DecodeError(
                f"expected the transaction at {lsn} to end behind that, got its end at {end_lsn}",
                tag=tag,
                offset=_LSN_AT[tag] + 8,
                lsn=lsn,
            )
        # A server that had passed over PREPARE TRANSACTION, since two_phase was not on yet, makes
        # up for it at COMMIT PREPARED, with the positions that it had then.
        if lsn < self.last_end and tag not in (b"P", b"p"):
            raise DecodeError(
                f"expected transactions in the order of their commits, got one at {lsn} after one "
                f"that ended at {encode_lsn(self.last_end)}",
                tag=tag,
                offset=_LSN_AT[tag],
                lsn=lsn,
            )
        self.last_end = max(self.last_end, end_lsn)
