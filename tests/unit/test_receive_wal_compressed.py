"""Compressed segments that an earlier run has left: what is not whole is never passed over."""

from __future__ import annotations

import gzip
from typing import Final

import pytest

from pgrepl.errors import WalStorageError
from tests.support.wal_disk import Disk
from tests.support.wal_server import SEGMENT, Connection, Server, receive

START: Final = 5 * SEGMENT
FIFTH: Final = "000000010000000000000005"


def server_of(size: int) -> Server:
    return Server(START + size, slot_start=START)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        (f"{FIFTH}.gz", gzip.compress(bytes(SEGMENT))[:-4], "cannot be read"),
        (f"{FIFTH}.gz", gzip.compress(bytes(SEGMENT - 1)), f"got {SEGMENT - 1}"),
        (f"{FIFTH}.gz", gzip.compress(bytes(SEGMENT + 1)), f"got more than {SEGMENT}"),
        (f"{FIFTH}.gz", b"", "got 0"),
    ],
)
def test_a_compressed_segment_that_is_not_whole(name: str, data: bytes, said: str) -> None:
    disk = Disk()
    disk.put(name, data)
    with pytest.raises(WalStorageError, match=said):
        receive(Connection(server_of(SEGMENT)), disk)


@pytest.mark.parametrize(
    ("size", "cut", "said"),
    [(SEGMENT, 4, "cannot be read"), (SEGMENT - 1, 0, f"got {SEGMENT - 1}")],
)
def test_a_segment_of_lz4_that_is_not_whole(size: int, cut: int, said: str) -> None:
    data = pytest.importorskip("lz4.frame").compress(bytes(size), content_checksum=True)
    disk = Disk()
    disk.put(f"{FIFTH}.lz4", data[: len(data) - cut])
    with pytest.raises(WalStorageError, match=said):
        receive(Connection(server_of(SEGMENT)), disk)
