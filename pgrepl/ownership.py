"""What belongs to the process that made it: sockets, threads, files that are being written.

Law: a child that inherited it by fork closes its own descriptor and does nothing else: it sends
nothing, shuts nothing down, removes nothing, and takes no lock, which a thread may hold that is not
there. Nor is it copied, or pickled for another process.
"""

from __future__ import annotations

import os
from typing import Final, NoReturn, SupportsIndex, final
from weakref import WeakSet

from .errors import UsageError

__all__ = ["Owner", "Uncopied"]


@final
class Owner:
    """The process that made something."""

    __slots__ = ("__weakref__", "_pid", "is_parent")

    def __init__(self) -> None:
        self._pid: Final = os.getpid()
        self.is_parent = False
        """Whether this is a child, forked from it. Looked at for each batch, and so no method."""
        _owners.add(self)

    def refusal(self) -> UsageError:
        """Return the error for who uses something of the parent."""
        return UsageError(
            f"expected the process {self._pid}, which made this connection, got its child "
            f"{os.getpid()}: make a connection in each process; to close this one here closes its "
            "descriptor alone"
        )


_owners: Final[WeakSet[Owner]] = WeakSet()


def _forked() -> None:
    for owner in list(_owners):
        owner.is_parent = True


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forked)


class Uncopied:
    """What can be neither copied nor pickled: `copy`, `pickle` and what uses them get a
    `TypeError`."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        raise TypeError(
            f"cannot copy or pickle {type(self).__name__!r} objects: one belongs to a connection, "
            "and to the process that made that"
        )
