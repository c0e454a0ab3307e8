"""What was decoded and not read yet, and what decodes the rest: shared by all ways to read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from ...codec.abc import Changes
from ...errors import ConnectionFailed, UsageError
from ...session.limit import Limit
from ...session.opening import Opened

__all__ = ["Decoded"]


class Decoded:
    """The batch that came last, and the decoder.

    `wal` and `changes`: the messages of the batch, and what they say; None: nothing is left to read
    of it, or something may be missing in front. `puts_aside`: whether what is streamed before its
    transaction ends waits in the spool until then. `limit`: where the iteration is to end by
    itself. `failing`: a context that closes the connection where an exception leaves it, for those
    that may have cost a message.
    """

    __slots__ = (
        "_fail",
        "_streams",
        "changes",
        "decoder",
        "failing",
        "has_ended",
        "limit",
        "puts_aside",
        "spool",
        "wal",
    )

    def __init__(
        self,
        opened: Opened,
        limit: Limit | None,
        *,
        has_ended: Callable[[], bool],
        fail: Callable[[BaseException], None],
        failing: AbstractContextManager[None],
    ) -> None:
        """`has_ended` says whether the stream was stopped, `fail` closes the connection."""
        self.decoder: Final = opened.decoder
        self.spool = opened.spool
        self.limit = limit
        self.wal: Any = ()
        self.changes: Changes | None = None
        self.puts_aside = False
        self.has_ended: Final = has_ended
        self.failing: Final = failing
        self._fail: Final = fail
        self._streams: Final = opened.streams

    @property
    def delivered(self) -> int:
        """The highest position by which something that was delivered can be acknowledged."""
        limit = self.limit
        if limit is not None and limit.delivered is not None:
            return limit.delivered
        return self.decoder.delivered

    @property
    def unread(self) -> Changes | None:
        """What is left to read of the batch; None: nothing."""
        changes = self.changes
        return None if changes is None or changes.peek() is None else changes

    @property
    def has_given_all(self) -> bool:
        """Whether everything that came has been given."""
        limit = self.limit
        return self.unread is None and (limit is None or limit.delivered is None)

    def decode(self, batch: Any) -> Changes:
        """Return what the messages of a batch say, each decoded when it is asked for."""
        if not len(batch):
            raise ConnectionFailed("the server ended the stream; its log may say why")
        spool = self.spool if self._streams and self.puts_aside else None
        return self.decoder.decode_batch(batch, spool)

    def was_stopped(self, error: BaseException) -> bool:
        """Deal with an error where changes are handed out: either the stream was stopped meanwhile,
        by another thread perhaps, which is no fault, or it has failed."""
        if isinstance(error, UsageError) and self.has_ended():
            return True
        self._fail(error)
        return False
