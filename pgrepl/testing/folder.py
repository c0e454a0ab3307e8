"""The temporary folder that a server lives in."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final

from .errors import TemporaryServerError
from .server_account import Account, give

__all__ = ["new_folder"]

# sockaddr_un holds 108 bytes on Linux and 104 on macOS, the closing NUL included.
_SOCKET_PATH_LIMIT: Final = 103


def new_folder(account: Account | None) -> Path:
    """A folder of the server's user, where that user can remove it; short enough for a socket.

    Raises `TemporaryServerError` where there is no place for one.
    """
    candidates = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]
    for parent in candidates:
        socket_path = parent.resolve() / "pgrepl-xxxxxxxx" / ".s.PGSQL.65535"
        if len(os.fsencode(socket_path)) > _SOCKET_PATH_LIMIT or not parent.is_dir():
            continue
        if account is None or account.can_add_to(parent.resolve()):
            folder = Path(tempfile.mkdtemp(prefix="pgrepl-", dir=parent.resolve()))
            give(folder, account)
            return folder
    raise TemporaryServerError(
        "found no place for a temporary folder that the server can reach and whose path leaves "
        f"room for a socket: tried {', '.join(map(str, candidates))}; set TMPDIR to a short path"
    )
