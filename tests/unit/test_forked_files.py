"""A child that a callback has forked, and that exits: it goes back through what its parent was
doing, and leaves the parent's files, servers and threads alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pgrepl.codec.spool import LEAST_LIMIT, Spool
from pgrepl.errors import UsageError
from pgrepl.physical import drivers
from pgrepl.physical.receiving import ReceivedWal, Receiver
from pgrepl.session.transactions import Transactions
from tests.support.backup_archives import MAIN, PLAIN, Server, contents, events, receive
from tests.support.forking import in_child, unwinding
from tests.support.spooling import XID, batch_of, block_of, commit, read_on
from tests.support.wal_server import SEGMENT, Connection
from tests.unit import test_receive_wal_flavours
from tests.unit.test_receive_wal_flavours import FIFTH, START, run, server_of

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks on this system")


async def _run_to_exit(connection: Any, made: Receiver) -> ReceivedWal:
    try:
        return await drivers._Async(connection, made).run()
    except SystemExit:
        os._exit(0)


@pytest.mark.parametrize("api", ["blocking", "async"])
def test_receive_wal(api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = server_of(SEGMENT + 5)
    connection = Connection(server)

    def received(fork: Callable[[], None]) -> ReceivedWal:
        def stop() -> bool:
            if connection.sent > 1:
                fork()
            return connection.exhausted

        return run(api, connection, tmp_path, stop=stop)

    if api == "async":
        # A loop that ends in the child would take what wakes it from its parent's.
        monkeypatch.setattr(test_receive_wal_flavours, "_run", _run_to_exit)
    assert unwinding(received).segments == 1
    assert (tmp_path / FIFTH).read_bytes() == server.wal(1, START, START + SEGMENT)


def test_a_base_backup(tmp_path: Path) -> None:
    target = tmp_path / "backup"
    server = Server(events((MAIN, PLAIN), manifest=b"{}", cut=1))
    unwinding(lambda fork: receive(server, target, progress=lambda _: fork()))
    assert contents(target) == {"base/1/1259": b"rows", "f": b"x", "backup_manifest": b"{}"}
    assert not server.left_early


def test_a_transaction_that_was_put_aside(codec: ModuleType) -> None:
    """A file has one position for both processes, which a child must not move."""
    spool = Spool(LEAST_LIMIT)
    decoder = codec.Decoder(3, "on", ordered=True)
    batch = batch_of(codec, [*block_of(2000), commit(XID)])
    assembled = Transactions()
    assembled.feed(decoder.decode_batch(batch, spool))
    assert assembled.next() is not None
    changes = read_on(assembled)
    for _ in range(10):
        next(changes)

    def reads_on() -> None:
        with pytest.raises(UsageError, match="which made this connection"):
            list(changes)
        spool.close()

    in_child(reads_on)
    assert len(list(changes)) == 1990
    spool.close()
