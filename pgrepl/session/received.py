"""A transaction as it comes: what the server says of it, and what has become of its changes.

The one home of a transaction's state. What users hold shows a part of it, see
`client.delivery.BaseTransaction`.

Law: changes that can no longer be read from the stream are missed aloud, by whoever reads them and
by whoever acknowledges them unread.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any, Final, Literal, TypeAlias

from ..errors import UsageError
from ..lsn import Lsn
from ..messages import Origin

__all__ = ["READ", "Kind", "Moved", "ReceivedTransaction"]

Kind: TypeAlias = Literal["commit", "prepare", "commit prepared", "rollback prepared", "message"]

Moved: TypeAlias = tuple[bool, bool, bool]
"""Which positions an acknowledgement moves: written, flushed, applied."""


class Unreadable(enum.Enum):
    """Why the changes of a transaction can no longer be read from the stream."""

    READ = "all of them were read"
    BEING_PASSED_OVER = "the next transaction was asked for; whether that costs any is not known"
    PASSED_OVER = "the next transaction was asked for, which has cost some"
    SKIPPED = "they are not needed, said whoever has the transaction"


# Looked up once: this is asked for every transaction, and an Enum is slow at it.
READ: Final = Unreadable.READ
_BEING_PASSED_OVER: Final = Unreadable.BEING_PASSED_OVER
_PASSED_OVER: Final = Unreadable.PASSED_OVER

_KEEP: Final = (
    "read() it while it is the last one, which gives a list and lets it keep its changes, or use "
    "transactions(whole=True), whose transactions keep theirs"
)
_TOO_LATE: Final = {
    Unreadable.READ: (
        "expected to read the changes of a transaction once, all of them have been read: to have "
        f"them again, {_KEEP}"
    ),
    Unreadable.BEING_PASSED_OVER: (
        "expected to read the changes of a transaction before the next one is asked for, which "
        f"passes over them: to have them later, or elsewhere, {_KEEP}"
    ),
    Unreadable.SKIPPED: (
        "expected to read the changes of a transaction, or to skip() it; it was skipped"
    ),
}
_TOO_LATE[Unreadable.PASSED_OVER] = _TOO_LATE[Unreadable.BEING_PASSED_OVER]


class ReceivedTransaction:
    """What is known of a transaction that has begun to come.

    `kind`, `xid`, `commit_lsn`, `commit_time`, `end_lsn`, `gid`, `origin`: see
    `client.delivery.BaseTransaction`. `has_ended`: nothing of it is left to come, however it was
    read. `unreadable`: why its changes can no longer be read from the stream; None: they can.
    `acknowledged`: the positions that an acknowledgement moves, where it came before the end.
    `owned`: its changes, where it owns them and needs no stream any more. `run`: gives those that
    were not read yet, as long as all of them are at hand and nobody reads them in another way.
    """

    __slots__ = (
        "acknowledged",
        "commit_lsn",
        "commit_time",
        "end_lsn",
        "gid",
        "has_ended",
        "kind",
        "origin",
        "owned",
        "run",
        "unreadable",
        "xid",
    )

    def __init__(
        self,
        kind: Kind,
        xid: int | None,
        commit_lsn: Lsn | None,
        commit_time: int | None,
        end_lsn: Lsn | None = None,
        gid: str | None = None,
    ) -> None:
        self.kind: Final = kind
        self.xid: Final = xid
        self.commit_lsn: Final = commit_lsn
        self.commit_time: Final = commit_time
        self.end_lsn = end_lsn
        self.gid: Final = gid
        self.origin: Origin | None = None
        self.has_ended = end_lsn is not None
        self.unreadable: Unreadable | None = None
        self.acknowledged: Moved | None = None
        self.owned: Iterable[Any] | None = None
        self.run: Any = None

    @property
    def is_whole(self) -> bool:
        """Whether all of it has been read, or skipped on purpose: it can be acknowledged."""
        why = self.unreadable
        return self.has_ended and why is not _PASSED_OVER and why is not _BEING_PASSED_OVER

    def require_readable(self) -> None:
        """Raise `UsageError` where its changes can no longer be read from the stream."""
        if self.unreadable is not None:
            raise UsageError(f"{_TOO_LATE[self.unreadable]}, {self!r}")

    def require_complete(self) -> None:
        """Raise `UsageError` where its end came while somebody else passed over a part of it."""
        if self.unreadable is not READ:
            self.require_readable()

    def begin_passing_over(self) -> None:
        """Have nobody read its changes any more, before they are passed over."""
        self.run = None
        if self.unreadable is None:
            self.unreadable = _BEING_PASSED_OVER

    def note_passed_over(self, any_changes: bool) -> None:
        """Take note that what has come of it was passed over, and whether there was any change."""
        if self.unreadable is _BEING_PASSED_OVER:
            if any_changes:
                self.unreadable = _PASSED_OVER
            elif self.has_ended:
                self.unreadable = READ

    def break_off_passing_over(self) -> None:
        """Take note that nobody waits any more for the end of what is passed over: where that has
        cost nothing yet, its changes can be read again."""
        if self.unreadable is _BEING_PASSED_OVER:
            self.unreadable = None

    def skip(self) -> None:
        """Have its changes, or the rest of them, not needed: it is whole without them."""
        if self.unreadable is not READ or self.owned is not None:
            self.unreadable = Unreadable.SKIPPED
        self.owned = self.run = None

    def acknowledge(self, moved: Moved) -> None:
        """Take note of an acknowledgement, which counts from the transaction's end on.

        Raises `UsageError` where changes were passed over that nobody has read.
        """
        why = self.unreadable
        if (why is _PASSED_OVER or why is _BEING_PASSED_OVER) and self.acknowledged is None:
            raise UsageError(
                "expected a transaction to be read before it is acknowledged, the next one was "
                f"asked for and its changes were passed over, {self!r}: {_KEEP}; or skip() it, to "
                "say that they are not needed"
            )
        self.acknowledged = moved

    def __repr__(self) -> str:
        lsn = "" if self.commit_lsn is None else f" commit_lsn={self.commit_lsn}"
        gid = "" if self.gid is None else f" gid={self.gid!r}"
        if self.unreadable is None or self.unreadable is READ:
            why = "" if self.has_ended else ", not read to its end"
        else:
            why = ", skipped" if self.unreadable is Unreadable.SKIPPED else ", passed over"
        return f"<Transaction {self.kind} xid={self.xid}{lsn}{gid}{why}>"
