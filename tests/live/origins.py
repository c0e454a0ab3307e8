"""Servers that base backups are taken of, and what is asked of them and of what becomes of one."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Final

import psycopg

from pgrepl.testing import TemporaryServer
from pgrepl.testing.server_account import give, server_account

__all__ = ["ROWS", "execute", "fill", "run_program"]

ROWS: Final = "SELECT count(*), sum(length(t)) FROM big"
"""The same at the origin and at a server that was started from a backup of it."""


def execute(server: TemporaryServer, statement: str) -> list[tuple[Any, ...]]:
    """Run statements, each by itself; returns the last rows."""
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        for each in statement.split(";"):
            cursor = connection.execute(each)
        return cursor.fetchall() if cursor.description else []


def run_program(server: TemporaryServer, program: str, *arguments: str | Path) -> str:
    """Run one of the server's programs, which must succeed."""
    done = subprocess.run(
        [server.bin_directory / program, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def fill(server: TemporaryServer) -> None:
    """Give it 3 MB of rows, and a table in a tablespace."""
    folder = server.folder / "its space"
    folder.mkdir()
    give(folder, server_account())
    execute(
        server,
        f"CREATE TABLESPACE space LOCATION '{folder}'; CREATE TABLE big (t text);"
        " INSERT INTO big SELECT repeat('x', 1000) FROM generate_series(1, 3000);"
        " CREATE TABLE moved TABLESPACE space AS SELECT 7 AS seven",
    )
