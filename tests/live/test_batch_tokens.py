"""Tokens of batches on real servers: a restart goes on exactly behind the batch."""

from __future__ import annotations

from itertools import islice
from typing import Any, Literal

import pytest

import pgrepl
from tests.live.streams import TABLE, Connect, confirmed, create_slot, wait_until_free
from tests.support.clusters import Database

SIZES = (5, 1, 700, 3)


def work(database: Database) -> list[Any]:
    """Transactions of these sizes, and messages of none in between; what there is to be given."""
    expected: list[Any] = []
    first = 0
    for size in SIZES:
        note = f"before {first}"
        database.execute("SELECT pg_logical_emit_message(false, 'p', %s)", [note])
        database.execute(
            "INSERT INTO item SELECT i, repeat('x', 500) FROM generate_series(%s::int, %s) i",
            [first, first + size - 1],
        )
        expected += [note.encode(), *range(first, first + size)]
        first += size
    return expected


def keys(batch: Any) -> list[Any]:
    return [
        change.content if isinstance(change, pgrepl.Message) else change.new["id"]
        for change in batch
    ]


@pytest.mark.parametrize(("streaming", "acks"), [("off", False), ("off", True), ("on", False)])
def test_a_restart_behind_each_batch(
    database: Database, connect: Connect, streaming: Literal["off", "on"], acks: bool
) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    expected = work(database)
    token: pgrepl.ResumeToken | None = None
    seen: list[Any] = []
    rows = (1, 2, 3, 1, 2, 300, 90, 250, 400, 5)
    for max_rows in rows:
        with (
            connect(database.dsn(), options="-c logical_decoding_work_mem=64kB") as connection,
            connection.stream(
                slot, publications=["p"], start=token, streaming=streaming, messages=True
            ) as stream,
        ):
            batch = next(stream.batches(max_rows, max_wait=0.2))
            kept = stream.token(batch)
            given = keys(batch)
            # A message that belongs to none, and stands where the token is, comes once more.
            if token is not None and token.index == 0 and given[0] == seen[-1]:
                assert isinstance(given.pop(0), bytes)
            seen += given
            assert kept.end_lsn >= stream.start
            if acks:
                stream.ack(batch)
            token = pgrepl.ResumeToken.parse(str(kept))
        wait_until_free(database, slot)
        assert confirmed(database, slot) <= (batch.end_lsn if acks else stream.start)
        if len(seen) == len(expected):
            break
    assert seen == expected


def test_transactions_of_batches_are_those_of_the_server(
    database: Database, connect: Connect
) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    work(database)
    with (
        connect(database.dsn()) as connection,
        connection.stream(slot, publications=["p"]) as stream,
    ):
        batches = list(islice(stream.batches(max_rows=100, max_wait=0.5), 8))
        parts = [(batch, part) for batch in batches for part in batch.transactions]
        stream.ack(batches[-1])
    with (
        connect(database.dsn()) as connection,
        connection.stream(slot, publications=["p"]) as stream,
    ):
        database.execute("INSERT INTO item VALUES (-1)")
        last = next(stream.transactions())
    whole: dict[int, list[Any]] = {}
    for batch, part in parts:
        assert part.xid is not None and part.commit_time is not None
        assert part.index == len(whole.setdefault(part.xid, []))
        whole[part.xid] += keys(batch.changes[part.changes])
    assert [len(changes) for changes in whole.values()] == list(SIZES)
    assert len({part.commit_lsn for _, part in parts}) == len(SIZES)
    assert last.commit_lsn is not None and last.commit_lsn > parts[-1][1].commit_lsn
