"""The operating-system user that a throw-away server runs as, and what that user can reach.

PostgreSQL refuses to run as root, as it should. Where root asks for a server, in a container or a
CI job, it runs as another user, who must own the data directory and be able to read the programs.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple


class NoServerAccount(RuntimeError):
    """We are root, and there is no other user to run the server as."""


class Account(NamedTuple):
    """A user without root's powers."""

    name: str
    uid: int
    gid: int

    def can_read_all(self, root: Path) -> bool:
        """Can it read all that is below `root`? Also true when there is nothing."""
        if not root.exists():
            return True
        if not self.can_enter(root):
            return False
        for folder, folders, files in os.walk(root):
            paths = [(Path(folder, name), 0o5) for name in folders]
            paths += [(Path(folder, name), 0o4) for name in files]
            if not all(self._may(wanted, path) for path, wanted in paths if path.exists()):
                return False
        return True

    def can_enter(self, directory: Path) -> bool:
        """Can it pass through `directory`, an absolute path, and all that are above?"""
        return all(self._may(0o1, each) for each in (directory, *directory.parents))

    def can_add_to(self, directory: Path) -> bool:
        """Can it create folders in `directory`, an absolute path, and remove them?"""
        return self.can_enter(directory) and self._may(0o2, directory)

    def _may(self, wanted: int, path: Path) -> bool:
        """Are the permission bits `wanted` among the three of `path` that count for this user?"""
        status = path.stat()
        if status.st_uid == self.uid:
            granted = status.st_mode >> 6
        elif status.st_gid == self.gid:
            granted = status.st_mode >> 3
        else:
            granted = status.st_mode
        return granted & wanted == wanted


def server_account() -> Account | None:
    """The user to run the server as: ourselves (None), or for root `postgres`, else `nobody`.

    Raises:
        NoServerAccount: we are root and this system has neither.
    """
    if os.geteuid() != 0:
        return None
    import pwd  # not on Windows, where this is not reached

    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise NoServerAccount(
        "PostgreSQL refuses to run as root, and this system has neither a user postgres nor a "
        "user nobody to run it as: run this as another user"
    )


def give(path: Path, account: Account | None) -> None:
    """Make `account` the owner of `path` and of all below it; None: it is ours already."""
    if account is None:
        return
    os.chown(path, account.uid, account.gid, follow_symlinks=False)
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            os.chown(Path(folder, name), account.uid, account.gid, follow_symlinks=False)
