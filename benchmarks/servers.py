"""Which PostgreSQL records the stream, and lends its pg_recvlogical."""

from __future__ import annotations

from pathlib import Path

from pgrepl.testing.programs import Programs, find_programs, probe

__all__ = ["Programs", "chosen_server"]


def chosen_server(bin_directory: Path | None = None) -> Programs:
    """Return the server in the folder named, else the one that `TemporaryServer` finds.

    Raises `TemporaryServerError`.
    """
    if bin_directory is None:
        return find_programs()
    return probe((bin_directory, "--bin-directory"))
