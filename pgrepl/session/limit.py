"""Where the iteration over a stream comes to its end by itself, though the stream goes on.

It ends between transactions and never inside one: when a position is reached, or when somebody has
asked for it. Law: nothing that lies beyond is given, and nothing of it counts as delivered, even
where one had to be looked at to know that it does.
"""

from __future__ import annotations

from .received import ReceivedTransaction

__all__ = ["Limit"]


class Limit:
    """A position, a wish, or both.

    `until`: a transaction is given if its commit begins before it, since a commit that begins right
    there can still be to come when everything before was sent. `is_wanted`: somebody asked for the
    end. `delivered`: what had been delivered when something came that lies beyond; None: nothing
    did.
    """

    __slots__ = ("delivered", "is_wanted", "until")

    def __init__(self, until: int | None = None) -> None:
        self.until = until
        self.is_wanted = False
        self.delivered: int | None = None

    def is_reached(self, position: int, is_between: bool) -> bool:
        """Say whether nothing more is to be given, everything before `position` having been."""
        if self.delivered is not None:
            return True
        if not is_between:
            return False
        return self.is_wanted or (self.until is not None and position >= self.until)

    def excludes(self, transaction: ReceivedTransaction) -> bool:
        """Say whether a transaction lies beyond."""
        until = self.until
        if until is None:
            return False
        begin, end = transaction.commit_lsn, transaction.end_lsn
        if begin is None and transaction.kind == "rollback prepared":
            # Of its record there is only the end.
            return end is not None and end > until
        at = end if begin is None else begin
        return at is not None and at >= until
