"""Recording: a real server decodes known workloads, and what it streams goes into files.

Law: the bytes are the server's own. Only its keepalives are left out, since their number depends
on the clock, so that each message of a capture is an XLogData and every client can be counted.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Final

from pgrepl.testing import TemporaryServer

from .capture import CYCLE, CYCLES, TABLE_ROWS, CaptureInfo
from .tables import FIRST_ID, FORMATS, REFERENCE, TABLES, Table
from .wire import FRAME_HEADER, XLOGDATA_HEADER, Frontend, WireError, frame_ends, frames

# Part of the files' names: to be raised when a workload or the files change.
_FORMAT: Final = 2

WRITE_ROWS: Final = f"""
    CREATE PROCEDURE write_rows(first bigint, size int, transactions int) LANGUAGE plpgsql AS $$
    BEGIN
        FOR i IN 0 .. transactions - 1 LOOP
            INSERT INTO reference
            SELECT {REFERENCE.expressions}
            FROM generate_series(first + i * size, first + i * size + size - 1) AS id;
            COMMIT;
        END LOOP;
    END $$
    """


class CaptureError(Exception):
    """A capture cannot be kept where it should be, or the stream is not what it must be."""


def captured(bin_directory: Path, version: str) -> Path:
    """Return the file with this server version's stream, recorded now if there is none yet."""
    path = _cache_directory() / f"stream-{_FORMAT}-{version}.bin"
    if not path.exists():
        with TemporaryServer(bin_directory) as cluster:
            _keep(path, *_recorded_stream(cluster))
    return path


def captured_rows(bin_directory: Path, version: str) -> dict[tuple[str, str], Path]:
    """Return the file of each table in each format, recorded now if one of them is missing."""
    folder = _cache_directory()
    paths = {
        (table, form): folder / f"rows-{table}-{form}-{_FORMAT}-{version}.bin"
        for table in TABLES
        for form in FORMATS
    }
    if not all(path.exists() for path in paths.values()):
        with TemporaryServer(bin_directory) as cluster:
            for (table, form), path in paths.items():
                _keep(path, *_recorded_table(cluster, TABLES[table], form))
    return paths


def _recorded_stream(cluster: TemporaryServer) -> tuple[CaptureInfo, bytes]:
    rows = 0
    calls = []
    for size, transactions in CYCLE * CYCLES:
        calls.append(f"CALL write_rows({FIRST_ID + rows}, {size}, {transactions})")
        rows += size * transactions
    return _recorded(cluster, REFERENCE, rows, [WRITE_ROWS], calls, "text")


def _recorded_table(cluster: TemporaryServer, table: Table, form: str) -> tuple[CaptureInfo, bytes]:
    last = FIRST_ID + TABLE_ROWS - 1
    # The other format was recorded from a table of that name, on the same server.
    before = [
        f"DROP PUBLICATION IF EXISTS {table.name}",
        f"DROP TABLE IF EXISTS {table.name}",
    ]
    insert = (
        f"INSERT INTO {table.name} SELECT {table.expressions} "
        f"FROM generate_series({FIRST_ID}::bigint, {last}) AS id"
    )
    return _recorded(cluster, table, TABLE_ROWS, before, [insert], form)


def _recorded(
    cluster: TemporaryServer,
    table: Table,
    rows: int,
    before: Iterable[str],
    writes: Iterable[str],
    form: str,
) -> tuple[CaptureInfo, bytes]:
    """Make the table and a slot, write so many rows, and return what the slot sends of them."""
    slot = f"{table.name}_{form}"
    options = f"proto_version '1', publication_names '{table.name}'"
    if form == "binary":
        options += ", binary 'true'"
    try:
        with Frontend(
            cluster.host,
            cluster.port,
            user="postgres",
            database="postgres",
            replication="database",
            options="-c wal_sender_timeout=0 -c timezone=UTC",
        ) as frontend:
            for statement in (
                *before,
                table.declaration,
                f"CREATE PUBLICATION {table.name} FOR TABLE {table.name}",
                f'CREATE_REPLICATION_SLOT "{slot}" TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT',
                *writes,
            ):
                frontend.query(statement)
            frontend.start_streaming(f'START_REPLICATION SLOT "{slot}" LOGICAL 0/0 ({options})')
            stream, row_payload_size = _receive(frontend, rows)
    except WireError as error:
        raise CaptureError(f"table {table.name} cannot be recorded as {form}: {error}") from error
    messages = len(frame_ends(stream))
    return CaptureInfo(
        server_version=frontend.parameters["server_version"],
        messages=messages,
        rows=rows,
        size=len(stream),
        payload_size=len(stream) - messages * (FRAME_HEADER + XLOGDATA_HEADER),
        row_payload_size=row_payload_size / rows,
    ), stream


def _receive(frontend: Frontend, rows: int) -> tuple[bytes, int]:
    """Read until the last row's Commit; return the XLogData, and the size of all Inserts."""
    stream = bytearray()
    pending = bytearray()
    inserts = insert_size = 0
    while True:
        piece = frontend.socket.recv(1 << 20)
        if not piece:
            raise CaptureError(f"expected {rows} rows, got {inserts}: the server has hung up")
        pending += piece
        taken = 0
        for start, taken in frames(pending):
            body = start + FRAME_HEADER
            if pending[start] != ord("d"):
                raise CaptureError(f"expected CopyData, got message {chr(pending[start])!r}")
            if pending[body] != ord("w"):
                continue
            stream += pending[start:taken]
            kind = pending[body + XLOGDATA_HEADER]
            if kind == ord("I"):
                inserts += 1
                insert_size += taken - body - XLOGDATA_HEADER
            elif kind == ord("C") and inserts == rows:
                return bytes(stream), insert_size
        del pending[:taken]


def _cache_directory() -> Path:
    """Return a folder below the system's temporary one that is ours alone."""
    owner = os.getuid()
    folder = Path(tempfile.gettempdir(), f"pgrepl-benchmarks-{owner}")
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    # Anybody may have made a folder of that name before us, and would choose what we measure.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != owner or status.st_mode & 0o022:
        raise CaptureError(
            f"expected {folder} to be a folder that only this user can write to: remove it"
        )
    return folder


def _keep(path: Path, info: CaptureInfo, stream: bytes) -> None:
    """Write a capture and its description, each whole or not at all; the capture comes last."""
    description = json.dumps(asdict(info), indent=2).encode()
    for target, content in ((path.with_suffix(".json"), description), (path, stream)):
        unfinished = target.with_suffix(f"{target.suffix}.{os.getpid()}")
        unfinished.write_bytes(content)
        unfinished.replace(target)
