"""A server's data directory: how it is made, and the settings that it begins with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .addresses import HOST, SUPERUSER
from .processes import Processes
from .server_account import Account, give

__all__ = ["DEFAULT_SETTINGS", "TRUST_EVERYONE", "DataDirectory", "Settings"]

Settings = Mapping[str, str | int | bool]

DEFAULT_SETTINGS: Final[Settings] = {
    "wal_level": "logical",
    "max_wal_senders": 20,
    "max_replication_slots": 20,
    "max_prepared_transactions": 20,
    "fsync": False,
    "full_page_writes": False,
    "listen_addresses": HOST,
    "shared_buffers": "32MB",
    "jit": False,
}

TRUST_EVERYONE: Final = f"""\
local all,replication all trust
host  all,replication all {HOST}/32 trust
"""


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """What a data directory is made of: see `TemporaryServer`, which takes the same."""

    settings: Settings
    hba: str | None
    files: Mapping[str, bytes]
    fill: Callable[[Path], object] | None

    def make(
        self, path: Path, bin_directory: Path, processes: Processes, account: Account | None
    ) -> None:
        """Make it at `path`, for the server's user alone.

        Raises `TemporaryServerError` where initdb fails, and what `fill` raises.
        """
        if self.fill is None:
            processes.run(
                bin_directory / "initdb",
                *("--pgdata", str(path), "--username", SUPERUSER, "--auth", "trust"),
                *("--encoding", "UTF8", "--locale", "C", "--no-sync"),
            )
        else:
            self.fill(path)
        hba = TRUST_EVERYONE if self.hba is None and self.fill is None else self.hba
        if hba is not None:
            _write(path / "pg_hba.conf", hba.encode())
        settings = {**self.settings, "unix_socket_directories": str(path.parent)}
        with (path / "postgresql.conf").open("a", encoding="utf-8") as conf:
            conf.writelines(_setting_line(name, value) for name, value in settings.items())
        for name, content in self.files.items():
            _write(path / name, content)
        give(path, account)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)


def _setting_line(name: str, value: str | int | bool) -> str:
    text = ("on" if value else "off") if isinstance(value, bool) else str(value)
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"{name} = '{escaped}'\n"
