"""Where libpq keeps its files, and where servers put their sockets.

Source: PostgreSQL documentation, "The Password File" and "The Connection Service File" (libpq).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ..errors import UsageError

__all__ = [
    "SOCKET_FOLDERS",
    "certificate_file",
    "is_there",
    "operating_system_user",
    "password_file",
    "service_file",
    "system_service_files",
]

SOCKET_FOLDERS: Final = ("/var/run/postgresql", "/tmp")
"""Debian's, and the server's own default: a libpq has one of them built in."""

# Debian's, Red Hat's, and the default of a build from source: likewise.
_SYSTEM_FOLDERS: Final = (
    "/etc/postgresql-common",
    "/etc/sysconfig/pgsql",
    "/usr/local/pgsql/etc",
)


def password_file() -> Path | None:
    """Return where the user's password file is looked for, None where the user has no home."""
    return _of_the_user("pgpass.conf" if os.name == "nt" else ".pgpass")


def service_file() -> Path | None:
    """Return where the user's service file is looked for, None where the user has no home."""
    return _of_the_user(".pg_service.conf")


def certificate_file(name: str) -> Path | None:
    """Return where a certificate, key or revocation list is looked for where none was named, None
    where the user has no home."""
    return _of_the_user(name if os.name == "nt" else f".postgresql/{name}")


def system_service_files() -> tuple[Path, ...]:
    """Return where the system's service file is looked for: in the first of them that exists."""
    folder = os.environ.get("PGSYSCONFDIR")
    if folder is not None:
        return (Path(f"{folder}/pg_service.conf"),)
    return tuple(Path(each) / "pg_service.conf" for each in _SYSTEM_FOLDERS)


def _of_the_user(name: str) -> Path | None:
    if os.name == "nt":
        folder = os.environ.get("APPDATA")
        return Path(folder) / "postgresql" / name if folder else None
    if home := os.environ.get("HOME"):
        return Path(home) / name
    try:
        import pwd

        return Path(pwd.getpwuid(os.geteuid()).pw_dir) / name
    except (ImportError, KeyError):
        return None


def is_there(path: Path) -> bool:
    """Return whether there is anything, as far as this process may see."""
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True


def operating_system_user() -> str:
    """Return the name of the user that this process runs as.

    Raises `UsageError` where there is none.
    """
    # By the user id, as libpq does: variables such as LOGNAME can name somebody else.
    try:
        import pwd

        return pwd.getpwuid(os.geteuid()).pw_name
    except (ImportError, KeyError):
        import getpass

        try:
            return getpass.getuser()
        except (ImportError, KeyError, OSError):
            reason = "expected a user, and this process runs as one without a name; pass user="
    raise UsageError(reason)
