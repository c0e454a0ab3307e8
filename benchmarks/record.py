"""Recording: a real server decodes a known workload, and its stream goes into a file.

Law: the bytes are the server's own. Only its keepalives are left out, since their number depends
on the clock, so that each message of a capture is an XLogData and every client can be counted.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Final

from pgrepl.cli.cluster import ThrowAwayCluster

from .capture import CYCLE, CYCLES, CaptureInfo
from .wire import FRAME_HEADER, XLOGDATA_HEADER, Frontend, frame_ends, frames

# Part of the file's name: to be raised when the workload or the file changes.
_FORMAT: Final = 1

_SCHEMA: Final = (
    """
    CREATE TABLE reference (
        id bigint PRIMARY KEY, n int, t text, at timestamptz, price numeric(12,2), u uuid
    )
    """,
    # Each value has the same width in every row, and none is a run of zeros.
    """
    CREATE PROCEDURE write_rows(first bigint, size int, transactions int) LANGUAGE plpgsql AS $$
    BEGIN
        FOR i IN 0 .. transactions - 1 LOOP
            INSERT INTO reference
            SELECT id, 10000 + id * 7919 % 90000, md5(id::text),
                   timestamptz '2024-01-01 00:00:00+00' + id * interval '1 second'
                       + (id % 99999 * 10 + 7) * interval '1 microsecond',
                   (1000000 + id * 104729 % 9000000) / 100.0, md5('u' || id)::uuid
            FROM generate_series(first + i * size, first + i * size + size - 1) AS id;
            COMMIT;
        END LOOP;
    END $$
    """,
    "CREATE PUBLICATION reference FOR TABLE reference",
    'CREATE_REPLICATION_SLOT "capture" TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT',
)


class CaptureError(Exception):
    """A capture cannot be kept where it should be, or the stream is not what it must be."""


def captured(bin_directory: Path, version: str) -> Path:
    """Return the file with this server version's capture, made now if there is none yet."""
    path = _cache_directory() / f"reference-{_FORMAT}-{version}.bin"
    if not path.exists():
        with ThrowAwayCluster(bin_directory) as cluster:
            info, stream = _record(cluster)
        _write(path.with_suffix(".json"), json.dumps(asdict(info), indent=2).encode())
        _write(path, stream)
    return path


def _record(cluster: ThrowAwayCluster) -> tuple[CaptureInfo, bytes]:
    rows = 0
    with Frontend(
        cluster.host,
        cluster.port,
        user="postgres",
        database="postgres",
        replication="database",
        options="-c wal_sender_timeout=0 -c timezone=UTC",
    ) as frontend:
        for statement in _SCHEMA:
            frontend.query(statement)
        for size, transactions in CYCLE * CYCLES:
            frontend.query(f"CALL write_rows({1_000_000 + rows}, {size}, {transactions})")
            rows += size * transactions
        frontend.start_streaming(
            'START_REPLICATION SLOT "capture" LOGICAL 0/0 '
            "(proto_version '1', publication_names 'reference')"
        )
        stream, row_payload_size = _receive(frontend, rows)
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


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    unfinished = path.with_suffix(f"{path.suffix}.{os.getpid()}")
    unfinished.write_bytes(content)
    unfinished.replace(path)
